"""AWS::CodeConnections, also by its old name."""

from __future__ import annotations

from typing import Any, ClassVar

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, tag_changes, tag_list
from localcloud.cloudformation.schema import STRING, TAG_LIST, Object
from localcloud.codeconnections.regions import WITHOUT_CODECONNECTIONS

Json = Any


class Connection(Provider):
    """AWS::CodeConnections::Connection. It stays PENDING until a person authorizes it, as on AWS."""

    type: ClassVar[str] = "AWS::CodeConnections::Connection"
    #: The service that makes it, by botocore's name.
    service: ClassVar[str] = "codeconnections"
    schema: ClassVar[Object] = Object(
        {"ConnectionName": STRING, "HostArn": STRING, "ProviderType": STRING, "Tags": TAG_LIST}, required=("ConnectionName",)
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("ConnectionName", "HostArn", "ProviderType"))
    attributes: ClassVar[frozenset[str]] = frozenset(("ConnectionArn", "ConnectionStatus", "OwnerAccountId"))
    name: ClassVar[NameRule] = NameRule("ConnectionName", 32, unique=False)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST
    not_in: ClassVar[frozenset[str]] = WITHOUT_CODECONNECTIONS

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """The service makes the ARN up."""
        return None

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the connection."""
        request = {"ConnectionName": name} | {key: properties[key] for key in ("HostArn", "ProviderType", "Tags") if properties.get(key)}
        return str(context.clients(self.service).create_connection(**request)["ConnectionArn"])

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Change the tags."""
        client = context.clients(self.service)
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_resource(ResourceArn=physical_id, Tags=tag_list(to_set))
        if to_remove:
            client.untag_resource(ResourceArn=physical_id, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return ARN, status and account."""
        found = context.clients(self.service).get_connection(ConnectionArn=physical_id)["Connection"]
        return {name: found[name] for name in self.attributes}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the connection; its repositories stay."""
        context.clients(self.service).delete_connection(ConnectionArn=physical_id)


class StarConnection(Connection):
    """AWS::CodeStarConnections::Connection."""

    type: ClassVar[str] = "AWS::CodeStarConnections::Connection"
    service: ClassVar[str] = "codestar-connections"
