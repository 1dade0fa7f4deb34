"""The module `cfnresponse` that CloudFormation adds to functions with inline code: answers for a custom resource.

Its text becomes part of the function's zip, so it uses nothing but the standard library.
"""

import json
import logging
import urllib.request
from typing import Any

SUCCESS = "SUCCESS"
FAILED = "FAILED"


def send(
    event: dict[str, Any],
    context: Any,
    responseStatus: str,
    responseData: dict[str, Any],
    physicalResourceId: str | None = None,
    noEcho: bool = False,
    reason: str | None = None,
) -> None:
    """Put the answer at the request's ResponseURL. The names of the arguments are those of AWS's module."""
    answer = {
        "Status": responseStatus,
        "Reason": reason or "See the details in CloudWatch Log Stream: " + context.log_stream_name,
        "PhysicalResourceId": physicalResourceId or context.log_stream_name,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "NoEcho": noEcho,
        "Data": responseData,
    }
    request = urllib.request.Request(event["ResponseURL"], json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT")
    with urllib.request.urlopen(request) as response:
        logging.getLogger().info("CloudFormation took the answer: HTTP status %s", response.status)
