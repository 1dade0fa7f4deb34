"""A region with roles, and short ways to make functions, queues and rules in it."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Callable
from typing import Any

from conftest import poll

from helpers_roles import mighty_role

SERVICES = ["lambda.amazonaws.com", "states.amazonaws.com", "events.amazonaws.com"]
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": SERVICES}, "Action": "sts:AssumeRole"}]}


def zip_code(app: str = "", **modules: str) -> bytes:
    """Return a zip with ``app.py`` and other modules; in their names ``__`` stands for ``/``, and a name that ends with it for a package."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"app": app, **modules}.items():
            path = name.removesuffix("__").replace("__", "/") + ("/__init__" if name.endswith("__") else "")
            archive.writestr(path + ".py", content)
    return buffer.getvalue()


class Lab:
    """What a test of functions, rules and workflows needs of a region.

    Attributes:
        cloud: The region inside the process.
        role: ARN of a role that Lambda, Step Functions and EventBridge can assume.
    """

    def __init__(self, region: Any) -> None:
        self.region = region
        self.cloud = region.cloud
        self._names = itertools.count()
        self.role: str = mighty_role(self.client("iam"), "role", TRUST)

    def client(self, service: str) -> Any:
        """Return a boto3 client."""
        return self.region.client(service)

    def name(self, prefix: str = "thing") -> str:
        """Return a name that nothing has yet."""
        return f"{prefix}-{next(self._names)}"

    def poll(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Return the first truthy value of *condition*; fail when *seconds* pass without one."""
        return poll(condition, seconds)

    def function(self, code: str, **options: Any) -> str:
        """Create a function whose module ``app`` is *code* and return its name."""
        settings = {
            "FunctionName": self.name("f"), "Runtime": "python3.11", "Role": self.role, "Handler": "app.handler", "Code": {"ZipFile": zip_code(app=code)},
        }  # fmt: skip
        return str(self.client("lambda").create_function(**{**settings, **options})["FunctionName"])

    def invoke(self, name: str, payload: Any = None, **options: Any) -> tuple[dict[str, Any], Any]:
        """Invoke a function; return (response, payload as JSON)."""
        given = {} if payload is None else {"Payload": json.dumps(payload).encode()}
        response = self.client("lambda").invoke(FunctionName=name, **given, **options)
        text = response["Payload"].read()
        return response, json.loads(text) if text else None

    def allow(self, name: str, principal: str, source_arn: str = "", **options: Any) -> None:
        """Let a service invoke a function."""
        source = {"SourceArn": source_arn} if source_arn else {}
        self.client("lambda").add_permission(
            FunctionName=name, StatementId=self.name("s"), Action="lambda:InvokeFunction", Principal=principal, **source, **options
        )

    def queue(self, allowed: bool = True) -> tuple[str, str]:
        """Create a queue, to which EventBridge may send, and return (URL, ARN)."""
        sqs = self.client("sqs")
        url = sqs.create_queue(QueueName=self.name("q"))["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        if allowed:
            statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": [statement]})})
        return url, arn

    def receive(self, url: str) -> dict[str, Any]:
        """Wait for a queue's next message, take it off and return it."""
        sqs = self.client("sqs")

        def take() -> Any:
            return sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"], VisibilityTimeout=60).get("Messages")

        message: dict[str, Any] = self.poll(take)[0]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return message

    def is_empty(self, url: str) -> bool:
        """Tell whether a queue has no message."""
        attributes = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
        return bool(attributes["ApproximateNumberOfMessages"] == "0")

    def log_lines(self, group: str) -> list[str]:
        """Return the messages of a log group."""
        logs = self.client("logs")
        if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
            return []
        return [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]]


def attributes_of(message: dict[str, Any]) -> dict[str, str]:
    """Return a message's attributes as texts."""
    return {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}
