"""Which kinds of actions there are."""

from __future__ import annotations

from localcloud.codepipeline.actions.action import Action, Kind
from localcloud.codepipeline.actions.approval import ManualApproval
from localcloud.codepipeline.actions.cloudformation import CloudFormation
from localcloud.codepipeline.actions.codebuild import CodeBuild
from localcloud.codepipeline.actions.connection_source import ConnectionSource
from localcloud.codepipeline.actions.lambda_function import LambdaFunction
from localcloud.codepipeline.actions.s3_source import S3Source

_ACTIONS: tuple[type[Action], ...] = (S3Source, ConnectionSource, CodeBuild, CloudFormation, ManualApproval, LambdaFunction)
KINDS: dict[tuple[str, str], tuple[Kind, Action]] = {
    (kind.category, kind.provider): (kind, action()) for action in _ACTIONS for kind in action.kinds
}


def find_kind(action_type: dict[str, str]) -> tuple[Kind, Action] | None:
    """Return the kind of an actionTypeId, or None when it is not played."""
    if action_type["owner"] != "AWS" or action_type["version"] != "1":
        return None
    return KINDS.get((action_type["category"], action_type["provider"]))
