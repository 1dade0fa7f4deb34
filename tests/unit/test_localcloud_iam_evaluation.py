"""IAM's decisions: wildcards, conditions, and which policy wins."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.errors import ServiceError
from localcloud.iam.conditions import holds
from localcloud.iam.document import Access, Principal
from localcloud.iam.evaluation import Policies, decide, resource_allows
from localcloud.iam.matching import matches, matches_action, matches_arn, substitute

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/job"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/job/SageMaker"
WHO = Principal("AWS", (ROLE, SESSION), (f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT))
PHOTO = Access("s3:GetObject", "arn:aws:s3:::photos/a.png", {"aws:principalaccount": (ACCOUNT,)})
ALLOW: dict[str, Any] = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/*"}
DENY: dict[str, Any] = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("*", "", True),
        ("a*c", "abbc", True),
        ("a?c", "abc", True),
        ("a?c", "abbc", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("A", "a", False),
    ],
)
def test_wildcards(pattern: str, value: str, expected: bool) -> None:
    assert matches(pattern, value) is expected


@given(st.text())
def test_a_value_matches_itself_and_the_star_when_nothing_in_it_is_a_wildcard(value: str) -> None:
    assert matches("*", value)
    assert matches(value.replace("*", "").replace("?", ""), value.replace("*", "").replace("?", ""))


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_matching_is_what_a_naive_matcher_says(pattern: str, value: str) -> None:
    def naive(pattern: str, value: str) -> bool:
        if not pattern:
            return not value
        if pattern[0] == "*":
            return any(naive(pattern[1:], value[n:]) for n in range(len(value) + 1))
        return bool(value) and pattern[0] in ("?", value[0]) and naive(pattern[1:], value[1:])

    assert matches(pattern, value) is naive(pattern, value)


def test_actions_match_whatever_their_case() -> None:
    assert matches_action("S3:getobject*", "s3:GetObjectVersion")


@pytest.mark.parametrize(
    ("pattern", "arn", "expected"),
    [
        ("*", "arn:aws:sqs:us-east-1:1:q", True),
        ("arn:aws:sqs:*:1:q", "arn:aws:sqs:us-east-1:1:q", True),
        # A wildcard in the region does not reach into the account.
        ("arn:aws:sqs:*:q", "arn:aws:sqs:us-east-1:1:q", False),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b/a:c/d", True),
        ("arn:aws:lambda:us-east-1:1:function:f", "arn:aws:lambda:us-east-1:1:function:f:live", False),
        ("arn:aws:lambda:us-east-1:1:function:f:*", "arn:aws:lambda:us-east-1:1:function:f:live", True),
    ],
)
def test_arns_are_compared_part_by_part(pattern: str, arn: str, expected: bool) -> None:
    assert matches_arn(pattern, arn) is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("x/${aws:PrincipalAccount}/y", f"x/{ACCOUNT}/y"),
        ("x/${aws:username}", None),
        ("x/${aws:username, 'nobody'}", "x/nobody"),
    ],
)
def test_policy_variables(pattern: str, expected: str | None) -> None:
    assert substitute(pattern, PHOTO.context) == expected


def test_a_variables_value_and_an_escaped_star_are_no_wildcards() -> None:
    pattern = substitute("${*}/${aws:username}", {"aws:username": ("*",)})
    assert pattern is not None
    assert matches(pattern, "*/*")
    assert not matches(pattern, "a/b")


@pytest.mark.parametrize(
    ("condition", "context", "expected"),
    [
        ({"StringEquals": {"k": "a"}}, {"k": "a"}, True),
        ({"StringEquals": {"K": ["b", "a"]}}, {"k": "a"}, True),
        ({"StringEquals": {"k": "a"}}, {}, False),
        ({"StringEqualsIfExists": {"k": "a"}}, {}, True),
        ({"StringNotEquals": {"k": "a"}}, {}, True),
        ({"StringNotEquals": {"k": ["a", "b"]}}, {"k": "b"}, False),
        ({"StringLike": {"k": "a*"}}, {"k": "abc"}, True),
        ({"StringEqualsIgnoreCase": {"k": "A"}}, {"k": "a"}, True),
        ({"NumericLessThan": {"k": "10"}}, {"k": "9"}, True),
        ({"NumericLessThan": {"k": "10"}}, {"k": "many"}, False),
        ({"NumericGreaterThanEquals": {"k": 10}}, {"k": "10"}, True),
        ({"DateGreaterThan": {"k": "2020-01-01T00:00:00Z"}}, {"k": "2026-01-01T00:00:00Z"}, True),
        ({"DateLessThan": {"k": "2020-01-01"}}, {"k": "2026-01-01T00:00:00Z"}, False),
        ({"Bool": {"k": True}}, {"k": "true"}, True),
        ({"Bool": {"k": "false"}}, {"k": "true"}, False),
        ({"Null": {"k": "true"}}, {}, True),
        ({"Null": {"k": False}}, {"k": "a"}, True),
        ({"IpAddress": {"k": "10.0.0.0/8"}}, {"k": "10.1.2.3"}, True),
        ({"NotIpAddress": {"k": "10.0.0.0/8"}}, {"k": "10.1.2.3"}, False),
        ({"ArnLike": {"k": "arn:aws:events:*:1:rule/x-*"}}, {"k": "arn:aws:events:us-east-1:1:rule/x-y"}, True),
        ({"ArnNotLike": {"k": "arn:aws:events:*:1:rule/x-*"}}, {"k": "arn:aws:events:us-east-1:1:rule/x-y"}, False),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ("a", "b")}, True),
        ({"ForAllValues:StringEquals": {"k": ["a"]}}, {"k": ("a", "b")}, False),
        ({"ForAllValues:StringEquals": {"k": ["a"]}}, {}, True),
        ({"ForAnyValue:StringEquals": {"k": ["b"]}}, {"k": ("a", "b")}, True),
        ({"ForAnyValue:StringEquals": {"k": ["b"]}}, {}, False),
        ({"ForAnyValue:StringNotEquals": {"k": ["b"]}}, {}, False),
        ({"ForAnyValue:StringEqualsIfExists": {"k": ["b"]}}, {}, True),
        ({"DateLessThan": {"k": "9" * 30}}, {"k": "2026-01-01T00:00:00Z"}, False),
        ({"StringEquals": {"k": "a", "l": "b"}}, {"k": "a", "l": "c"}, False),
        ({"StringEquals": {"k": "a"}, "Bool": {"l": "true"}}, {"k": "a"}, False),
    ],
)
def test_conditions(condition: dict[str, dict[str, object]], context: dict[str, Any], expected: bool) -> None:
    values = {key: value if isinstance(value, tuple) else (value,) for key, value in context.items()}
    assert holds(condition, values) is expected


def test_an_operator_that_iam_does_not_have_is_refused() -> None:
    with pytest.raises(ServiceError, match="StringIsNice is not supported by localcloud"):
        holds({"StringIsNice": {"k": "a"}}, {"k": ("a",)})


@pytest.mark.parametrize(
    ("policies", "allowed"),
    [
        (Policies((policy(ALLOW),)), True),
        (Policies(()), False),
        (Policies((policy(ALLOW), policy(DENY))), False),
        (Policies((policy({**ALLOW, "Resource": "arn:aws:s3:::others/*"}),)), False),
        (Policies((policy({**ALLOW, "Action": "s3:PutObject"}),)), False),
        (Policies((policy({"Effect": "Allow", "NotAction": "s3:PutObject", "Resource": "*"}),)), True),
        (Policies((policy({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::photos/*"}),)), False),
        (Policies((policy({**ALLOW, "Resource": "arn:aws:s3:::photos/${aws:username}"}),)), False),
        # The boundary allows nothing by itself, and takes away what it does not allow.
        (Policies((policy(ALLOW),), boundary=policy(ALLOW)), True),
        (Policies((policy(ALLOW),), boundary=policy({**ALLOW, "Action": "s3:PutObject"})), False),
        (Policies((), boundary=policy(ALLOW)), False),
        (Policies((policy(ALLOW),), boundary=policy(ALLOW, DENY)), False),
        # The resource's policy suffices within the account when it names the role; the account's name only hands the decision on.
        (Policies((), resource=policy({**ALLOW, "Principal": {"AWS": ROLE}})), True),
        (Policies((), resource=policy({**ALLOW, "Principal": {"AWS": SESSION}})), True),
        (Policies((), resource=policy({**ALLOW, "Principal": "*"})), True),
        (Policies((), resource=policy({**ALLOW, "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}})), False),
        (Policies((), resource=policy({**ALLOW, "Principal": {"AWS": "arn:aws:iam::123456789012:role/other"}})), False),
        (Policies((), resource=policy({**ALLOW, "Principal": {"Service": "s3.amazonaws.com"}})), False),
        (Policies((policy(ALLOW),), resource=policy({**DENY, "Principal": "*"})), False),
        (Policies((policy(ALLOW),), resource=policy({**DENY, "Principal": {"AWS": ACCOUNT}})), False),
        (Policies((policy(ALLOW),), resource=policy({**DENY, "NotPrincipal": {"AWS": ROLE}})), True),
        # Keys: the key's policy must hand the decision on.
        (Policies((policy(ALLOW),), resource_decides=True), False),
        (Policies((policy(ALLOW),), resource=policy({**ALLOW, "Principal": {"AWS": ACCOUNT}}), resource_decides=True), True),
    ],
)
def test_which_policy_wins(policies: Policies, allowed: bool) -> None:
    assert decide(WHO, PHOTO, policies).allowed is allowed


@pytest.mark.parametrize(
    ("policies", "reason"),
    [
        (Policies(()), "because no identity-based policy allows the s3:GetObject action"),
        (Policies((policy(ALLOW, DENY),)), "with an explicit deny in an identity-based policy"),
        (Policies((policy(ALLOW),), boundary=policy()), "because no permissions boundary allows the s3:GetObject action"),
        (Policies((policy(ALLOW),), resource=policy({**DENY, "Principal": "*"})), "with an explicit deny in a resource-based policy"),
    ],
)
def test_why_not_is_said_in_awss_words(policies: Policies, reason: str) -> None:
    assert decide(WHO, PHOTO, policies).reason == reason


def test_a_service_needs_a_statement_that_names_it() -> None:
    rule = Principal("Service", ("events.amazonaws.com",))
    send = Access("sqs:SendMessage", "arn:aws:sqs:us-east-1:1:q", {"aws:sourceaccount": (ACCOUNT,)})
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": send.resource,
    }
    assert resource_allows(rule, send, policy(statement))
    assert resource_allows(rule, send, policy({**statement, "Condition": {"StringEquals": {"AWS:SourceAccount": ACCOUNT}}}))
    assert not resource_allows(rule, send, policy({**statement, "Condition": {"StringEquals": {"AWS:SourceAccount": "999999999999"}}}))
    assert not resource_allows(rule, send, policy({**statement, "Principal": {"Service": "sns.amazonaws.com"}}))
    assert not resource_allows(rule, send, policy(statement, {**statement, "Effect": "Deny"}))
    assert not resource_allows(rule, send, None)


EFFECTS = st.sampled_from([ALLOW, DENY, {**ALLOW, "Action": "s3:PutObject"}, {**ALLOW, "Resource": "arn:aws:s3:::other/*"}])


@given(st.lists(EFFECTS, max_size=5), st.randoms())
def test_the_order_of_statements_and_how_they_are_spread_over_policies_do_not_matter(statements: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(statements)
    random.shuffle(shuffled)
    whole = decide(WHO, PHOTO, Policies((policy(*statements),)))
    assert decide(WHO, PHOTO, Policies(tuple(policy(statement) for statement in shuffled))) == whole
    # A Deny never becomes an Allow by adding anything.
    assert not decide(WHO, PHOTO, Policies((policy(*statements, DENY),))).allowed


def test_a_variable_is_text_in_a_policy_of_the_older_version() -> None:
    statement = {**ALLOW, "Principal": "*", "Condition": {"StringEquals": {"aws:PrincipalAccount": "${aws:PrincipalAccount}"}}}
    assert decide(WHO, PHOTO, Policies((), resource=policy(statement))).allowed
    for version in ({}, {"Version": "2008-10-17"}):
        assert not decide(WHO, PHOTO, Policies((), resource=json.dumps({**version, "Statement": [statement]}))).allowed
        bucket = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::${aws:PrincipalAccount}"}
        own = Access("s3:ListBucket", f"arn:aws:s3:::{ACCOUNT}", PHOTO.context)
        assert decide(WHO, own, Policies((), resource=policy(bucket))).allowed
        assert not decide(WHO, own, Policies((), resource=json.dumps({**version, "Statement": bucket}))).allowed


@pytest.mark.parametrize("name", [f"arn:aws:iam::{ACCOUNT}:role/*", "arn:aws:iam::*:root", ROLE.replace("job", "jo?")])
def test_a_star_within_a_principals_name_is_no_wildcard(name: str) -> None:
    assert not decide(WHO, PHOTO, Policies((), resource=policy({**ALLOW, "Principal": {"AWS": name}}))).allowed
