"""The CodeConnections API, under its own name and under the old one (CodeStar connections).

A connection is PENDING until a person has authorized it at the provider; that is so on AWS, and no API call does it there. Here the person says with
`authorize` (``POST /_localcloud/connections/authorize``) which repository the connection leads to; localcloud makes it and tells where to push.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from localcloud.codeconnections.regions import WITHOUT_CODECONNECTIONS
from localcloud.codeconnections.repositories import Push, Repositories, RepositoryError
from localcloud.errors import LocalCloudError, ServiceError, not_supported
from localcloud.service import Params, Service

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

log = logging.getLogger(__name__)

#: Seconds between two looks at the repositories: one `stat` each.
_LOOK_AGAIN_SECONDS = 0.5
_ARN = re.compile(r"arn:aws[\w-]*:(codeconnections|codestar-connections):[^:]+:\d{12}:connection/(?P<id>[0-9a-f-]{36})")
_MEMBERS = ("ConnectionName", "ConnectionArn", "ProviderType", "OwnerAccountId", "ConnectionStatus")
_MAX_TAGS = 200


class CodeConnectionsService(Service):
    """AWS CodeConnections.

    Attributes:
        repositories: The git repositories.
    """

    name: ClassVar[str] = "codeconnections"
    validation_code: ClassVar[str] = "InvalidInputException"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self._connections = cloud.db.table("codeconnections.connections")
        self._pushed = cloud.db.table("codeconnections.pushes")
        self.repositories = Repositories(cloud.settings.state_dir / "git")
        self._listeners: list[Callable[[Push], None]] = []
        self._stopping = threading.Event()
        self._looking = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="git-pushes", daemon=True)

    def start(self) -> None:
        """Begin to look for pushes."""
        self._watcher.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def on_push(self, listener: Callable[[Push], None]) -> None:
        """Have *listener* called, on the watcher's thread, for each ref that a push changes."""
        self._listeners.append(listener)

    # Connections

    def create_connection(self, params: Params) -> dict[str, Any]:
        """CreateConnection."""
        if self.cloud.settings.region in WITHOUT_CODECONNECTIONS:
            raise not_supported(
                f"CodeConnections in {self.cloud.settings.region}, where AWS does not have it, either,", self.validation_code
            )
        if params.get("HostArn"):
            raise not_supported("HostArn of CreateConnection", self.validation_code)
        provider = params.get("ProviderType")
        if provider is None:
            raise ServiceError(self.validation_code, "Either HostArn or ProviderType must be specified")
        if provider in ("GitHubEnterpriseServer", "GitLabSelfManaged"):
            raise not_supported(f"ProviderType {provider} of CreateConnection (it needs a host)", self.validation_code)
        identifier = str(uuid.uuid4())
        connection: Document = {
            "ConnectionName": params["ConnectionName"],
            "ConnectionArn": self.cloud.arn(self.name, f"connection/{identifier}"),
            "ProviderType": provider,
            "OwnerAccountId": self.cloud.settings.account_id,
            "ConnectionStatus": "PENDING",
            "Tags": _merged([], params.get("Tags", [])),
            "Repositories": [],
        }
        self._connections.put(identifier, connection)
        return {"ConnectionArn": connection["ConnectionArn"], "Tags": connection["Tags"]}

    def get_connection(self, params: Params) -> dict[str, Any]:
        """GetConnection."""
        return {"Connection": _shown(self._connection(params["ConnectionArn"]))}

    def list_connections(self, params: Params) -> dict[str, Any]:
        """ListConnections."""
        if params.get("HostArnFilter"):
            raise not_supported("HostArnFilter of ListConnections", self.validation_code)
        wanted = params.get("ProviderTypeFilter")
        found = [_shown(connection) for connection in self._connections.values() if wanted in (None, connection["ProviderType"])]
        found.sort(key=lambda connection: str(connection["ConnectionName"]))
        token = params.get("NextToken", "0")
        if not token.isdigit():
            raise ServiceError(self.validation_code, "Invalid NextToken")
        begin = int(token)
        end = begin + (params.get("MaxResults") or 100)
        return {"Connections": found[begin:end]} | ({"NextToken": str(end)} if end < len(found) else {})

    def delete_connection(self, params: Params) -> dict[str, Any]:
        """DeleteConnection; the repositories stay."""
        connection = self._connection(params["ConnectionArn"])
        self._connections.delete(_identifier(connection["ConnectionArn"]))
        return {}

    def authorize(self, arn: str, full_id: str) -> dict[str, str]:
        """Do what a person does at the provider: let a connection reach a repository, which is made when it is not there.

        Returns:
            ``ConnectionArn``, ``ConnectionStatus`` and ``Remote``, the folder to push to.

        Raises:
            ServiceError: There is no such connection, the name is no repository's, or git is missing.
        """
        connection = self._connection(arn)
        try:
            remote = self.repositories.create(full_id)
        except RepositoryError as error:
            raise ServiceError(self.validation_code, str(error)) from error
        with self._connections.lock():
            names = sorted({*connection["Repositories"], full_id})
            if full_id not in self._pushed:
                self._pushed.put(full_id, {"offset": 0})
            self._connections.update(_identifier(connection["ConnectionArn"]), ConnectionStatus="AVAILABLE", Repositories=names)
        return {"ConnectionArn": connection["ConnectionArn"], "ConnectionStatus": "AVAILABLE", "Remote": str(remote)}

    def reaches(self, arn: str, full_id: str) -> bool:
        """Tell whether a connection is available and leads to a repository.

        Raises:
            ServiceError: There is no such connection.
        """
        connection = self._connection(arn)
        return connection["ConnectionStatus"] == "AVAILABLE" and full_id in connection["Repositories"]

    def provider(self, arn: str) -> str:
        """Return a connection's provider type.

        Raises:
            ServiceError: There is no such connection.
        """
        return str(self._connection(arn)["ProviderType"])

    # Tags

    def tag_resource(self, params: Params) -> dict[str, Any]:
        """TagResource."""
        with self._connections.lock():
            connection = self._connection(params["ResourceArn"])
            tags = _merged(connection["Tags"], params["Tags"])
            self._connections.update(_identifier(connection["ConnectionArn"]), Tags=tags)
        return {}

    def untag_resource(self, params: Params) -> dict[str, Any]:
        """UntagResource."""
        with self._connections.lock():
            connection = self._connection(params["ResourceArn"])
            tags = [tag for tag in connection["Tags"] if tag["Key"] not in params["TagKeys"]]
            self._connections.update(_identifier(connection["ConnectionArn"]), Tags=tags)
        return {}

    def list_tags_for_resource(self, params: Params) -> dict[str, Any]:
        """ListTagsForResource."""
        return {"Tags": self._connection(params["ResourceArn"])["Tags"]}

    def _connection(self, arn: str) -> Document:
        connection = self._connections.get(_identifier(arn))
        # An ARN may be written with either of the service's names.
        if connection is None or arn.split(":")[3:] != connection["ConnectionArn"].split(":")[3:]:
            raise ServiceError("ResourceNotFoundException", f"Connection {arn} not found")
        return connection

    # Pushes

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_AGAIN_SECONDS):
            try:
                self.look()
            except (OSError, ValueError, LocalCloudError):
                log.exception("The repositories could not be looked at")

    def look(self) -> None:
        """Tell of the pushes so far now: what begins to watch afterwards is not started by them."""
        with self._looking:
            for full_id in self._pushed:
                self._look(full_id)

    def _look(self, full_id: str) -> None:
        known = self._pushed.get(full_id)
        offset = known["offset"] if known else 0
        pushes, end = self.repositories.pushes(full_id, offset)
        if end == offset:
            return
        for push in pushes:
            for listener in self._listeners:
                listener(push)
        # Afterwards: a push during which localcloud ends is told again, never lost.
        self._pushed.put(full_id, {"offset": end})


class CodeStarConnectionsService(CodeConnectionsService):
    """AWS CodeStar connections: the same connections by the service's old name."""

    name: ClassVar[str] = "codestar-connections"

    def start(self) -> None:
        """Do nothing: `CodeConnectionsService` looks for pushes."""


def authorization(service: CodeConnectionsService, body: bytes) -> dict[str, str]:
    """Answer ``POST /_localcloud/connections/authorize``, whose body is ``{"ConnectionArn": …, "FullRepositoryId": "owner/name"}``.

    Raises:
        ServiceError: See `CodeConnectionsService.authorize`; or the body is something else.
    """
    try:
        request = json.loads(body)
        arn, full_id = request["ConnectionArn"], request["FullRepositoryId"]
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError("InvalidInputException", 'The body must be {"ConnectionArn": "…", "FullRepositoryId": "owner/name"}') from error
    return service.authorize(str(arn), str(full_id))


def _identifier(arn: str) -> str:
    match = _ARN.fullmatch(arn)
    return match["id"] if match else ""


def _shown(connection: Document) -> dict[str, Any]:
    return {member: connection[member] for member in _MEMBERS}


def _merged(tags: list[dict[str, str]], new: list[dict[str, str]]) -> list[dict[str, str]]:
    merged = list(({tag["Key"]: tag for tag in tags} | {tag["Key"]: tag for tag in new}).values())
    if len(merged) > _MAX_TAGS:
        raise ServiceError("LimitExceededException", f"A connection can have at most {_MAX_TAGS} tags")
    return merged
