"""What is known of functions: their configuration, versions, aliases, policies; and what a name in a request means."""

from __future__ import annotations

import json
import random
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from localcloud.errors import ServiceError

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

LATEST = "$LATEST"

_ARN = re.compile(r"arn:aws[\w-]*:lambda:(?P<region>[^:]+):(?P<account>\d{12}):function:(?P<name>[^:]+)(:(?P<qualifier>[^:]+))?")
_PARTIAL_ARN = re.compile(r"(?P<account>\d{12}):(function:)?(?P<name>[^:]+)(:(?P<qualifier>[^:]+))?")
_NAME = re.compile(r"(?P<name>[a-zA-Z0-9-_]+)(:(?P<qualifier>[^:]+))?")


@dataclass(frozen=True)
class FunctionVersion:
    """One version of a function, as it is invoked.

    Attributes:
        name: The function's name.
        version: ``$LATEST`` or the version's number.
        arn: Qualified ARN of the version.
        configuration: AWS's FunctionConfiguration.
        digest: Hex sha256 of the code's zip.
    """

    name: str
    version: str
    arn: str
    configuration: dict[str, Any] = field(hash=False, compare=False)
    digest: str

    @property
    def key(self) -> str:
        """Changes whenever the version's code or configuration does."""
        return f"{self.name}:{self.version}:{self.configuration['RevisionId']}"

    @property
    def timeout(self) -> int:
        """Seconds."""
        return int(self.configuration["Timeout"])

    @property
    def log_group(self) -> str:
        """Name of the CloudWatch log group."""
        return str(self.configuration["LoggingConfig"]["LogGroup"])

    @property
    def json_logs(self) -> bool:
        """Whether the log format is JSON."""
        return bool(self.configuration["LoggingConfig"]["LogFormat"] == "JSON")


@dataclass(frozen=True)
class Target:
    """What a name and a qualifier in a request stand for.

    Attributes:
        version: The version that runs.
        invoked_arn: The ARN under which it was asked for.
        qualifier: Version or alias that was asked for; None when none was.
        reserved_concurrency: Invocations allowed at once, or None.
    """

    version: FunctionVersion
    invoked_arn: str
    qualifier: str | None
    reserved_concurrency: int | None


def now() -> str:
    """Return the time in Lambda's format."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")


def new_revision() -> str:
    """Return a fresh RevisionId."""
    return str(uuid.uuid4())


class FunctionStore:
    """The functions' documents: ``configuration`` and ``code`` (hex digest) of $LATEST, ``versions``, ``aliases``, ``policies``, ``event_invoke``, ``tags``,
    ``concurrency``."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._table = cloud.db.table("lambda.functions")
        self._resolved: dict[tuple[str, str | None], tuple[Target, dict[str, float]]] = {}
        self._policies: dict[tuple[str, str | None], tuple[str | None]] = {}
        #: Held over read-check-write sequences.
        self.lock: threading.RLock = self._table.lock()

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def arn(self, name: str, qualifier: str | None = None) -> str:
        """Return a function's ARN."""
        return self._cloud.arn("lambda", f"function:{name}" + (f":{qualifier}" if qualifier else ""))

    def identify(self, identifier: str, qualifier: str | None = None) -> tuple[str, str | None]:
        """Return the function name and the qualifier that a request means by a name, partial ARN or ARN and its Qualifier.

        Raises:
            ServiceError: It is none of these, of another region, or the two qualifiers differ.
        """
        match = _ARN.fullmatch(identifier) or _PARTIAL_ARN.fullmatch(identifier) or _NAME.fullmatch(identifier)
        if match is None:
            raise ServiceError("ValidationException", f"1 validation error detected: Value '{identifier}' at 'functionName' failed to satisfy constraint: "
                               "Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\\d{1}:)?(\\d{12}:)?(function:)?"
                               "([a-zA-Z0-9-_]+)(:(\\$LATEST|[a-zA-Z0-9-_]+))?")  # fmt: skip
        parts = match.groupdict()
        settings = self._cloud.settings
        region, account = parts.get("region") or settings.region, parts.get("account") or settings.account_id
        if region != settings.region:
            raise ServiceError(
                "ResourceNotFoundException", f"Functions from '{region}' are not reachable in this region ('{settings.region}')"
            )
        if account != settings.account_id:
            raise ServiceError("ResourceNotFoundException", f"Function not found: {identifier}")
        derived = parts["qualifier"]
        if derived and qualifier and derived != qualifier:
            message = "The derived qualifier from the function name does not match the specified qualifier."
            raise ServiceError("InvalidParameterValueException", message)
        return parts["name"], qualifier or derived

    def get(self, name: str, qualifier: str | None = None) -> Document:
        """Return a copy of a function's document.

        Raises:
            ServiceError: There is no such function (*qualifier* is for the message only).
        """
        document = self._table.get(name)
        if document is None:
            raise ServiceError("ResourceNotFoundException", f"Function not found: {self.arn(name, qualifier)}")
        return document

    def put(self, name: str, document: Document) -> None:
        """Write a function's document."""
        self._table.put(name, document)
        self._forget(name)

    def delete(self, name: str) -> None:
        """Delete a function."""
        self._table.delete(name)
        self._forget(name)

    def documents(self) -> list[Document]:
        """Return copies of all functions' documents, by name."""
        return self._table.values()

    def digests(self) -> set[str]:
        """Return the digests of all code that functions refer to, layers included."""
        entries = [entry for document in self.documents() for entry in (document, *document["versions"].values())]
        layers = {layer["_Code"] for entry in entries for layer in entry["configuration"].get("Layers", [])}
        return layers | {entry["code"] for entry in entries}

    def resolve(self, identifier: str, qualifier: str | None = None) -> Target:
        """Return what a name and a qualifier stand for; an alias with weights chooses at random.

        Raises:
            ServiceError: No such function, version or alias.
        """
        name, qualifier = self.identify(identifier, qualifier)
        found = self._resolved.get((name, qualifier))
        if found is None:
            with self.lock:
                found = self._resolve(name, qualifier)
                self._resolved[name, qualifier] = found
        target, weights = found
        if weights:
            draw = random.random()
            for version, weight in weights.items():
                if draw < weight:
                    return Target(self._resolve(name, version)[0].version, target.invoked_arn, qualifier, target.reserved_concurrency)
                draw -= weight
        return target

    def policy_text(self, name: str, qualifier: str | None) -> str | None:
        """Return the resource policy (JSON) of a function, or of one of its versions and aliases; None when it has none.

        Raises:
            ServiceError: No such function.
        """
        found = self._policies.get((name, qualifier))
        if found is None:
            with self.lock:
                policy = self.get(name, qualifier)["policies"].get(qualifier or "")
                found = (None if policy is None else json.dumps({"Statement": policy["statements"]}),)
                self._policies[name, qualifier] = found
        return found[0]

    def version_document(self, document: Document, qualifier: str | None) -> Document:
        """Return the part of a function's document (``configuration``, ``code``) that a version number stands for.

        Raises:
            ServiceError: No such version.
        """
        if qualifier in (None, LATEST):
            return document
        found: Document | None = document["versions"].get(qualifier)
        if found is None:
            raise ServiceError(
                "ResourceNotFoundException", f"Function not found: {self.arn(document['configuration']['FunctionName'], qualifier)}"
            )
        return found

    def _resolve(self, name: str, qualifier: str | None) -> tuple[Target, dict[str, float]]:
        document = self.get(name, qualifier)
        version, weights = qualifier, {}
        alias = document["aliases"].get(qualifier) if qualifier else None
        if alias is not None:
            version, weights = alias["FunctionVersion"], alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
        entry = self.version_document(document, version)
        version = version or LATEST
        resolved = FunctionVersion(name, version, self.arn(name, version), entry["configuration"], entry["code"])
        return Target(resolved, self.arn(name, qualifier), qualifier, document.get("concurrency")), weights

    def _forget(self, name: str) -> None:
        for known in (self._resolved, self._policies):
            for key in [key for key in list(known) if key[0] == name]:
                known.pop(key, None)
