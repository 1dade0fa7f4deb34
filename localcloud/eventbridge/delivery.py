"""Deliveries: each event on its way to one target, kept until it has arrived or was given up.

As on AWS an error that time may mend is retried with exponential back-off, 185 times or for 24 hours unless the target's RetryPolicy says otherwise, and what
cannot be delivered goes to the target's dead-letter queue. The back-off begins at a tenth of a second and ends at ten seconds here. What was accepted is
delivered also when localcloud was killed meanwhile; a target may then see an event twice, as on AWS.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.eventbridge.inputs import InvalidInput, RuleContext, target_input
from localcloud.eventbridge.targets import DeliveryError, Senders
from localcloud.messaging import string_attributes

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

log = logging.getLogger(__name__)

MAX_RETRIES = 185
MAX_AGE_SECONDS = 86_400
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 10.0


class Deliveries:
    """All deliveries under way."""

    def __init__(self, cloud: Cloud, senders: Senders) -> None:
        self._cloud = cloud
        self._senders = senders
        self._table = cloud.db.table("events.deliveries")

    def start(self) -> None:
        """Go on with what an earlier process did not finish."""
        for delivery in self._table.values():
            self._cloud.background.spawn(self._deliver(delivery))

    def put(self, rule: Document, target: dict[str, Any], event: dict[str, Any]) -> None:
        """Accept one delivery; from then on it is not lost."""
        delivery = {
            "id": str(uuid.uuid4()),
            "rule_name": rule["Name"],
            "rule_arn": rule["Arn"],
            "bus": rule["EventBusName"],
            "target": target,
            "event": event,
            "accepted": datetime.now(UTC),
        }
        self._table.put(delivery["id"], delivery)
        self._cloud.background.spawn(self._deliver(delivery))

    async def _deliver(self, delivery: Document) -> None:
        retries = 0
        target = delivery["target"]
        policy = {"MaximumRetryAttempts": MAX_RETRIES, "MaximumEventAgeInSeconds": MAX_AGE_SECONDS} | target.get("RetryPolicy", {})
        while True:
            try:
                await asyncio.to_thread(self._send, delivery)
                break
            except DeliveryError as error:
                age = (datetime.now(UTC) - delivery["accepted"]).total_seconds()
                exhausted = None
                if error.retriable:
                    if retries >= policy["MaximumRetryAttempts"]:
                        exhausted = "MaximumRetryAttempts"
                    elif age > policy["MaximumEventAgeInSeconds"]:
                        exhausted = "MaximumEventAgeInSeconds"
                    else:
                        await asyncio.sleep(min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**retries) * random.uniform(0.5, 1.0))
                        retries += 1
                        continue
                await asyncio.to_thread(self._give_up, delivery, error, retries, exhausted)
                break
        self._count(delivery, "Invocations")
        self._table.delete(delivery["id"])

    def _count(self, delivery: Document, metric: str) -> None:
        self._cloud.metrics.rule(metric, delivery["rule_name"], delivery["bus"])

    def _send(self, delivery: Document) -> None:
        context = RuleContext(delivery["rule_name"], delivery["rule_arn"], delivery["accepted"].strftime("%Y-%m-%dT%H:%M:%SZ"))
        try:
            payload = target_input(delivery["target"], delivery["event"], context)
        except InvalidInput as error:
            raise DeliveryError("INVALID_JSON", str(error)) from error
        self._senders.send(delivery["target"], delivery["rule_arn"], payload, delivery["event"])

    def _give_up(self, delivery: Document, error: DeliveryError, retries: int, exhausted: str | None) -> None:
        target = delivery["target"]
        log.warning(
            "The event %s of the rule %s did not reach %s: %s", delivery["event"]["id"], delivery["rule_name"], target["Arn"], error
        )
        self._count(delivery, "FailedInvocations")
        queue_arn = target.get("DeadLetterConfig", {}).get("Arn")
        if not queue_arn:
            return
        attributes = string_attributes(
            RULE_ARN=delivery["rule_arn"], TARGET_ARN=target["Arn"], ERROR_CODE=error.code, ERROR_MESSAGE=str(error)[:1024]
        )
        if exhausted:
            attributes |= string_attributes(EXHAUSTED_RETRY_CONDITION=exhausted)
            attributes["RETRY_ATTEMPTS"] = {"DataType": "Number", "StringValue": str(retries)}
        try:
            self._senders.dead_letter(queue_arn, delivery["rule_arn"], delivery["event"], attributes)
        except DeliveryError as refused:
            self._count(delivery, "InvocationsFailedToBeSentToDlq")
            log.error("The event %s is lost: its dead-letter queue cannot be used. %s", delivery["event"]["id"], refused)
        else:
            self._count(delivery, "InvocationsSentToDlq")
