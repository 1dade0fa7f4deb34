"""AWS::KMS."""

from __future__ import annotations

from typing import Any, ClassVar

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, changed, tag_changes
from localcloud.cloudformation.providers.policies import policy_text
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, JSON, STRING, TAG_LIST, Object

Json = Any


class Key(Provider):
    """AWS::KMS::Key."""

    type: ClassVar[str] = "AWS::KMS::Key"
    schema: ClassVar[Object] = Object(
        {
            "Description": STRING,
            "EnableKeyRotation": BOOLEAN,
            "Enabled": BOOLEAN,
            "KeyPolicy": JSON,
            "KeySpec": STRING,
            "KeyUsage": STRING,
            "MultiRegion": BOOLEAN,
            "PendingWindowInDays": INTEGER,
            "Tags": TAG_LIST,
        }
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("KeySpec", "KeyUsage", "MultiRegion"))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "KeyId"))
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """The service chooses a key's id."""
        return None

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the key."""
        request: dict[str, Json] = {
            key: properties[key] for key in ("Description", "KeySpec", "KeyUsage", "MultiRegion") if key in properties
        }
        if "KeyPolicy" in properties:
            request["Policy"] = policy_text(properties["KeyPolicy"])
        request["Tags"] = _tags({tag["Key"]: tag["Value"] for tag in properties.get("Tags") or []})
        return str(context.clients("kms").create_key(**request)["KeyMetadata"]["KeyId"])

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Set rotation and whether it is enabled."""
        client = context.clients("kms")
        if properties.get("EnableKeyRotation"):
            client.enable_key_rotation(KeyId=physical_id)
        if properties.get("Enabled") is False:
            client.disable_key(KeyId=physical_id)

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set what differs."""
        client = context.clients("kms")
        if changed(old, new, "Enabled"):
            (client.disable_key if new.get("Enabled") is False else client.enable_key)(KeyId=physical_id)
        if changed(old, new, "EnableKeyRotation"):
            (client.enable_key_rotation if new.get("EnableKeyRotation") else client.disable_key_rotation)(KeyId=physical_id)
        if changed(old, new, "Description"):
            client.update_key_description(KeyId=physical_id, Description=new.get("Description", ""))
        if changed(old, new, "KeyPolicy") and "KeyPolicy" in new:
            client.put_key_policy(KeyId=physical_id, PolicyName="default", Policy=policy_text(new["KeyPolicy"]))
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.tag_resource(KeyId=physical_id, Tags=_tags(to_set))
        if to_remove:
            client.untag_resource(KeyId=physical_id, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return ARN and id."""
        return {"Arn": context.place.arn("kms", f"key/{physical_id}"), "KeyId": physical_id}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Schedule the key's deletion."""
        client = context.clients("kms")
        if client.describe_key(KeyId=physical_id)["KeyMetadata"]["KeyState"] != "PendingDeletion":
            client.schedule_key_deletion(KeyId=physical_id, PendingWindowInDays=properties.get("PendingWindowInDays", 30))


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"TagKey": key, "TagValue": value} for key, value in sorted(tags.items())]


class Alias(Provider):
    """AWS::KMS::Alias."""

    type: ClassVar[str] = "AWS::KMS::Alias"
    schema: ClassVar[Object] = Object({"AliasName": STRING, "TargetKeyId": STRING}, required=("AliasName", "TargetKeyId"))
    replaced_by: ClassVar[frozenset[str]] = frozenset(("AliasName",))
    name: ClassVar[NameRule] = NameRule("AliasName", 256)

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is an alias of this name."""
        pages = context.clients("kms").get_paginator("list_aliases").paginate()
        return any(alias["AliasName"] == name for page in pages for alias in page["Aliases"])

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the alias."""
        context.clients("kms").create_alias(AliasName=name, TargetKeyId=properties["TargetKeyId"])
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Point it at another key."""
        context.clients("kms").update_alias(AliasName=physical_id, TargetKeyId=new["TargetKeyId"])

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the alias."""
        context.clients("kms").delete_alias(AliasName=physical_id)
