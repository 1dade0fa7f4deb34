"""Requests that no SDK would send: each gets AWS's kind of refusal, none becomes a fault inside localcloud."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest


def post(region: Any, service: str, target: str, body: str) -> tuple[int, dict[str, Any]]:
    """Send a JSON request past boto3, which would refuse it itself."""
    connection = http.client.HTTPConnection("127.0.0.1", region.cloud.port, timeout=20)
    credential = f"ASIATEST/20260101/us-east-1/{service}/aws4_request"
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=x",
        "X-Amz-Target": target,
        "Content-Type": "application/x-amz-json-1.1",
    }
    try:
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("body", ["[]", '"text"', "5", "{", '{"Tags": "text"}', '{"Tags": 5}', '{"Tags": {"a": [null]}}', "[" * 3000])
def test_a_body_of_the_wrong_types_is_refused_as_aws_does(region: Any, body: str) -> None:
    status, answer = post(region, "sagemaker", "SageMaker.CreatePipeline", body)
    assert status == 400
    assert answer["__type"].endswith("SerializationException"), answer


@pytest.mark.parametrize("member", ['"CreationTimeAfter": "yesterday"', '"CreationTimeAfter": 1e300', '"MaxResults": "many"'])
def test_a_member_that_cannot_be_read_is_refused_as_aws_does(region: Any, member: str) -> None:
    status, answer = post(region, "sagemaker", "SageMaker.ListEndpoints", f"{{{member}}}")
    assert status == 400
    assert answer["__type"].endswith("SerializationException"), answer
