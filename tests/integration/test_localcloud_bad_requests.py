"""Requests that no SDK would send: each gets AWS's kind of refusal, none becomes a fault inside localcloud."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError


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


@pytest.mark.parametrize(
    ("operation", "body", "words"),
    [
        ("DescribeEndpoint", "{}", 'Missing required parameter in input: "EndpointName"'),
        (
            "CreateModel",
            '{"ModelName": "m", "PrimaryContainer": {"MultiModelConfig": {"ModelCacheSetting": "Sometimes"}}}',
            "enum value set",
        ),
        ("DescribeEndpoint", '{"EndpointName": "no_underscores"}', "regular expression pattern"),
    ],
)
def test_every_request_is_held_against_awss_model_of_it(region: Any, operation: str, body: str, words: str) -> None:
    status, answer = post(region, "sagemaker", f"SageMaker.{operation}", body)
    assert status == 400
    assert answer["__type"].endswith("ValidationException"), answer
    assert words in answer["Message"]


@pytest.mark.parametrize(
    ("headers", "sent"), [("Content-Length: 1000", b"x" * 10), ("Transfer-Encoding: chunked", b"a\r\n" + b"x" * 10 + b"\r\n5\r\nx")]
)
def test_an_upload_that_breaks_off_leaves_what_was_there(region: Any, headers: str, sent: bytes) -> None:
    s3 = region.client("s3")
    s3.create_bucket(Bucket="uploads")
    s3.put_object(Bucket="uploads", Key="photo", Body=b"whole")
    with socket.create_connection(("127.0.0.1", region.cloud.port)) as connection:
        connection.sendall(f"PUT /uploads/photo HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode() + sent)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20)
        answer = connection.recv(4096)
    assert not answer.startswith(b"HTTP/1.1 2"), answer
    assert s3.get_object(Bucket="uploads", Key="photo")["Body"].read() == b"whole"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:5000"}, 200),
        ({"Origin": "https://example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1.example.com"}, 403),
        ({"Host": "example.com:8080"}, 403),
        ({"Origin": "http://192.0.2.1"}, 403),
        ({"Host": "photos.localhost:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
    ],
)
def test_a_web_page_of_somewhere_else_gets_nothing(region: Any, headers: dict[str, str], expected: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", region.cloud.port, timeout=20)
    try:
        connection.request("GET", "/_localcloud/health", headers=headers)
        response = connection.getresponse()
        response.read()
        assert response.status == expected
    finally:
        connection.close()


def test_a_browser_is_not_told_that_it_may_send(region: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", region.cloud.port, timeout=20)
    asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    try:
        connection.request("OPTIONS", "/", headers=asked)
        response = connection.getresponse()
        assert (response.status, response.getheader("Access-Control-Allow-Origin")) == (403, None)
    finally:
        connection.close()


ELSEWHERE = {"region_name": "eu-west-1"}


@pytest.mark.parametrize(
    ("service", "operation", "request_"),
    [
        ("sagemaker", "list_endpoints", {}),
        ("stepfunctions", "list_state_machines", {}),
        ("cloudformation", "describe_stacks", {}),
        ("lambda", "list_functions", {}),
        ("sqs", "list_queues", {}),
        ("logs", "describe_log_groups", {}),
    ],
)
def test_a_request_for_another_region_is_refused_with_the_name_of_this_one(
    region: Any, service: str, operation: str, request_: dict[str, Any]
) -> None:
    client = boto3.client(service, endpoint_url=region.endpoint_url, **ELSEWHERE)
    with pytest.raises(
        ClientError, match=r"eu-west-1 is not supported by localcloud, which is us-east-1 here\. Set AWS_REGION=us-east-1"
    ) as error:
        getattr(client, operation)(**request_)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_what_is_the_same_in_every_region_answers_wherever_it_is_asked(region: Any) -> None:
    for service, operation in (("iam", "list_roles"), ("sts", "get_caller_identity")):
        getattr(boto3.client(service, endpoint_url=region.endpoint_url, **ELSEWHERE), operation)()


def test_s3_names_the_right_region_and_its_clients_find_the_bucket_there(region: Any) -> None:
    region.client("s3").create_bucket(Bucket="far-away")
    region.client("s3").put_object(Bucket="far-away", Key="key", Body=b"here")
    answers: list[int] = []

    def elsewhere() -> Any:
        client = boto3.client("s3", endpoint_url=region.endpoint_url, config=Config(signature_version="s3v4"), **ELSEWHERE)
        client.meta.events.register("before-parse.s3.*", lambda response_dict, **_: answers.append(response_dict["status_code"]))
        return client

    # A client keeps what it has learnt; one learns it from the body, the other has only the head of an answer to HEAD.
    client = elsewhere()
    assert client.get_object(Bucket="far-away", Key="key")["Body"].read() == b"here"
    assert elsewhere().head_object(Bucket="far-away", Key="key")["ContentLength"] == 4
    assert answers == [400, 200, 400, 200]
    url = client.generate_presigned_url("get_object", {"Bucket": "other", "Key": "key"})
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(url)
    assert "the region 'eu-west-1' is wrong; expecting 'us-east-1'" in refusal.value.read().decode()
    url = region.client("s3").generate_presigned_url("get_object", {"Bucket": "far-away", "Key": "key"})
    with urllib.request.urlopen(url) as response:
        assert response.read() == b"here"


def test_a_command_in_another_region_says_which_it_is_and_what_to_do(region: Any) -> None:
    command = [sys.executable, "-m", "scones", "models", "list", "--aws"]
    env = os.environ | {"AWS_ENDPOINT_URL": region.endpoint_url, "AWS_REGION": "eu-west-1"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "The region eu-west-1 is not supported by localcloud, which is us-east-1 here. Set AWS_REGION=us-east-1" in line
