"""AWS::SSM."""

from __future__ import annotations

from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle, tag_changes, tag_list
from localcloud.cloudformation.schema import STRING, MapOf, Object, one_of

Json = Any

_PASSED_ON = ("AllowedPattern", "DataType", "Description", "Tier", "Type", "Value")


class Parameter(Provider):
    """AWS::SSM::Parameter."""

    type: ClassVar[str] = "AWS::SSM::Parameter"
    schema: ClassVar[Object] = Object(
        {
            "AllowedPattern": STRING,
            "DataType": one_of("text", "aws:ec2:image"),
            "Description": STRING,
            "Name": STRING,
            "Tags": MapOf(STRING),
            "Tier": one_of("Standard", "Advanced", "Intelligent-Tiering"),
            "Type": one_of("String", "StringList"),
            "Value": STRING,
        },
        required=("Value", "Type"),
    )
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Name",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Type", "Value"))
    name: ClassVar[NameRule] = NameRule("Name", 1011)
    tags: ClassVar[TagStyle | None] = TagStyle.MAP

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a parameter of this name."""
        try:
            context.clients("ssm").get_parameter(Name=name)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ParameterNotFound":
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Put the parameter."""
        request = {key: properties[key] for key in _PASSED_ON if key in properties}
        tags = tag_list(properties.get("Tags") or {})
        context.clients("ssm").put_parameter(Name=name, **request, **({"Tags": tags} if tags else {}))
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Put its next version."""
        client = context.clients("ssm")
        if any(old.get(key) != new.get(key) for key in _PASSED_ON):
            request = {key: new[key] for key in _PASSED_ON if key in new}
            client.put_parameter(Name=physical_id, Overwrite=True, **{"Description": ""} | request)
        to_set, to_remove = tag_changes(old, new)
        if to_set:
            client.add_tags_to_resource(ResourceType="Parameter", ResourceId=physical_id, Tags=tag_list(to_set))
        if to_remove:
            client.remove_tags_from_resource(ResourceType="Parameter", ResourceId=physical_id, TagKeys=to_remove)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return type and value."""
        return {"Type": properties["Type"], "Value": properties["Value"]}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the parameter."""
        context.clients("ssm").delete_parameter(Name=physical_id)
