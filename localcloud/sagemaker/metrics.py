"""MetricDefinitions: figures that a training job prints."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import Any

from localcloud.errors import ServiceError
from localcloud.sagemaker.values import now


class MetricReader:
    """Finds metrics in a job's output and keeps the last value of each.

    Args:
        definitions: ``[{"Name": …, "Regex": …}]``; the first group of the regular expression is the number.
    """

    def __init__(self, definitions: Iterable[dict[str, str]]) -> None:
        self._patterns = [(definition["Name"], re.compile(definition["Regex"])) for definition in definitions]
        self._last: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def read(self, lines: Iterable[str]) -> None:
        """Take in printed lines."""
        for line in lines:
            for name, pattern in self._patterns:
                for match in pattern.finditer(line):
                    try:
                        value = float(match.group(1))
                    except (ValueError, TypeError):
                        continue
                    with self._lock:
                        self._last[name] = {"MetricName": name, "Value": value, "Timestamp": now()}

    def final(self) -> list[dict[str, Any]]:
        """Return FinalMetricDataList."""
        with self._lock:
            return list(self._last.values())


def check_definitions(definitions: Iterable[dict[str, str]]) -> None:
    """Refuse regular expressions that cannot find a number.

    Raises:
        ServiceError: One does not compile or has no group.
    """
    for definition in definitions:
        try:
            groups = re.compile(definition["Regex"]).groups
        except re.error as error:
            raise ServiceError(
                "ValidationException",
                f"Metric definition '{definition['Name']}': '{definition['Regex']}' is not a regular expression: {error}",
            ) from error
        if groups < 1:
            raise ServiceError(
                "ValidationException",
                f"Metric definition '{definition['Name']}': '{definition['Regex']}' has no group ( ) that captures the value",
            )
