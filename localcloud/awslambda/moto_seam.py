"""Where moto's other services call Lambda: `moto.awslambda.utils.get_backend`, which S3, CloudWatch Logs, SQS and Secrets Manager look up at each call, and
SNS's `Subscription.publish`.

`install` puts localcloud's functions behind them, so that a notification runs the real function, asynchronously, where it may: a function's resource policy
decides, as on AWS. Held by tests/integration/test_contract_lambda.py.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import moto.awslambda.utils
from moto.sns.models import Subscription

from localcloud.errors import not_supported

if TYPE_CHECKING:
    from localcloud.awslambda.service import LambdaService


class MotoLambda:
    """What moto's services take for moto's Lambda backend."""

    def __init__(self, service: LambdaService) -> None:
        self._service = service

    def get_function(self, arn: str) -> NotifiedFunction:
        """Return a function that S3 notifies, or that Logs and Secrets Manager look for.

        Raises:
            ServiceError: There is no such function.
        """
        self._service.functions.resolve(arn)
        return NotifiedFunction(self._service, arn)

    def send_log_event(self, arn: str, filter_name: str, log_group: str, log_stream: str, events: list[dict[str, Any]]) -> None:
        """Invoke a function that subscribes to a log group."""
        data = {
            "messageType": "DATA_MESSAGE",
            "owner": self._service.cloud.settings.account_id,
            "logGroup": log_group,
            "logStream": log_stream,
            "subscriptionFilters": [filter_name],
            "logEvents": events,
        }
        packed = base64.b64encode(gzip.compress(json.dumps(data).encode())).decode()
        source = self._service.cloud.arn("logs", f"log-group:{log_group}:*")
        self._service.notify(arn, {"awslogs": {"data": packed}}, "logs.amazonaws.com", source)

    def invoke(self, arn: str, qualifier: str | None, body: str, headers: Any, response_headers: Any) -> bytes:
        """Invoke a function and wait (Secrets Manager's rotation)."""
        return self._service.invoke_function(arn, body.encode(), qualifier=qualifier).payload

    def send_sqs_batch(self, arn: str, messages: Any, queue_arn: str) -> bool:
        """Refuse: event source mappings are not played (CreateEventSourceMapping says so), so that no queue has one."""
        raise not_supported("An event source mapping")


class NotifiedFunction:
    """A function as moto's S3 sees it."""

    def __init__(self, service: LambdaService, arn: str) -> None:
        self._service = service
        self._arn = arn

    def invoke(self, body: str, request_headers: Any, response_headers: Any) -> None:
        """Invoke it with an S3 notification."""
        event = json.loads(body)
        source = event["Records"][0]["s3"]["bucket"]["arn"] if event.get("Records") else ""
        self._service.notify(self._arn, event, "s3.amazonaws.com", source)


def _sns_publish(service: LambdaService, original: Callable[..., None]) -> Callable[..., None]:
    """Return a `Subscription.publish` that hands Lambda subscriptions what moto leaves out: the topic, the subscription, the message's attributes."""

    def publish(
        self: Subscription, message: str, message_id: str, subject: str | None = None, message_attributes: Any = None, **options: Any
    ) -> None:
        if self.protocol != "lambda":
            original(self, message, message_id, subject=subject, message_attributes=message_attributes, **options)
            return
        if self._filter_policy_matcher is not None and not self._filter_policy_matcher.matches(message_attributes, message):
            return
        notification = {
            "Type": "Notification",
            "MessageId": message_id,
            "TopicArn": self.topic_arn,
            "Subject": subject,
            "Message": message,
            "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "SignatureVersion": "1",
            "MessageAttributes": message_attributes or {},
        }
        record = {"EventVersion": "1.0", "EventSubscriptionArn": self.arn, "EventSource": "aws:sns", "Sns": notification}
        service.notify(self.endpoint, {"Records": [record]}, "sns.amazonaws.com", self.topic_arn)

    return publish


def install(service: LambdaService) -> Callable[[], None]:
    """Put localcloud's Lambda behind moto's other services; the result takes it away again."""
    backend = MotoLambda(service)
    # Any: what takes moto's place has only what is called, not moto's types.
    utilities: Any = moto.awslambda.utils
    subscription: Any = Subscription
    get_backend, publish = utilities.get_backend, subscription.publish
    utilities.get_backend = lambda account_id, region: backend
    subscription.publish = _sns_publish(service, publish)

    def remove() -> None:
        utilities.get_backend = get_backend
        subscription.publish = publish

    return remove
