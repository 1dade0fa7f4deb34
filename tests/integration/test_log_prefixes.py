"""FilterLogEvents by the prefix of the streams' names."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import Region

GROUP = "/aws/sagemaker/ProcessingJobs"


@pytest.fixture
def logs(region: Region) -> Any:
    logs = region.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    for job in ("first", "second"):
        stream = f"{job}/algo-1-1"
        logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        lines = [{"timestamp": int(time.time() * 1000), "message": f"{job} {number}"} for number in range(3)]
        logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=lines)
    yield logs
    logs.delete_log_group(logGroupName=GROUP)


def messages(logs: Any, **request: Any) -> list[str]:
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=GROUP, PaginationConfig={"PageSize": 2}, **request)
    return [event["message"] for page in pages for event in page["events"]]


def test_only_the_events_of_the_streams_that_are_asked_for_come_page_by_page(logs: Any) -> None:
    assert messages(logs, logStreamNamePrefix="second/") == ["second 0", "second 1", "second 2"]
    assert messages(logs, logStreamNamePrefix="third/") == []
    assert len(messages(logs)) == 6


def test_names_and_a_prefix_together_are_refused(logs: Any) -> None:
    with pytest.raises(ClientError, match="InvalidParameterException"):
        logs.filter_log_events(logGroupName=GROUP, logStreamNames=["first/algo-1-1"], logStreamNamePrefix="first/")


def test_a_group_that_does_not_exist_is_said(logs: Any) -> None:
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.filter_log_events(logGroupName="none", logStreamNamePrefix="first/")
