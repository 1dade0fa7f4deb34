"""Event patterns: AWS's documented operators, Ruler's meaning, and a naive reading of exact matching as an oracle."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.eventbridge.patterns import EventPattern, InvalidPattern

MODEL_PACKAGE_EVENT = {
    "version": "0",
    "id": "844e2571-85d4-695f-b930-0153b71dcb42",
    "detail-type": "SageMaker Model Package State Change",
    "source": "aws.sagemaker",
    "account": "123456789012",
    "time": "2021-02-24T17:00:14Z",
    "region": "us-east-1",
    "resources": ["arn:aws:sagemaker:us-east-1:123456789012:model-package/versions/2"],
    "detail": {
        "ModelPackageGroupName": "vehicles",
        "ModelPackageVersion": 2,
        "ModelApprovalStatus": "Approved",
        "ModelPackageDescription": None,
    },
}


def matches(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    return EventPattern(json.dumps(pattern)).matches(event)


def test_the_rule_that_deploys_an_approved_model_matches_its_event_and_no_other() -> None:
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": ["vehicles"], "ModelApprovalStatus": ["Approved", "Rejected"]},
    }
    assert matches(pattern, MODEL_PACKAGE_EVENT)
    pending = MODEL_PACKAGE_EVENT | {"detail": {**MODEL_PACKAGE_EVENT["detail"], "ModelApprovalStatus": "PendingManualApproval"}}  # type: ignore[dict-item]
    assert not matches(pattern, pending)


# Operators and examples: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
@pytest.mark.parametrize(
    ("test", "value", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", ["b", "a"], True),
        ("a", [["b"], ["a"]], True),
        (None, None, True),
        (None, "", False),
        ("", "", True),
        (True, True, True),
        (True, "true", False),
        (1, True, False),
        (300, 300.0, True),
        (300, "300", False),
        ({"prefix": "us-"}, "us-east-1", True),
        ({"prefix": "us-"}, "eu-us-", False),
        ({"prefix": "us-"}, ["eu", "us-west-2"], True),
        ({"prefix": {"equals-ignore-case": "US-"}}, "us-east-1", True),
        ({"suffix": ".png"}, "a.png", True),
        ({"suffix": ".png"}, "a.PNG", False),
        ({"suffix": {"equals-ignore-case": ".png"}}, "a.PNG", True),
        ({"equals-ignore-case": "alice"}, "ALICE", True),
        ({"equals-ignore-case": "alice"}, "bob", False),
        ({"wildcard": "*.png"}, "x/y.png", True),
        ({"wildcard": "raw/*/*.png"}, "raw/a/b.png", True),
        ({"wildcard": "raw/*/*.png"}, "raw/b.png", False),
        ({"wildcard": "a\\*b"}, "a*b", True),
        ({"wildcard": "a\\*b"}, "axb", False),
        ({"anything-but": "a"}, "b", True),
        ({"anything-but": "a"}, "a", False),
        ({"anything-but": ["a", "b"]}, "b", False),
        ({"anything-but": [1, 2]}, 3, True),
        ({"anything-but": 1}, 1.0, False),
        ({"anything-but": {"prefix": "init"}}, "initial", False),
        ({"anything-but": {"prefix": "init"}}, "final", True),
        ({"anything-but": {"prefix": ["a", "b"]}}, "bc", False),
        ({"anything-but": {"suffix": ".txt"}}, "a.png", True),
        ({"anything-but": {"equals-ignore-case": ["x"]}}, "X", False),
        ({"anything-but": {"wildcard": "*/lib/*"}}, "a/lib/b", False),
        ({"numeric": ["=", 5]}, 5, True),
        ({"numeric": [">", 0, "<=", 5]}, 5, True),
        ({"numeric": [">", 0, "<=", 5]}, 0, False),
        ({"numeric": [">=", 1]}, "1", False),
        ({"numeric": ["<", 10]}, True, False),
        ({"cidr": "10.0.0.0/24"}, "10.0.0.255", True),
        ({"cidr": "10.0.0.0/24"}, "10.0.1.0", False),
        ({"cidr": "10.0.0.0/24"}, "here", False),
        ({"cidr": "2001:db8::/32"}, "2001:db8::1", True),
        ({"exists": True}, "x", True),
        ({"exists": True}, None, True),
        ({"exists": True}, {"y": 1}, False),
        ({"exists": True}, [], False),
        ({"exists": False}, "x", False),
        ({"exists": False}, [], True),
    ],
)  # fmt: skip
def test_an_operator(test: Any, value: Any, expected: bool) -> None:
    assert matches({"detail": {"x": [test]}}, {"detail": {"x": value}}) is expected


def test_a_missing_field_matches_only_exists_false() -> None:
    event = {"detail": {"y": 1}}
    assert matches({"detail": {"x": [{"exists": False}]}}, event)
    assert matches({"other": {"deep": [{"exists": False}]}}, event)
    assert not matches({"detail": {"x": [{"exists": True}]}}, event)
    assert not matches({"detail": {"x": [{"anything-but": "a"}]}}, event)
    assert matches({"detail": {"x": ["a", {"exists": False}]}}, event)


def test_fields_of_one_array_element_are_matched_together() -> None:
    event = {"detail": {"items": [{"name": "a", "size": 1}, {"name": "b", "size": 2}]}}
    assert matches({"detail": {"items": {"name": ["a"], "size": [1]}}}, event)
    assert not matches({"detail": {"items": {"name": ["a"], "size": [2]}}}, event)


def test_exists_false_looks_at_every_element_of_an_array() -> None:
    event = {"detail": {"items": [{"a": 1}, {"b": 2}]}}
    assert not matches({"detail": {"items": {"a": [{"exists": False}]}}}, event)
    assert matches({"detail": {"items": {"c": [{"exists": False}]}}}, event)


def test_or_is_one_of_several_objects_and_combines_with_its_siblings() -> None:
    pattern = {"source": ["app"], "detail": {"$or": [{"count": [{"numeric": [">", 5]}]}, {"state": ["bad"], "level": [1]}]}}
    assert matches(pattern, {"source": "app", "detail": {"count": 6}})
    assert matches(pattern, {"source": "app", "detail": {"count": 1, "state": "bad", "level": 1}})
    assert not matches(pattern, {"source": "app", "detail": {"count": 1, "state": "bad", "level": 2}})
    assert not matches(pattern, {"source": "other", "detail": {"count": 6}})


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("nonsense", "Unexpected character"),
        ("[]", "Filter is not an object"),
        ("{}", "Empty objects are not allowed"),
        ('{"a": {}}', "Empty objects are not allowed"),
        ('{"a": []}', "Empty arrays are not allowed"),
        ('{"a": "x"}', '"a" must be an object or an array'),
        ('{"a": [["x"]]}', "Match value must be String, number, true, false, or null"),
        ('{"a": [{"prefix": 1}]}', "prefix match pattern must be a string"),
        ('{"a": [{"prefix": "x", "suffix": "y"}]}', "Only one key allowed in match expression"),
        ('{"a": [{"like": "x"}]}', "Unrecognized match type like"),
        ('{"a": [{"numeric": [">"]}]}', "Value of > must be numeric"),
        ('{"a": [{"numeric": ["~", 1]}]}', "Unrecognized numeric range operator: ~"),
        ('{"a": [{"numeric": ["=", 1, "<", 2]}]}', "Too many elements in numeric expression"),
        ('{"a": [{"numeric": [">", 5, "<", 1]}]}', "Bottom must be less than top"),
        ('{"a": [{"numeric": ["<", 6000000000]}]}', "Value must be between"),
        ('{"a": [{"exists": "yes"}]}', "exists match pattern must be either true or false."),
        ('{"a": [{"cidr": "10.0.0.0"}]}', "Malformed CIDR, one '/' required"),
        ('{"a": [{"anything-but": []}]}', "either all values are number or string"),
        ('{"a": [{"anything-but": ["x", 1]}]}', "either all values are number or string"),
        ('{"a": [{"anything-but": {"prefix": ""}}]}', "Null prefix/suffix not allowed"),
        ('{"a": [{"anything-but": {"exists": true}}]}', "Unsupported anything-but pattern: exists"),
        ('{"a": [{"wildcard": "a**"}]}', "Consecutive wildcard characters"),
        ('{"a": [{"wildcard": "a\\\\b"}]}', "Invalid escape character"),
        ('{"$or": [{"a": [1]}]}', "There must have at least 2 Objects in $or relationship."),
        ('{"$or": {"a": [1]}}', "It must be an Array followed with $or."),
    ],
)
def test_what_is_no_pattern_is_refused_with_rulers_reason(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidPattern, match=reason.replace("$", r"\$").replace("(", r"\(")):
        EventPattern(pattern)


SCALARS = st.one_of(st.sampled_from(["a", "b", "", "A"]), st.integers(-2, 2), st.booleans(), st.none(), st.sampled_from([0.5, 1.0]))
NAMES = st.sampled_from(["x", "y", "z"])
EVENTS = st.recursive(
    st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=3), max_size=3),
    lambda inner: st.dictionaries(NAMES, inner | SCALARS, max_size=3),
    max_leaves=6,
)
PATTERNS = st.recursive(
    st.dictionaries(NAMES, st.lists(SCALARS, min_size=1, max_size=3), min_size=1, max_size=3),
    lambda inner: st.dictionaries(NAMES, inner | st.lists(SCALARS, min_size=1, max_size=3), min_size=1, max_size=3),
    max_leaves=4,
)


def naive(pattern: dict[str, Any], event: Any) -> bool:
    """Exact matching as the documentation says it: every field of the pattern is in the event and has one of the values."""
    for name, wanted in pattern.items():
        if not isinstance(event, dict) or name not in event:
            return False
        found = event[name]
        if isinstance(wanted, dict):
            if not naive(wanted, found):
                return False
            continue
        values = found if isinstance(found, list) else [found]
        if not any(_as_json(value) == _as_json(candidate) for value in values for candidate in wanted if not isinstance(value, dict)):
            return False
    return True


def _as_json(value: Any) -> str:
    return json.dumps(float(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else json.dumps(value)


@given(PATTERNS, EVENTS)
def test_exact_matching_agrees_with_a_naive_reading(pattern: dict[str, Any], event: dict[str, Any]) -> None:
    assert matches(pattern, event) == naive(pattern, event)


@given(EVENTS.filter(bool), st.lists(SCALARS.filter(lambda value: isinstance(value, str)), min_size=1, max_size=2))
def test_anything_but_is_the_opposite_of_exact_matching_for_one_value(event: dict[str, Any], values: list[Any]) -> None:
    name, found = next(iter(event.items()))
    if isinstance(found, (dict, list)):
        return
    assert matches({name: [{"anything-but": values}]}, event) != matches({name: values}, event)


@given(st.text(alphabet="ab*", max_size=6), st.text(alphabet="ab*", max_size=8))
def test_a_wildcard_without_stars_is_exact_and_a_star_is_anything(pattern: str, text: str) -> None:
    if "**" in pattern:
        return
    parts = pattern.split("*")
    expected = pattern == text
    if len(parts) > 1:
        # The naive way: first and last part at the ends, the middle ones in order between them.
        middle = text[len(parts[0]) : len(text) - len(parts[-1])]
        expected = text.startswith(parts[0]) and text.endswith(parts[-1]) and len(text) >= len(parts[0]) + len(parts[-1])
        for part in parts[1:-1]:
            index = middle.find(part)
            expected = expected and index >= 0
            middle = middle[index + len(part) :]
    assert matches({"x": [{"wildcard": pattern}]}, {"x": text}) == expected
