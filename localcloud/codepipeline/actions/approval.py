"""Approval: Manual. Waits until PutApprovalResult brings a person's answer.

https://docs.aws.amazon.com/codepipeline/latest/userguide/approvals.html
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from localcloud.codepipeline.actions.action import Action, ActionFailed, Answer, Job, Kind, Started, State, Succeeded

_TIMEOUT_MINUTES = 7 * 24 * 60


class ManualApproval(Action):
    """Asks, and waits for the answer."""

    kinds: ClassVar[tuple[Kind, ...]] = (
        Kind(
            "Approval",
            "Manual",
            required=frozenset(),
            optional=frozenset(("NotificationArn", "CustomData", "ExternalEntityLink")),
            inputs=(0, 0),
            outputs=(0, 0),
            timeout_minutes=_TIMEOUT_MINUTES,
        ),
    )

    def start(self, job: Job) -> Started:
        """Tell the topic, if there is one, what is to be decided."""
        token = str(uuid.uuid4())
        if "NotificationArn" in job.configuration:
            job.clients("sns").publish(
                TopicArn=job.configuration["NotificationArn"],
                Subject=f"APPROVAL NEEDED: AWS CodePipeline {job.pipeline} for action {job.action}"[:100],
                Message=json.dumps(_message(job, token)),
            )
        return Started(token=token)

    def check(self, job: Job, state: State, inbox: Sequence[Answer]) -> Succeeded | None:
        """Look for the answer."""
        if not inbox:
            return None
        answer = inbox[0]
        if answer["status"] == "Rejected":
            raise ActionFailed("JobFailed", answer["summary"] or "The approval action was rejected")
        return Succeeded(summary=answer["summary"] or None)


def _message(job: Job, token: str) -> dict[str, object]:
    """Return the notification, as https://docs.aws.amazon.com/codepipeline/latest/userguide/approvals-json-format.html shows it."""
    region = job.cloud.settings.region
    view = f"https://{region}.console.aws.amazon.com/codesuite/codepipeline/pipelines/{job.pipeline}/view?region={region}"
    return {
        "region": region,
        "consoleLink": view,
        "approval": {
            "pipelineName": job.pipeline,
            "stageName": job.stage,
            "actionName": job.action,
            "token": token,
            "expires": (datetime.now(UTC) + timedelta(minutes=_TIMEOUT_MINUTES)).strftime("%Y-%m-%dT%H:%MZ"),
            "externalEntityLink": job.configuration.get("ExternalEntityLink"),
            "approvalReviewLink": f"{view}#/{job.stage}/{job.action}/approve/{token}",
            "customData": job.configuration.get("CustomData"),
        },
    }
