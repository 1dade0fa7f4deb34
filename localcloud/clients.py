"""boto3 clients onto the region from inside the process (making one takes ~16 ms, so each is made once)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from boto3 import Session
from botocore.config import Config

from localcloud.iam.principals import RoleSession

if TYPE_CHECKING:
    from localcloud.cloud import Cloud


class Clients:
    """Thread-safe cache of clients, by service name.

    Args:
        cloud: The region.
        session: The role that they act as; None for the region itself, which may do everything.
        loaded: What botocore has loaded already.
    """

    def __init__(self, cloud: Cloud, session: RoleSession | None = None, loaded: Session | None = None) -> None:
        self._cloud = cloud
        self._session = session
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._roles: dict[RoleSession, Clients] = {}
        # One session for all: what botocore loads for the first client, the others share (20 ms each instead of 75).
        self._loaded = loaded or Session()

    def __call__(self, service: str) -> Any:
        """Return the client of a service, e.g. ``cloud.clients("s3")``. Its requests are not retried: they stay in this process."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._loaded.client(
                    service,
                    endpoint_url=self._cloud.endpoint_url,
                    region_name=self._cloud.settings.region,
                    aws_access_key_id="ASIALOCALCLOUD000000",
                    aws_secret_access_key="localcloud",
                    aws_session_token=self._session.token if self._session else None,
                    config=Config(retries={"total_max_attempts": 1}, max_pool_connections=64, read_timeout=900, inject_host_prefix=False),
                )
            return self._clients[service]

    def acting_as(self, role_arn: str, session_name: str) -> Clients:
        """Return clients with the credentials of a role. Names of sessions should be few: each has clients of its own."""
        return self.with_session(RoleSession(role_arn, session_name))

    def with_session(self, session: RoleSession) -> Clients:
        """Return clients with the credentials of a role's session."""
        with self._lock:
            if session not in self._roles:
                self._roles[session] = Clients(self._cloud, session, self._loaded)
            return self._roles[session]
