"""Small helpers on requests and documents."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from localcloud.errors import not_supported
from localcloud.service import Params

#: Name of the sessions in which jobs, models and pipelines act as their roles.
SESSION_NAME = "SageMaker"


def refuse_others(params: Mapping[str, Any], supported: Collection[str], where: str) -> None:
    """Refuse a request that sets anything but *supported* members (null, false and empty count as not set), so that nothing is ignored in silence.

    Args:
        params: A request or one of its structures.
        supported: Members that have their effect here, or none that a caller could miss.
        where: What the member is of, for the message, e.g. "CreateTrainingJob".
    """
    for member, value in params.items():
        if member not in supported and value not in (None, False, "", [], {}):
            raise not_supported(f"{where}: {member}")


def json_ready(value: Any) -> Any:
    """Return *value* with datetimes as milliseconds since 1970."""
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    return value


def now() -> datetime:
    """Return the present time, aware, with the milliseconds that SageMaker keeps."""
    present = datetime.now(UTC)
    return present.replace(microsecond=present.microsecond // 1000 * 1000)


def given(params: Params, *members: str) -> Params:
    """Return those of *members* that a request sets."""
    return {member: params[member] for member in members if params.get(member) is not None}
