"""AWS::CloudFormation: nested stacks and what holds their place."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from botocore.exceptions import ClientError

from localcloud.cloudformation.errors import ResourceFailure
from localcloud.cloudformation.functions import text_of
from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle
from localcloud.cloudformation.schema import INTEGER, JSON, STRING, STRINGS, TAG_LIST, MapOf, Object
from localcloud.errors import ServiceError

Json = Any

_HOURS = 3600.0
#: Where a nested stack's template is kept; no name that Fn::GetAtt can ask for.
_TEMPLATE = "(template)"
#: A nested stack is given whatever its parent was given: the parent's template says what is in it.
_CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]


class ParentStacks(Protocol):
    """What a nested stack needs of CloudFormation beyond its API."""

    def adopt(self, child_id: str, parent_id: str) -> None:
        """Note that a stack is another's resource."""

    def template_of(self, child_id: str) -> str:
        """Return a stack's template as text."""

    def put_back(self, child_id: str, template: str, request: dict[str, Json]) -> None:
        """Begin to update a stack to a template that is no longer where its URL says.

        Raises:
            ServiceError: As UpdateStack does.
        """


class NestedStack(Provider):
    """AWS::CloudFormation::Stack.

    Args:
        parent: What CloudFormation's API does not offer.
    """

    type: ClassVar[str] = "AWS::CloudFormation::Stack"
    schema: ClassVar[Object] = Object(
        {"NotificationARNs": STRINGS, "Parameters": MapOf(JSON), "Tags": TAG_LIST, "TemplateURL": STRING, "TimeoutInMinutes": INTEGER},
        required=("TemplateURL",),
    )
    attributes: ClassVar[frozenset[str]] = frozenset(("Outputs.*",))
    name: ClassVar[NameRule] = NameRule(None, 128)
    tags: ClassVar[TagStyle | None] = TagStyle.LIST
    always_updated: ClassVar[bool] = True

    def __init__(self, parent: ParentStacks) -> None:
        self._parent = parent

    def identify(self, context: Context, name: str, properties: Properties) -> str | None:
        """Return the id of the stack of this name, if there is one."""
        try:
            return str(context.clients("cloudformation").describe_stacks(StackName=name)["Stacks"][0]["StackId"])
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":
                return None
            raise

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Begin to create the stack. What fails stays for the parent's rollback, and for people to look at until then."""
        request = self._request(properties) | {"OnFailure": "DO_NOTHING"}
        if "TimeoutInMinutes" in properties:
            request["TimeoutInMinutes"] = properties["TimeoutInMinutes"]
        stack_id = str(context.clients("cloudformation").create_stack(StackName=name, **request)["StackId"])
        self._parent.adopt(stack_id, context.stack_id)
        return stack_id

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Wait until it is there."""
        stack = self._settled(context, physical_id)
        if stack["StackStatus"] != "CREATE_COMPLETE":
            raise ResourceFailure(f"Embedded stack {physical_id} was not successfully created: {stack.get('StackStatusReason', '')}")

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Update the stack and wait until it is as wanted."""
        self._settled(context, physical_id)
        try:
            if context.restored:
                # What is at the URL now is what failed.
                request = {key: value for key, value in self._request(new).items() if key != "TemplateURL"}
                self._parent.put_back(physical_id, context.restored[_TEMPLATE], request)
            else:
                context.clients("cloudformation").update_stack(StackName=physical_id, **self._request(new))
        except (ClientError, ServiceError) as error:
            if "No updates are to be performed" in str(error):
                return
            raise
        stack = self._settled(context, physical_id)
        if stack["StackStatus"] != "UPDATE_COMPLETE":
            raise ResourceFailure(
                f"Embedded stack {physical_id} was not successfully updated. Currently in {stack['StackStatus']} with reason: "
                f"{stack.get('StackStatusReason', '')}"
            )

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the stack's outputs, and its template, with which a rollback puts it back."""
        stack = self._describe(context, physical_id)
        template = self._parent.template_of(physical_id)
        return {_TEMPLATE: template} | {f"Outputs.{output['OutputKey']}": output["OutputValue"] for output in stack.get("Outputs", [])}

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the stack and wait until it is gone."""
        self._settled(context, physical_id)
        context.clients("cloudformation").delete_stack(StackName=physical_id)
        stack = self._settled(context, physical_id)
        if stack["StackStatus"] != "DELETE_COMPLETE":
            raise ResourceFailure(f"Embedded stack {physical_id} was not successfully deleted: {stack.get('StackStatusReason', '')}")

    @staticmethod
    def _request(properties: Properties) -> dict[str, Json]:
        parameters = {
            key: ",".join(map(text_of, value)) if isinstance(value, list) else text_of(value)
            for key, value in (properties.get("Parameters") or {}).items()
        }
        return {
            "TemplateURL": properties["TemplateURL"],
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Tags": properties.get("Tags") or [],
            "NotificationARNs": properties.get("NotificationARNs") or [],
            "Capabilities": _CAPABILITIES,
        }

    @staticmethod
    def _describe(context: Context, stack_id: str) -> dict[str, Json]:
        stack: dict[str, Json] = context.clients("cloudformation").describe_stacks(StackName=stack_id)["Stacks"][0]
        return stack

    def _settled(self, context: Context, stack_id: str) -> dict[str, Json]:
        def settled() -> dict[str, Json] | None:
            stack = self._describe(context, stack_id)
            return None if stack["StackStatus"].endswith("_IN_PROGRESS") else stack

        found: dict[str, Json] = context.wait_for(settled, seconds=_HOURS, what=f"embedded stack {stack_id}")
        return found


class WaitConditionHandle(Provider):
    """AWS::CloudFormation::WaitConditionHandle: a resource that is nothing. Without wait conditions there is nobody to signal."""

    type: ClassVar[str] = "AWS::CloudFormation::WaitConditionHandle"
    schema: ClassVar[Object] = Object({})

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create nothing."""
        return name

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete nothing."""
