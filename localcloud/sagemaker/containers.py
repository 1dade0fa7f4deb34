"""What a container's role needs besides S3 and logs: to pull the image, and to report its metrics.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html (execution roles of CreateProcessingJob, CreateTrainingJob, CreateModel).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from localcloud.iam.needs import Need

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.iam.principals import RoleSession

_IMAGE = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[^.]+)\.amazonaws\.com(\.cn)?/(?P<repository>[^:@]+)([:@].*)?")
_PULL = ("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage")


def check_container(cloud: Cloud, session: RoleSession, image: str) -> str | None:
    """Return why a role cannot pull an image of ECR, or None. That it may not report metrics is no reason: on AWS they are missing then."""
    match = _IMAGE.fullmatch(image)
    if match is None:
        return None
    repository = f"arn:aws:ecr:{match['region']}:{match['account']}:repository/{match['repository']}"
    for need in (Need("ecr:GetAuthorizationToken", "*"), *(Need(action, repository) for action in _PULL)):
        decision = cloud.iam.decide(session, need)
        if not decision.allowed:
            return (
                f"The image '{image}' cannot be pulled: please ensure that the role {session.role_arn} has {need.action} permissions on it "
                f"({decision.reason})."
            )
    cloud.iam.decide(session, Need("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": ("/aws/sagemaker/Containers",)}))
    return None
