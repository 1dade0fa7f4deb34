"""Whether a decision would reach the deploying function, asked by somebody who may not look at everything that leads to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from pipelines.settings import load_settings
from scones.errors import SconesError
from scones.production import Production
from scones.target import Target

FUNCTION, RULE = "scones-deploy-inference-workflow", "scones-model-decision"
OUTPUTS = [{"OutputKey": "DeployFunctionName", "OutputValue": FUNCTION}, {"OutputKey": "ApprovalRuleName", "OutputValue": RULE}]


class Account:
    """An account in which the platform's stack is there; `events` and `lambda` answer as they are told."""

    def __init__(self) -> None:
        self._clients = {
            name: boto3.client(name, region_name="us-east-1") for name in ("cloudformation", "events", "lambda", "s3", "sagemaker")
        }
        self.answers = {name: Stubber(client) for name, client in self._clients.items()}
        stack = {"StackName": "scones-platform", "CreationTime": datetime.now(UTC), "StackStatus": "CREATE_COMPLETE", "Outputs": OUTPUTS}
        # Once: what the stack says is asked for one time.
        self.answers["cloudformation"].add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": "scones-platform"})
        for stubber in self.answers.values():
            stubber.activate()

    def client(self, name: str) -> Any:
        return self._clients[name]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return Account()


def check(account: Account) -> None:
    Production(cast("Target", account), load_settings().settings).check_decisions_arrive()


def test_who_may_look_at_nothing_is_let_through(account: Account) -> None:
    account.answers["events"].add_client_error("describe_rule", "AccessDeniedException")
    account.answers["lambda"].add_client_error("get_policy", "AccessDenied")
    check(account)
    for stubber in account.answers.values():
        stubber.assert_no_pending_responses()


def test_who_may_not_look_at_the_rule_is_told_of_the_permission(account: Account) -> None:
    account.answers["events"].add_client_error("describe_rule", "AccessDeniedException")
    account.answers["lambda"].add_client_error("get_policy", "ResourceNotFoundException")
    with pytest.raises(SconesError, match=f"the function {FUNCTION} is gone, or the rule may not invoke it"):
        check(account)


def test_another_error_is_none_of_these(account: Account) -> None:
    account.answers["events"].add_client_error("describe_rule", "ThrottlingException")
    with pytest.raises(ClientError, match="ThrottlingException"):
        check(account)
