"""boto3 clients onto the region from inside the process (making one takes ~16 ms, so each is made once)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from localcloud.cloud import Cloud


class Clients:
    """Thread-safe cache of clients, by service name."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._session: Any = None

    def __call__(self, service: str) -> Any:
        """Return the client of a service, e.g. ``cloud.clients("s3")``. Its requests are not retried: they stay in this process."""
        with self._lock:
            if service not in self._clients:
                # One session for all: what botocore loads for the first client, the others share (20 ms each instead of 75).
                self._session = self._session or boto3.Session(
                    aws_access_key_id="ASIALOCALCLOUD000000",
                    aws_secret_access_key="localcloud",
                    region_name=self._cloud.settings.region,
                )
                config = Config(retries={"total_max_attempts": 1}, max_pool_connections=64, read_timeout=900, inject_host_prefix=False)
                self._clients[service] = self._session.client(service, endpoint_url=self._cloud.endpoint_url, config=config)
            return self._clients[service]
