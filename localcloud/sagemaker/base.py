"""What every group of SageMaker operations shares: state, jobs, tags, events, and the checks AWS makes in all of them.

Operations are mixins over `SageMakerBase`, one module per group; `service.SageMakerService` composes them. A mixin that needs `start` or `stop` calls
super's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from localcloud.errors import ServiceError
from localcloud.iam.trust import can_assume
from localcloud.sagemaker.jobs import Jobs
from localcloud.sagemaker.tags import Tags
from localcloud.sagemaker.values import json_ready
from localcloud.service import Service

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

PRINCIPAL = "sagemaker.amazonaws.com"


class SageMakerBase(Service):
    """State and helpers of the SageMaker service.

    Attributes:
        jobs: Runs Processing and Training jobs. Create one with ``create_processing_job(params)`` or ``create_training_job(params)``, in this process as over
            HTTP, and wait with ``jobs.wait(JobKind.PROCESSING, name, timeout)``, which sleeps on a condition and returns what Describe… returns.
        tags: Tags of every SageMaker resource, by ARN; call ``tags.create`` when a resource is made and ``tags.delete`` when it goes.
    """

    name: ClassVar[str] = "sagemaker"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.jobs = Jobs(cloud, self.emit)
        self.tags = Tags(cloud.db.table("sagemaker.tags"))

    def start(self) -> None:
        """Fail the jobs that were running when the process before this one ended."""
        super().start()
        self.jobs.start()

    def stop(self) -> None:
        """End the jobs."""
        self.jobs.stop()
        super().stop()

    def tags_of(self, arn: str) -> Mapping[str, str]:
        """Return a resource's tags."""
        return self.tags.mapping(arn)

    def arn(self, kind: str, name: str) -> str:
        """Return a resource's ARN; SageMaker writes names in lower case there (except in the registry)."""
        return self.cloud.arn("sagemaker", f"{kind}/{name.lower()}")

    def emit(self, detail_type: str, detail: dict[str, Any], arn: str) -> None:
        """Put an ``aws.sagemaker`` event about one resource on the event bus; datetimes become milliseconds since 1970, as SageMaker writes them."""
        self.cloud.emit("aws.sagemaker", detail_type, json_ready(detail) | {"Tags": self.tags.mapping(arn)}, [arn])

    def check_role(self, role_arn: str, resource: str) -> None:
        """Refuse a role that SageMaker cannot assume for a resource (ARN), as AWS does when that is created."""
        if not can_assume(self.cloud, role_arn, PRINCIPAL, resource):
            raise ServiceError(
                "ValidationException",
                f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal '{PRINCIPAL}' to assume the role.",
            )
