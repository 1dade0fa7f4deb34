"""AWS::Logs."""

from __future__ import annotations

from typing import Any, ClassVar

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, changed, tag_changes, tag_dictionary
from localcloud.cloudformation.schema import INTEGER, STRING, TAG_LIST, Object

Json = Any


class LogGroup(Provider):
    """AWS::Logs::LogGroup."""

    type: ClassVar[str] = "AWS::Logs::LogGroup"
    schema: ClassVar[Object] = Object({"KmsKeyId": STRING, "LogGroupName": STRING, "RetentionInDays": INTEGER, "Tags": TAG_LIST})
    replaced_by: ClassVar[frozenset[str]] = frozenset(("LogGroupName",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn",))
    name: ClassVar[NameRule] = NameRule("LogGroupName", 512)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a log group of this name."""
        groups = context.clients("logs").describe_log_groups(logGroupNamePrefix=name, limit=1)["logGroups"]
        # Groups come in the order of their names, so that the name itself is first.
        return bool(groups) and groups[0]["logGroupName"] == name

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the log group."""
        request: dict[str, Json] = {"logGroupName": name}
        if properties.get("KmsKeyId"):
            request["kmsKeyId"] = properties["KmsKeyId"]
        if properties.get("Tags"):
            request["tags"] = tag_dictionary(properties["Tags"])
        context.clients("logs").create_log_group(**request)
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Set the retention."""
        if properties.get("RetentionInDays"):
            context.clients("logs").put_retention_policy(logGroupName=physical_id, retentionInDays=properties["RetentionInDays"])

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Set what differs."""
        client = context.clients("logs")
        if changed(old, new, "RetentionInDays"):
            if new.get("RetentionInDays"):
                self.settle(context, physical_id, new)
            else:
                client.delete_retention_policy(logGroupName=physical_id)
        if changed(old, new, "KmsKeyId"):
            if new.get("KmsKeyId"):
                client.associate_kms_key(logGroupName=physical_id, kmsKeyId=new["KmsKeyId"])
            else:
                client.disassociate_kms_key(logGroupName=physical_id)
        to_set, to_remove = tag_changes(old, new)
        arn = context.place.arn("logs", f"log-group:{physical_id}")
        if to_set:
            client.tag_resource(resourceArn=arn, tags=to_set)
        if to_remove:
            client.untag_resource(resourceArn=arn, tagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN, which ends with ``:*`` as CloudFormation's does."""
        return {"Arn": context.place.arn("logs", f"log-group:{physical_id}:*")}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the log group."""
        context.clients("logs").delete_log_group(logGroupName=physical_id)
