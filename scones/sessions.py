"""boto3 sessions as commands need them."""

from __future__ import annotations

from typing import Any

import boto3


class Session(boto3.Session):  # type: ignore[misc]  # boto3 has no annotations
    """A session that makes each client once: making one takes about 20 ms, and a command asks for the same few dozens of times."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[Any, ...], Any] = {}

    def client(self, service_name: str, region_name: str | None = None, **options: Any) -> Any:
        """Return the client of a service with these options (boto3's)."""
        key = (service_name, region_name, *sorted(options.items()))
        if key not in self._made:
            self._made[key] = super().client(service_name, region_name, **options)
        return self._made[key]
