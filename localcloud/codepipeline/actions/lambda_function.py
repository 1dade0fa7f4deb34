"""Invoke: Lambda. The function tells how it went with PutJobSuccessResult or PutJobFailureResult.

https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-Lambda.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from localcloud.codepipeline.actions.action import SESSION_NAME, Action, ActionFailed, Answer, Job, Kind, Started, State, Succeeded
from localcloud.codepipeline.artifacts import Artifact


class LambdaFunction(Action):
    """Invokes a function, and waits for the job's result."""

    kinds: ClassVar[tuple[Kind, ...]] = (
        Kind(
            "Invoke",
            "Lambda",
            required=frozenset(("FunctionName",)),
            optional=frozenset(("UserParameters",)),
            inputs=(0, 5),
            outputs=(0, 5),
            timeout_minutes=24 * 60,
        ),
    )

    def start(self, job: Job) -> Started:
        """Invoke the function."""
        self._invoke(job, None)
        return Started({"seen": 0}, job.action_execution_id)

    def check(self, job: Job, state: State, inbox: Sequence[Answer]) -> Started | Succeeded | None:
        """Look for the result; one with a continuation token has the function invoked again."""
        if len(inbox) == state["seen"]:
            return None
        result = inbox[state["seen"]]
        if "failure" in result:
            raise ActionFailed(result["failure"]["type"], result["failure"]["message"])
        details = result.get("executionDetails", {})
        if result.get("continuationToken"):
            self._invoke(job, result["continuationToken"])
            return Started({"seen": state["seen"] + 1}, details.get("externalExecutionId"), summary=details.get("summary"))
        return Succeeded(result.get("outputVariables", {}), details.get("summary"), details.get("externalExecutionId"))

    def _invoke(self, job: Job, continuation: str | None) -> None:
        configuration = {name: job.configuration[name] for name in ("FunctionName", "UserParameters") if name in job.configuration}
        environment = job.cloud.client_environment(job.role, SESSION_NAME)
        data: dict[str, Any] = {
            "actionConfiguration": {"configuration": configuration},
            "inputArtifacts": [_location(name, artifact) for name, artifact in job.inputs.items()],
            "outputArtifacts": [_location(name, artifact) for name, artifact in job.outputs.items()],
            "artifactCredentials": {
                "accessKeyId": environment["AWS_ACCESS_KEY_ID"],
                "secretAccessKey": environment["AWS_SECRET_ACCESS_KEY"],
                "sessionToken": environment["AWS_SESSION_TOKEN"],
            },
        }
        if continuation is not None:
            data["continuationToken"] = continuation
        payload = {"CodePipeline.job": {"id": job.action_execution_id, "accountId": job.cloud.settings.account_id, "data": data}}
        job.clients("lambda").invoke(
            FunctionName=job.configuration["FunctionName"], InvocationType="Event", Payload=json.dumps(payload).encode()
        )


def _location(name: str, artifact: Artifact) -> dict[str, Any]:
    return {
        "location": {"s3Location": {"bucketName": artifact.bucket, "objectKey": artifact.key}, "type": "S3"},
        "revision": None,
        "name": name,
    }
