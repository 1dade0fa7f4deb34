"""The SageMaker API of this region: every group of operations, in one service.

In this process call the operations as HTTP does: ``service.create_processing_job({...})`` returns ``{"ProcessingJobArn": …}`` at once, the job runs on a thread of
its own, and ``service.jobs.wait(JobKind.PROCESSING, name, timeout)`` sleeps until it has ended and returns what DescribeProcessingJob returns (None when the
time is over). Requests that come this way are not validated against botocore's model; the operations' own checks are made.
"""

from __future__ import annotations

from localcloud.sagemaker.endpoints import EndpointOperations
from localcloud.sagemaker.pipelines.operations import PipelineOperations
from localcloud.sagemaker.processing import ProcessingOperations
from localcloud.sagemaker.training import TrainingOperations
from localcloud.service import Params


class SageMakerService(PipelineOperations, EndpointOperations, TrainingOperations, ProcessingOperations):
    """SageMaker's control plane. Endpoints bring configurations, models and the registry with them."""

    def add_tags(self, params: Params) -> Params:
        """Add or replace tags of a resource."""
        return {"Tags": self.tags.add(params["ResourceArn"], params["Tags"])}

    def list_tags(self, params: Params) -> Params:
        """Return a resource's tags."""
        return {"Tags": self.tags.list(params["ResourceArn"])}

    def delete_tags(self, params: Params) -> None:
        """Remove tags of a resource."""
        self.tags.remove(params["ResourceArn"], params["TagKeys"])
