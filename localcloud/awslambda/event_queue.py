"""Asynchronous invocations: accepted at once, kept until they are done, retried, and then given to a dead-letter queue or a destination.

As AWS does (https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html): a function that fails is tried again twice, after one and
after two minutes; here a minute is half a second (`RETRY_SECONDS`). A throttled event is tried until it is too old. What was accepted survives kill -9.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.awslambda.functions import LATEST, FunctionStore, Target
from localcloud.awslambda.invocations import InvocationResult, Invoker
from localcloud.errors import ServiceError
from localcloud.iam.principals import RoleSession
from localcloud.messaging import MessageRefused, publish_to_topic, send_to_queue, string_attributes

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

log = logging.getLogger(__name__)

#: Seconds before the first and the second retry of a function that failed.
RETRY_SECONDS = (0.5, 1.0)
#: Seconds between attempts while a function is throttled; AWS backs off from 1 s to 5 min.
THROTTLED_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
MAX_AGE_SECONDS = 21_600
MAX_RETRIES = 2


class EventQueue:
    """Lambda's queue of events."""

    def __init__(self, cloud: Cloud, functions: FunctionStore, invoker: Invoker) -> None:
        self._cloud = cloud
        self._functions = functions
        self._invoker = invoker
        self._table = cloud.db.table("lambda.events")

    def start(self) -> None:
        """Go on with what an earlier process accepted."""
        for event in self._table.values():
            self._cloud.background.spawn(self._process(event))

    def put(self, target: Target, payload: bytes, client_context: Any = None) -> str:
        """Accept an event and return its request id; from then on it is not lost."""
        event = {
            "id": str(uuid.uuid4()),
            "function": target.version.name,
            "qualifier": target.qualifier,
            "payload": payload.decode(),
            "client_context": client_context,
            "attempts": 0,
            "accepted": datetime.now(UTC),
        }
        self._table.put(event["id"], event)
        self._cloud.background.spawn(self._process(event))
        return str(event["id"])

    async def _process(self, event: Document) -> None:
        throttled = 0
        while True:
            try:
                target = self._functions.resolve(event["function"], event["qualifier"])
                settings = self._settings(event)
                age = (datetime.now(UTC) - event["accepted"]).total_seconds()
                if age > settings["MaximumEventAgeInSeconds"]:
                    await self._give_up(event, target, settings, None, "EventAgeExceeded")
                    break
                result = await self._invoker.invoke(target, event["payload"].encode(), event["id"], event["client_context"])
            except ServiceError as error:
                if error.code != "TooManyRequestsException":
                    log.warning("An event for the function %s is dropped: %s", event["function"], error.message)
                    break
                await asyncio.sleep(THROTTLED_SECONDS[min(throttled, len(THROTTLED_SECONDS) - 1)])
                throttled += 1
                continue
            event["attempts"] += 1
            if result.function_error is None:
                await self._send_record(event, target, settings, "OnSuccess", "Success", result)
                break
            if event["attempts"] > settings["MaximumRetryAttempts"]:
                await self._give_up(event, target, settings, result, "RetriesExhausted")
                break
            self._table.put(event["id"], event)
            await asyncio.sleep(RETRY_SECONDS[min(event["attempts"], len(RETRY_SECONDS)) - 1])
        self._table.delete(event["id"])

    def _settings(self, event: Document) -> dict[str, Any]:
        document = self._functions.get(event["function"])
        configured: dict[str, Any] = document["event_invoke"].get(event["qualifier"] or LATEST, {})
        return {"MaximumRetryAttempts": MAX_RETRIES, "MaximumEventAgeInSeconds": MAX_AGE_SECONDS} | configured

    async def _give_up(
        self, event: Document, target: Target, settings: dict[str, Any], result: InvocationResult | None, condition: str
    ) -> None:
        dead_letter_arn = target.version.configuration.get("DeadLetterConfig", {}).get("TargetArn")
        if dead_letter_arn:
            error = json.loads(result.payload) if result is not None else {}
            attributes = string_attributes(RequestID=event["id"], ErrorMessage=str(error.get("errorMessage", condition))[:1024])
            attributes["ErrorCode"] = {"DataType": "Number", "StringValue": "200"}
            await asyncio.to_thread(self._send, _session(target), dead_letter_arn, event["payload"], attributes)
        await self._send_record(event, target, settings, "OnFailure", condition, result)

    async def _send_record(
        self, event: Document, target: Target, settings: dict[str, Any], kind: str, condition: str, result: InvocationResult | None
    ) -> None:
        destination = settings.get("DestinationConfig", {}).get(kind, {}).get("Destination")
        if not destination:
            return
        record: dict[str, Any] = {
            "version": "1.0",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "requestContext": {
                "requestId": event["id"],
                "functionArn": self._functions.arn(target.version.name, event["qualifier"] or LATEST),
                "condition": condition,
                "approximateInvokeCount": event["attempts"],
            },
            "requestPayload": json.loads(event["payload"]),
        }
        if result is not None:
            context = {"statusCode": result.status_code, "executedVersion": result.executed_version}
            record["responseContext"] = context | ({"functionError": result.function_error} if result.function_error else {})
            record["responsePayload"] = json.loads(result.payload)
        if ":event-bus/" in destination:
            # Blocking and short: a look at policies.
            try:
                self._cloud.iam.authorize(_session(target), "events", "PutEvents", {"Entries": [{"EventBusName": destination}]})
            except ServiceError as error:
                log.error("What became of an event could not be sent to %s: %s", destination, error.message)
                return
            outcome = "Success" if kind == "OnSuccess" else "Failure"
            events: Any = self._cloud.services["events"]
            resources = [record["requestContext"]["functionArn"], destination]
            await asyncio.to_thread(
                events.emit,
                "lambda",
                f"Lambda Function Invocation Result - {outcome}",
                record,
                resources,
                bus=destination.rpartition("/")[2],
            )
        else:
            await asyncio.to_thread(self._send, _session(target), destination, json.dumps(record), None)

    def _send(self, session: RoleSession, arn: str, body: str, attributes: dict[str, dict[str, str]] | None) -> None:
        service = arn.split(":")[2]
        try:
            if service == "sqs":
                self._cloud.iam.authorize(session, "sqs", "SendMessage", {"QueueUrl": arn})
                send_to_queue(self._cloud, arn, body, attributes)
            elif service == "sns":
                self._cloud.iam.authorize(session, "sns", "Publish", {"TopicArn": arn})
                publish_to_topic(self._cloud, arn, body, attributes=attributes)
            else:
                self._cloud.iam.authorize(session, "lambda", "Invoke", {"FunctionName": arn})
                self.put(self._functions.resolve(arn), body.encode())
        except (MessageRefused, ServiceError) as error:
            # AWS drops the event as well, and counts it in the metric DeadLetterErrors or DestinationDeliveryFailures.
            log.error("What became of an event could not be sent to %s: %s", arn, error)


def _session(target: Target) -> RoleSession:
    return RoleSession(target.version.configuration["Role"], target.version.name)
