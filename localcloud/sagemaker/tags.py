"""Tags of SageMaker resources (AddTags, ListTags, DeleteTags), by ARN."""

from __future__ import annotations

from typing import Any

from localcloud.database import Table
from localcloud.errors import ServiceError

Tag = dict[str, str]


class Tags:
    """The tags of every resource that exists: a resource without tags has an empty list, one that does not exist has none."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def create(self, arn: str, tags: list[Tag] | None) -> None:
        """Record a new resource with its tags.

        Raises:
            ServiceError: A key comes twice.
        """
        check_tags(tags)
        self._table.put(arn, {"Tags": tags or []})

    def delete(self, arn: str) -> None:
        """Forget a resource."""
        self._table.delete(arn)

    def add(self, arn: str, tags: list[Tag]) -> list[Tag]:
        """Add or replace tags; return all of them.

        Raises:
            ServiceError: There is no such resource, or a key comes twice.
        """
        check_tags(tags)
        with self._table.lock():
            merged = {tag["Key"]: tag for tag in [*self.list(arn), *tags]}
            self._table.put(arn, {"Tags": list(merged.values())})
            return list(merged.values())

    def remove(self, arn: str, keys: list[str]) -> None:
        """Remove tags by key; keys that are not there do not matter.

        Raises:
            ServiceError: There is no such resource.
        """
        with self._table.lock():
            self._table.put(arn, {"Tags": [tag for tag in self.list(arn) if tag["Key"] not in keys]})

    def list(self, arn: str) -> list[Tag]:
        """Return a resource's tags.

        Raises:
            ServiceError: There is no such resource.
        """
        found = self._table.get(arn)
        if found is None:
            raise ServiceError("ResourceNotFound", f"Resource {arn} does not exist")
        tags: list[Tag] = found["Tags"]
        return tags

    def mapping(self, arn: str) -> dict[str, Any]:
        """Return a resource's tags as SageMaker's events have them: key → value; empty when there is no such resource."""
        found = self._table.get(arn)
        return {tag["Key"]: tag["Value"] for tag in found["Tags"]} if found else {}


def check_tags(tags: list[Tag] | None) -> None:
    """Refuse tags in which a key comes twice, or that use AWS's own prefix.

    Raises:
        ServiceError: What is wrong with them.
    """
    keys = [tag["Key"] for tag in tags or []]
    if len(set(keys)) < len(keys):
        raise ServiceError("ValidationException", "Duplicate tag keys found. Tag keys must be unique.")
    if any(key.lower().startswith("aws:") for key in keys):
        raise ServiceError("ValidationException", "Tag keys that start with 'aws:' are reserved for AWS use.")
