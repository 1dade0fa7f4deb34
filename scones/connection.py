"""What follows after the delivery stack is there: the connection to the repository's host, and the first push."""

from __future__ import annotations

import json
import shlex
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from scones.errors import SconesError
from scones.registry import stack_outputs

if TYPE_CHECKING:
    from pipelines.settings import Settings
    from scones.target import Target

_SECONDS = 30


def next_steps(target: Target, settings: Settings, stack: str) -> list[str]:
    """Return what a person does next, as lines whose commands name no target yet. On localcloud the connection leads to a repository of its own afterwards.

    Raises:
        SconesError: localcloud refuses the connection.
    """
    outputs = stack_outputs(target, stack) or {}
    if "SourceKey" in outputs:
        return ["Deliver the commit that is checked out: scones cicd push"]
    if "GitHubActionsRoleArn" in outputs:
        return [
            f"Put the workflow of docs/cicd.md into .github/workflows/, with the variables AWS_ROLE_ARN={outputs['GitHubActionsRoleArn']} and "
            f"AWS_REGION={settings.aws.region} of the repository {settings.cicd.repository}, and push.",
        ]
    arn, branch = outputs["ConnectionArn"], settings.cicd.branch
    if target.kind == "localcloud":
        remote = _authorize(target, arn, settings.cicd.repository or "")
        return [f"Deliver a commit: git push {shlex.quote(remote)} HEAD:{branch}", "Then look: scones cicd status"]
    lines = [f"Deliver a commit: git push to the branch {branch} of {settings.cicd.repository}, then look: scones cicd status"]
    connection = target.client("codeconnections").get_connection(ConnectionArn=arn)["Connection"]
    if connection["ConnectionStatus"] == "PENDING":
        region = arn.split(":")[3]
        lines.insert(
            0,
            f"First authorize the connection {connection['ConnectionName']}, once, in the console (no command can): "
            f"https://{region}.console.aws.amazon.com/codesuite/settings/connections",
        )
    return lines


def _authorize(target: Target, arn: str, repository: str) -> str:
    """Do on localcloud what a person does in the console; return the folder to push to."""
    request = urllib.request.Request(
        f"{target.endpoint_url}/_localcloud/connections/authorize",
        data=json.dumps({"ConnectionArn": arn, "FullRepositoryId": repository}).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_SECONDS) as response:
            return str(json.load(response)["Remote"])
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise SconesError(f"localcloud cannot authorize the connection {arn}: {text}") from None
