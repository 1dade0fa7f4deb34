"""What CloudFormation says of drift, and what is looked at beside it: together, and when something may not be read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers_aws import ACCOUNT, REGION, AwsError, fake_client
from infrastructure.drift import Difference, Drift, DriftStatus, ResourceDrift
from infrastructure.reality import Reality
from lambdas.deploy_inference_workflow.stacks import StackState
from localcloud.cloudformation.drift import differences
from localcloud.cloudformation.providers.s3 import lifecycle_rule, lifecycle_shown

TEMPLATE = """
Resources:
  Role: {Type: AWS::IAM::Role, Properties: {ManagedPolicyArns: [!Ref Shared]}}
  Shared: {Type: AWS::IAM::ManagedPolicy}
"""
SHARED, OTHER = (f"arn:aws:iam::{ACCOUNT}:policy/{name}" for name in ("shared", "other"))
IN_SYNC = Drift(DriftStatus.IN_SYNC, (), 2)
UNKNOWN = Drift(DriftStatus.UNKNOWN, (), 0, "DetectStackDrift was refused")


class Session:
    """A stack with a role, to which these policies are attached; None: nobody may see them."""

    def __init__(self, *attached: str | None) -> None:
        resources = [
            {"LogicalResourceId": name, "PhysicalResourceId": physical, "ResourceType": kind, "ResourceStatus": "CREATE_COMPLETE"}
            for name, physical, kind in (("Role", "role", "AWS::IAM::Role"), ("Shared", SHARED, "AWS::IAM::ManagedPolicy"))
        ]
        self._attached = attached
        self._clients = {
            "cloudformation": fake_client(
                "cloudformation",
                GetTemplate=lambda params: {"TemplateBody": TEMPLATE},
                ListStackResources=lambda params: {"StackResourceSummaries": resources},
            ),
            "iam": fake_client("iam", ListAttachedRolePolicies=self._policies, ListRolePolicies=lambda params: {"PolicyNames": []}),
        }

    def client(self, service: str) -> Any:
        """Return a client, as a session does."""
        return self._clients[service]

    def _policies(self, params: dict[str, Any]) -> dict[str, Any]:
        if None in self._attached:
            raise AwsError("AccessDenied", "User is not authorized to perform: iam:ListAttachedRolePolicies", 403)
        return {"AttachedPolicies": [{"PolicyArn": arn, "PolicyName": "p"} for arn in self._attached], "IsTruncated": False}


def added(drift: Drift, *attached: str | None) -> Drift:
    state = StackState(f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/s/1", "UPDATE_COMPLETE", {}, {})
    return Reality(Session(*attached), state).added_to(drift)


def test_nothing_found_leaves_what_cloudformation_said() -> None:
    assert added(IN_SYNC, SHARED) == IN_SYNC
    assert added(UNKNOWN, SHARED) == UNKNOWN


@pytest.mark.parametrize("drift", [IN_SYNC, UNKNOWN])
def test_what_is_found_is_drift_whatever_cloudformation_said(drift: Drift) -> None:
    found = added(drift, SHARED, OTHER)
    assert found.status is DriftStatus.DRIFTED
    assert found.resources == (
        ResourceDrift("Role", "AWS::IAM::Role", "role", "MODIFIED", (Difference("/ManagedPolicyArns", "ADD", None, OTHER),)),
    )
    assert found.reason == drift.reason


def test_what_may_not_be_read_is_not_known() -> None:
    found = added(IN_SYNC, None)
    assert found.status is DriftStatus.UNKNOWN
    assert found.reason == (
        "Role: ListAttachedRolePolicies was refused: AccessDenied: User is not authorized to perform: iam:ListAttachedRolePolicies"
    )


def test_both_are_told_once() -> None:
    of_cloudformation = Difference("/MaxSessionDuration", "NOT_EQUAL", "3600", "7200")
    # AWS may count what the stack's own policy attaches from its side.
    own = Difference("/ManagedPolicyArns/1", "ADD", None, SHARED)
    drift = Drift(DriftStatus.DRIFTED, (ResourceDrift("Role", "AWS::IAM::Role", "role", "MODIFIED", (of_cloudformation, own)),), 2)
    (role,) = added(drift, SHARED, OTHER).resources
    assert [found.path for found in role.differences] == ["/MaxSessionDuration", "/ManagedPolicyArns"]
    only_own = Drift(DriftStatus.DRIFTED, (ResourceDrift("Role", "AWS::IAM::Role", "role", "MODIFIED", (own,)),), 2)
    assert added(only_own, SHARED).status is DriftStatus.IN_SYNC


JSON = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(expected=JSON, actual=JSON)
def test_equal_values_differ_in_nothing_and_others_in_something(expected: Any, actual: Any) -> None:
    assert not list(differences(expected, copy.deepcopy(expected)))
    found = list(differences(expected, actual))
    assert bool(found) == (expected != actual)
    for path, before, after, kind in found:
        assert {"ADD": before is None, "REMOVE": after is None, "NOT_EQUAL": before != after}[kind]
        assert path == "" or path.startswith("/")


@pytest.mark.parametrize(
    "rule",
    [
        {"Id": "a", "Status": "Enabled", "ExpirationInDays": 3, "Prefix": "tmp/"},
        {"Status": "Disabled", "ExpirationDate": "2030-01-01T00:00:00+00:00"},
        {
            "Status": "Enabled",
            "TagFilters": [{"Key": "k", "Value": "v"}],
            "Transitions": [{"StorageClass": "GLACIER", "TransitionInDays": 30}],
        },
        {
            "Status": "Enabled",
            "Prefix": "x",
            "ObjectSizeGreaterThan": "100",
            "TagFilters": [{"Key": "k", "Value": "v"}],
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 9},
            "NoncurrentVersionTransitions": [{"StorageClass": "STANDARD_IA", "TransitionInDays": 40}],
        },
    ],
)
def test_a_lifecycle_rule_is_read_in_the_words_of_a_template(rule: dict[str, Any]) -> None:
    assert lifecycle_shown(lifecycle_rule(rule)) == rule
