"""What a target is sent, and when a schedule fires."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.errors import ServiceError
from localcloud.eventbridge.inputs import InvalidInput, RuleContext, check_target_input, target_input
from localcloud.eventbridge.schedules import InvalidSchedule, parse_schedule

CONTEXT = RuleContext("approved", "arn:aws:events:us-east-1:123456789012:rule/approved", "2026-01-02T03:04:05Z")
EVENT = {
    "version": "0",
    "id": "7bf73129-1428-4cd3-a780-95db273d1602",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "account": "123456789012",
    "time": "2015-11-11T21:29:54Z",
    "region": "us-east-1",
    "resources": ["arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789"],
    "detail": {"instance-id": "i-0123456789", "state": "RUNNING", "nested": {"list": [1, 2]}, "quote": 'a "b"'},
}


def sent(**target: Any) -> str:
    target = {"Id": "t", **target}
    check_target_input(target)
    return target_input(target, EVENT, CONTEXT)


def transformed(template: str, **paths: str) -> Any:
    return json.loads(sent(InputTransformer={"InputPathsMap": paths, "InputTemplate": template}))


def test_without_a_setting_the_event_is_sent() -> None:
    assert json.loads(sent()) == EVENT


def test_input_is_sent_as_it_is() -> None:
    assert sent(Input='{"a":  1}') == '{"a":  1}'


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.detail.state", "RUNNING"),
        ("$.detail.nested", {"list": [1, 2]}),
        ("$.detail-type", EVENT["detail-type"]),
        ("$.detail.nothing", None),
    ],
)
def test_input_path_sends_a_part(path: str, expected: Any) -> None:
    assert json.loads(sent(InputPath=path)) == expected


def test_a_template_takes_texts_with_and_without_quotes() -> None:
    # The example of https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
    paths = {"instance": "$.detail.instance-id", "status": "$.detail.state"}
    assert transformed('"instance <instance> is in <status>"', **paths) == "instance i-0123456789 is in RUNNING"
    assert transformed('{"instance": <instance>, "status": "<status>"}', **paths) == {"instance": "i-0123456789", "status": "RUNNING"}


def test_a_template_takes_objects_and_arrays_as_json() -> None:
    assert transformed('{"whole": <n>, "items": <l>}', n="$.detail.nested", l="$.resources") == {
        "whole": {"list": [1, 2]},
        "items": EVENT["resources"],
    }


def test_what_the_event_has_not_is_null_or_nothing() -> None:
    assert transformed('{"a": <x>, "b": "<x>"}', x="$.detail.missing") == {"a": None, "b": ""}


def test_a_value_with_quotes_stays_one_text() -> None:
    assert transformed('{"a": "say <q>", "b": <q>}', q="$.detail.quote") == {"a": 'say a "b"', "b": 'a "b"'}


def test_predefined_variables() -> None:
    found = transformed(
        '{"rule": <aws.events.rule-name>, "arn": <aws.events.rule-arn>, "at": <aws.events.event.ingestion-time>, "event": <aws.events.event.json>}'
    )
    assert found == {"rule": CONTEXT.rule_name, "arn": CONTEXT.rule_arn, "at": CONTEXT.ingestion_time, "event": EVENT}
    assert "detail" not in transformed("<aws.events.event>")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"Input": "{}", "InputPath": "$"}, "Only one of Input, InputPath, or InputTransformer"),
        ({"Input": "nonsense"}, "JSON syntax error in input for target t"),
        ({"InputPath": "detail"}, "Invalid InputPath for target t"),
        ({"InputTransformer": {"InputPathsMap": {"x": "y"}, "InputTemplate": "<x>"}}, "Invalid InputPathsMap for target t"),
        ({"InputTransformer": {"InputPathsMap": {}, "InputTemplate": '"<x>"'}}, "Placeholder x is not defined"),
        ({"InputTransformer": {"InputPathsMap": {"x": "$.a"}, "InputTemplate": "{<x>"}}, "Invalid InputTemplate for target t"),
    ],
)
def test_a_wrong_input_is_refused_when_the_target_is_put(target: dict[str, Any], reason: str) -> None:
    with pytest.raises(ServiceError) as caught:
        check_target_input({"Id": "t", **target})
    assert caught.value.code == "ValidationException"
    assert reason in caught.value.message


def test_a_template_that_gives_no_json_for_an_event_is_said() -> None:
    target = {"Id": "t", "InputTransformer": {"InputPathsMap": {"x": "$.detail.nested"}, "InputTemplate": "{<x>: 1}"}}
    with pytest.raises(InvalidInput):
        target_input(target, EVENT, CONTEXT)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)
    )
)
def test_any_value_inside_a_quoted_text_leaves_the_template_json(detail: dict[str, Any]) -> None:
    target = {"Id": "t", "InputTransformer": {"InputPathsMap": {"d": "$.detail"}, "InputTemplate": '{"text": "<d>", "value": <d>}'}}
    found = json.loads(target_input(target, {"detail": detail}, CONTEXT))
    assert found["value"] == detail
    assert json.loads(found["text"]) == detail


AT = datetime(2026, 2, 27, 23, 30, 15, tzinfo=UTC)


# Expected times by hand; syntax: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(5 minutes)", AT + timedelta(minutes=5)),
        ("rate(1 day)", AT + timedelta(days=1)),
        ("cron(0 10 * * ? *)", datetime(2026, 2, 28, 10, 0, tzinfo=UTC)),
        ("cron(15 12 * * ? *)", datetime(2026, 2, 28, 12, 15, tzinfo=UTC)),
        ("cron(0 18 ? * MON-FRI *)", datetime(2026, 3, 2, 18, 0, tzinfo=UTC)),
        ("cron(0 8 1 * ? *)", datetime(2026, 3, 1, 8, 0, tzinfo=UTC)),
        ("cron(0/15 * * * ? *)", datetime(2026, 2, 27, 23, 45, tzinfo=UTC)),
        ("cron(0 0 L * ? *)", datetime(2026, 2, 28, 0, 0, tzinfo=UTC)),
        ("cron(0 9 ? * 2#1 *)", datetime(2026, 3, 2, 9, 0, tzinfo=UTC)),
        ("cron(0 9 ? * 6L *)", datetime(2026, 3, 27, 9, 0, tzinfo=UTC)),
        ("cron(0 9 15W * ? *)", datetime(2026, 3, 16, 9, 0, tzinfo=UTC)),
        ("cron(0 0 29 2 ? *)", datetime(2028, 2, 29, 0, 0, tzinfo=UTC)),
        ("cron(0 0 1 1 ? 2030)", datetime(2030, 1, 1, 0, 0, tzinfo=UTC)),
        ("cron(0 0 1 1 ? 2020)", None),
    ],
)
def test_when_a_schedule_fires_next(expression: str, expected: datetime | None) -> None:
    assert parse_schedule(expression).next_after(AT) == expected


@pytest.mark.parametrize(
    "expression",
    ["", "rate(0 minutes)", "rate(1 minutes)", "rate(2 minute)", "rate(5 seconds)", "cron(0 10 * * * *)", "cron(0 10 ? * ? *)", "cron(60 10 * * ? *)",
     "cron(0 10 * * ?)", "cron(a 10 * * ? *)", "cron(0 10 ? * FOO *)", "cron(0 10 ? * 2#6 *)", "cron(5-1 * * * ? *)"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(expression: str) -> None:
    with pytest.raises(InvalidSchedule):
        parse_schedule(expression)


@given(
    st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 59),
    st.integers(0, 23),
)
def test_a_daily_schedule_fires_within_a_day_at_its_time(moment: datetime, minute: int, hour: int) -> None:
    due = parse_schedule(f"cron({minute} {hour} * * ? *)").next_after(moment)
    assert due is not None
    assert timedelta(0) < due - moment <= timedelta(days=1)
    assert (due.hour, due.minute, due.second) == (hour, minute, 0)
