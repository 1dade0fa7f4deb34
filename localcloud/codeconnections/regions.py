"""Where AWS has no CodeConnections."""

from __future__ import annotations

#: Regions with CodePipeline and without CodeConnections
#: (https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-CodestarConnectionSource.html).
WITHOUT_CODECONNECTIONS = frozenset(
    (
        "af-south-1",
        "ap-east-1",
        "ap-northeast-3",
        "ap-south-2",
        "ap-southeast-3",
        "ap-southeast-4",
        "eu-central-2",
        "eu-south-2",
        "il-central-1",
        "me-central-1",
        "me-south-1",
        "us-gov-west-1",
    )
)
