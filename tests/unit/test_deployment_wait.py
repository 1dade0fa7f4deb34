"""Waiting for a deployment: a stack that fails a second time is in the status that it was in before."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from helpers_aws import ACCOUNT, REGION, fake_client
from pipelines.settings import load_settings
from scones.deployment import wait_for_production
from scones.errors import SconesError

STACK_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/scones-inference/1"
VERSION = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/scones-vehicle-classifier/2"


def target(status: str, identifiers: Any) -> Any:
    def event(identifier: str) -> dict[str, Any]:
        return {
            "StackId": STACK_ID,
            "StackName": "scones-inference",
            "EventId": identifier,
            "LogicalResourceId": "Endpoint",
            "ResourceStatus": "DELETE_FAILED",
            "ResourceStatusReason": "told to fail",
            "Timestamp": "2021-02-24T16:00:00Z",
        }

    stack = {"StackId": STACK_ID, "StackName": "scones-inference", "StackStatus": status, "CreationTime": "2021-02-24T16:00:00Z"}
    client = fake_client(
        "cloudformation",
        DescribeStacks=lambda params: {"Stacks": [stack]},
        DescribeStackEvents=lambda params: {"StackEvents": [event(next(identifiers))]},
    )
    return SimpleNamespace(client=lambda service: client)


@pytest.mark.parametrize("status", ["DELETE_FAILED", "UPDATE_ROLLBACK_COMPLETE"])
def test_a_second_failure_is_told_although_the_status_is_the_same(status: str) -> None:
    with pytest.raises(SconesError, match=f"failed \\({status}\\): Endpoint: told to fail"):
        wait_for_production(target(status, itertools.chain(["1", "1"], itertools.repeat("2"))), load_settings().settings, VERSION)


def test_an_earlier_failure_is_not_taken_for_this_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scones.deployment.WAIT_SECONDS", 0.2)
    with pytest.raises(SconesError, match="is not in production after"):
        wait_for_production(target("UPDATE_ROLLBACK_COMPLETE", itertools.repeat("1")), load_settings().settings, VERSION)
