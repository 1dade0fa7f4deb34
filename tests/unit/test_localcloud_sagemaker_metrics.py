"""MetricDefinitions: the last value of each figure that a job prints."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.errors import ServiceError
from localcloud.sagemaker.metrics import MetricReader, check_definitions


def final(definitions: list[dict[str, str]], *lines: str) -> dict[str, Any]:
    reader = MetricReader(definitions)
    for line in lines:
        reader.read([line])
    return {metric["MetricName"]: metric["Value"] for metric in reader.final()}


def test_the_last_value_counts() -> None:
    definitions = [{"Name": "loss", "Regex": r"loss=([0-9.e-]+)"}, {"Name": "acc", "Regex": r"acc=(\S+)"}]
    assert final(definitions, "epoch 1 loss=0.5 acc=0.9", "epoch 2 loss=2.5e-1", "loss=0.2 loss=0.1") == {"loss": 0.1, "acc": 0.9}


def test_what_is_not_a_number_is_passed_over() -> None:
    assert final([{"Name": "loss", "Regex": "loss=(.*)"}], "loss=0.5", "loss=unknown") == {"loss": 0.5}


@pytest.mark.parametrize(("regex", "reason"), [("loss=([0-9", "not a regular expression"), ("loss=[0-9]+", "no group")])
def test_definitions_that_cannot_work_are_refused(regex: str, reason: str) -> None:
    with pytest.raises(ServiceError, match=reason):
        check_definitions([{"Name": "loss", "Regex": regex}])
