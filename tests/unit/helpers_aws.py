"""AWS clients whose answers a test gives: botocore still validates every request against its model and turns errors into exceptions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config

Answer = Mapping[str, Any]
Operation = Callable[[dict[str, Any]], Answer]
ACCOUNT = "123456789012"
REGION = "us-east-2"


class AwsError(Exception):
    """What a fake operation raises to answer with an error of AWS's shape; `extra` goes beside `Error`."""

    def __init__(self, code: str, message: str = "", status: int = 400, **extra: Any) -> None:
        super().__init__(code)
        self.status = status
        self.answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}, **extra}


@dataclass
class _HttpResponse:
    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def fake_client(service: Any, **operations: Operation) -> Any:
    """Returns a boto3 client that answers the operations (`GetObject=...`), and refuses all others. Nothing is retried or sent."""
    client: Any = boto3.client(service, region_name=REGION, config=Config(retries={"total_max_attempts": 1}))
    # Between the two hooks of one call nothing else happens in its thread.
    asked = threading.local()

    def remember(params: dict[str, Any], **_: Any) -> None:
        asked.params = params

    def answer(model: Any, **_: Any) -> tuple[_HttpResponse, Answer]:
        try:
            parsed = operations[model.name](asked.params)
        except AwsError as error:
            return _HttpResponse(error.status), error.answer
        return _HttpResponse(), {"ResponseMetadata": {"HTTPStatusCode": 200}, **parsed}

    client.meta.events.register("provide-client-params", remember)
    client.meta.events.register("before-call", answer)
    return client


@dataclass
class LambdaContext:
    """What the Lambda runtime hands to a handler."""

    function_name: str = "function"
    memory_limit_in_mb: int = 256
    aws_request_id: str = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    remaining_ms: float = 900_000
    region: str = REGION
    account: str = ACCOUNT

    @property
    def invoked_function_arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:{self.region}:{self.account}:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> float:
        """Milliseconds before Lambda ends the function."""
        return self.remaining_ms
