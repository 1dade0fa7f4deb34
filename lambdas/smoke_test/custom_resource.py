"""What CloudFormation sends to a custom resource, and the answer that it waits for.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
"""

import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lambdas.smoke_test.errors import InvalidRequestError

# The whole answer may have 4,096 bytes, and a character up to four.
MAX_REASON_CHARACTERS = 800
ATTEMPTS = 5
_TIMEOUT_SECONDS = 5.0


class RequestType(StrEnum):
    """What CloudFormation is doing with the resource."""

    CREATE = "Create"
    UPDATE = "Update"
    DELETE = "Delete"


@dataclass(frozen=True)
class Request:
    """A request of CloudFormation: `properties` are the resource's in the template, all of them texts."""

    type: RequestType
    stack_id: str
    logical_id: str
    physical_id: str
    properties: Mapping[str, Any]
    request_id: str
    response_url: str

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> "Request":
        """Reads the event. The resource is nothing by itself, so it keeps one physical id: another would have it replaced.

        Raises:
            InvalidRequestError: it is none of CloudFormation's.
        """
        try:
            return cls(
                RequestType(event["RequestType"]),
                event["StackId"],
                event["LogicalResourceId"],
                event.get("PhysicalResourceId") or f"{event['LogicalResourceId']}-of-{event['StackId'].rpartition('/')[2]}",
                event.get("ResourceProperties") or {},
                event["RequestId"],
                event["ResponseURL"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidRequestError(
                f"The function is a custom resource of CloudFormation's; the event is no request for one: {error!r}"
            ) from error

    def answer(self, reason: str | None) -> None:
        """Tells CloudFormation that the request was carried out, or, with a reason, that it was not.

        Raises:
            OSError: S3 did not take the answer, also when tried again.
        """
        answer = {
            "Status": "SUCCESS" if reason is None else "FAILED",
            "Reason": shortened(reason) if reason else "",
            "PhysicalResourceId": self.physical_id,
            "StackId": self.stack_id,
            "RequestId": self.request_id,
            "LogicalResourceId": self.logical_id,
        }
        body = json.dumps(answer, ensure_ascii=False).encode()
        # The URL is signed for a request without a content type.
        request = urllib.request.Request(self.response_url, body, {"Content-Type": ""}, method="PUT")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                    return
            except OSError:
                if attempt == ATTEMPTS:
                    raise
                time.sleep(0.2 * 2**attempt)


def shortened(text: str) -> str:
    """Returns a text that fits into the answer, in one line, with its beginning and its end."""
    text = " ".join(text.split())
    if len(text) <= MAX_REASON_CHARACTERS:
        return text
    half = MAX_REASON_CHARACTERS // 2 - 2
    return f"{text[:half]} … {text[-half:]}"
