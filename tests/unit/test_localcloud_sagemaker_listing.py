"""List operations: filters, order and pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.errors import ServiceError
from localcloud.sagemaker.listing import list_page

START = datetime(2026, 1, 1, tzinfo=UTC)


def documents(count: int) -> list[dict[str, Any]]:
    return [
        {
            "Name": f"job-{index:02d}",
            "Status": "Failed" if index % 3 == 0 else "Completed",
            "CreationTime": START + timedelta(hours=index),
            "LastModifiedTime": START + timedelta(hours=index, minutes=30),
        }
        for index in range(count)
    ]


def names(params: dict[str, Any], count: int = 6) -> list[str]:
    found, _ = list_page(documents(count), params, name="Name", status="Status")
    return [document["Name"] for document in found]


@given(
    count=st.integers(0, 40),
    size=st.integers(1, 15),
    order=st.sampled_from(["Ascending", "Descending"]),
    by=st.sampled_from(["Name", "CreationTime", "Status"]),
)
def test_pages_give_everything_once_in_order(count: int, size: int, order: str, by: str) -> None:
    params: dict[str, Any] = {"MaxResults": size, "SortOrder": order, "SortBy": by}
    seen: list[str] = []
    while True:
        found, token = list_page(documents(count), params, name="Name", status="Status")
        assert len(found) <= size
        seen += [document["Name"] for document in found]
        if not token:
            break
        params["NextToken"] = token["NextToken"]
    assert sorted(seen) == [document["Name"] for document in documents(count)]
    if by != "Status":
        assert seen == sorted(seen, reverse=order == "Descending")


def test_the_newest_come_first_ten_at_a_time() -> None:
    assert names({}, 12) == [f"job-{index:02d}" for index in range(11, 1, -1)]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"NameContains": "JOB-03"}, ["job-03"]),
        ({"StatusEquals": "Failed"}, ["job-03", "job-00"]),
        # moto parses a request's times to UTC without a zone.
        ({"CreationTimeAfter": datetime(2026, 1, 1, 4)}, ["job-05"]),
        ({"CreationTimeBefore": START + timedelta(hours=1)}, ["job-00"]),
        ({"LastModifiedTimeAfter": START + timedelta(hours=4)}, ["job-05", "job-04"]),
    ],
)
def test_filters(params: dict[str, Any], expected: list[str]) -> None:
    assert names(params) == expected


@pytest.mark.parametrize("token", ["", "!!!", "bm8tc3VjaA=="])
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    if token:
        with pytest.raises(ServiceError, match="pagination token"):
            names({"NextToken": token})
    else:
        assert len(names({"NextToken": token})) == 6
