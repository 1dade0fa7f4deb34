"""Alarms' evaluation: AWS's documented examples, its words, and what holds for every alarm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.cloudwatch.evaluation import EXTRA_POINTS, AlarmState, Condition, Missing, Point, evaluate, number

OK, ALARM, UNKNOWN, SAME = AlarmState.OK, AlarmState.ALARM, AlarmState.INSUFFICIENT_DATA, None
AT = 1_570_035_540.0  # 02/10/19 16:59:00


def points(text: str) -> list[Point | None]:
    """Read data points as AWS's tables write them, the oldest first: 0 does not breach, X does, - is missing."""
    values = [
        None if mark == "-" else Point(AT - 60 * age, 9.0 if mark == "X" else 0.0, 1) for age, mark in enumerate(reversed(text.split()))
    ]
    return values


# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html: missing, ignore, breaching, notBreaching.
THREE_OF_THREE = {
    "0 - X - X": (OK, OK, OK, OK),
    "0 - - - -": (OK, OK, OK, OK),
    "- - - - -": (UNKNOWN, SAME, ALARM, OK),
    "0 X X - X": (ALARM, ALARM, ALARM, ALARM),
    "- - X - -": (ALARM, SAME, ALARM, OK),
    "- - - - X": (SAME, SAME, ALARM, OK),
}
TWO_OF_THREE = {
    "0 - X - X": (ALARM, ALARM, ALARM, ALARM),
    "0 0 X 0 X": (ALARM, ALARM, ALARM, ALARM),
    "0 - X - -": (OK, OK, ALARM, OK),
    "- - - - 0": (OK, OK, ALARM, OK),
    "- - - X -": (ALARM, SAME, ALARM, OK),
}
ORDER = (Missing.MISSING, Missing.IGNORE, Missing.BREACHING, Missing.NOT_BREACHING)
CASES = [
    (needed, text, missing, state)
    for needed, table in ((3, THREE_OF_THREE), (2, TWO_OF_THREE))
    for text, states in table.items()
    for missing, state in zip(ORDER, states, strict=True)
]


@pytest.mark.parametrize(("needed", "text", "missing", "state"), CASES)
def test_missing_data_counts_as_documented(needed: int, text: str, missing: Missing, state: AlarmState | None) -> None:
    verdict = evaluate(Condition("GreaterThanThreshold", 5.0, 3, needed, missing), points(text))
    assert (verdict and verdict.state) == state


@pytest.mark.parametrize(
    ("condition", "text", "reason"),
    [
        # Reasons that AWS's documentation and people's alarms show.
        (
            Condition("GreaterThanThreshold", 5.0, 1, 1),
            "X",
            "Threshold Crossed: 1 out of the last 1 datapoints [9.0 (02/10/19 16:59:00)] was greater than the threshold (5.0) "
            "(minimum 1 datapoint for OK -> ALARM transition).",
        ),
        (
            Condition("GreaterThanThreshold", 5.0, 1, 1),
            "0",
            "Threshold Crossed: 1 out of the last 1 datapoints [0.0 (02/10/19 16:59:00)] was not greater than the threshold (5.0) "
            "(minimum 1 datapoint for ALARM -> OK transition).",
        ),
        (
            Condition("GreaterThanOrEqualToThreshold", 1.0, 1),
            "X",
            "Threshold Crossed: 1 datapoint [9.0 (02/10/19 16:59:00)] was greater than or equal to the threshold (1.0).",
        ),
        (
            Condition("LessThanThreshold", 1.0, 2, None, Missing.BREACHING),
            "0 - - -",
            "Threshold Crossed: 1 datapoint [0.0 (02/10/19 16:56:00)] was less than the threshold (1.0) and 1 missing datapoint was treated as [Breaching].",
        ),
        (
            Condition("GreaterThanThreshold", 1.0, 1, None, Missing.NOT_BREACHING),
            "- - -",
            "Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as [NonBreaching].",
        ),
        (Condition("GreaterThanThreshold", 1.0, 5), "- - - - - - -", "Insufficient Data: 5 datapoints were unknown."),
        (Condition("GreaterThanThreshold", 1.0, 1), "- - -", "Insufficient Data: 1 datapoint was unknown."),
    ],
)
def test_reasons_are_in_awss_words(condition: Condition, text: str, reason: str) -> None:
    verdict = evaluate(condition, points(text))
    assert verdict is not None
    assert verdict.reason == reason


@given(
    marks=st.lists(st.sampled_from("0X-"), min_size=1 + EXTRA_POINTS, max_size=8 + EXTRA_POINTS),
    needed=st.integers(1, 8),
    missing=st.sampled_from(list(Missing)),
)
def test_one_more_breaching_point_never_makes_it_better(marks: list[str], needed: int, missing: Missing) -> None:
    periods = len(marks) - EXTRA_POINTS
    condition = Condition("GreaterThanThreshold", 5.0, periods, min(needed, periods), missing)
    before = evaluate(condition, points(" ".join(marks)))
    if before is None or before.state is not ALARM:
        return
    for index, mark in enumerate(marks):
        if mark == "0":
            worse = evaluate(condition, points(" ".join([*marks[:index], "X", *marks[index + 1 :]])))
            assert worse is not None
            assert worse.state is ALARM


@given(marks=st.lists(st.sampled_from("0X"), min_size=3, max_size=10), needed=st.integers(1, 8), missing=st.sampled_from(list(Missing)))
def test_when_nothing_is_missing_it_is_a_matter_of_counting(marks: list[str], needed: int, missing: Missing) -> None:
    periods = len(marks) - EXTRA_POINTS
    needed = min(needed, periods)
    verdict = evaluate(Condition("GreaterThanThreshold", 5.0, periods, needed, missing), points(" ".join(marks)))
    assert verdict is not None
    assert (verdict.state is ALARM) == (marks[-periods:].count("X") >= needed)


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.0"), (0.0, "0.0"), (1e6, "1000000.0"), (1.5e7, "1.5E7"), (-1e9, "-1.0E9"), (0.00025, "2.5E-4"), (99.50160229693434, "99.50160229693434")]
)  # fmt: skip
def test_numbers_are_written_as_by_java(value: float, text: str) -> None:
    assert number(value) == text
