"""FilterLogEvents of CloudWatch Logs by the prefix of the streams' names, which moto ignores: the log of one job is not that of all jobs.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
Held by tests/integration/test_log_prefixes.py.
"""

from __future__ import annotations

import json

from moto.logs.exceptions import InvalidParameterException
from moto.logs.responses import LogsResponse

_FILTER = LogsResponse.filter_log_events


def add_log_prefixes() -> None:
    """Let CloudWatch Logs look at logStreamNamePrefix; doing it again does nothing."""
    setattr(LogsResponse, "filter_log_events", _filter)  # noqa: B010  # mypy takes no assignment to a method


def _filter(response: LogsResponse) -> str:
    prefix = response._get_param("logStreamNamePrefix")
    group = response.logs_backend.groups.get(response._get_param("logGroupName"))
    if not prefix or group is None:
        return _FILTER(response)
    if response._get_param("logStreamNames"):
        raise InvalidParameterException("LogStreamNames and LogStreamNamePrefix are mutually exclusive.")
    names = [name for name in list(group.streams) if name.startswith(prefix)]
    if not names:  # to moto no names are all names
        return json.dumps({"events": [], "searchedLogStreams": []})
    response.body = json.dumps({**json.loads(response.body), "logStreamNames": names})
    return _FILTER(response)
