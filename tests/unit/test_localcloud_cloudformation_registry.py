"""Resource types against AWS's own schemas of them (cfn-lint carries the CloudFormation registry)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from localcloud.cloudformation import registry
from localcloud.cloudformation.provider import Provider, generated_name
from localcloud.cloudformation.providers.cloudformation import NestedStack
from localcloud.cloudformation.schema import ListOf, MapOf, Object, OneOf, Scalar, Type

Json = Any

PROVIDERS: list[Provider] = [*(provider() for provider in registry._PROVIDERS), NestedStack(Mock())]

#: Where a type here needs a new physical resource and AWS does not, or the other way round, and why.
REPLACEMENT_DIFFERENCES: dict[str, set[str]] = {
    # AWS's schema leaves these out; its documentation says "Update requires: Replacement", and the service has no way to change them.
    "AWS::KMS::Key": {"KeySpec", "KeyUsage", "MultiRegion"},
    # Replaced on AWS only under a condition.
    "AWS::Events::Rule": {"EventBusName"},
    # No operation of localcloud's EventBridge changes it.
    "AWS::Events::EventBus": {"Description"},
}
#: What must be there here and need not on AWS, and why.
STRICTER: dict[str, str] = {
    # AWS's schema marks neither; its documentation says that both are required.
    "AWS::Events::Rule": "/Tags/* requires [], not ['Key', 'Value']",
    # AWS's schema marks none; without it there is nothing to make.
    "AWS::IAM::OIDCProvider": " requires [], not ['Url']",
    # On AWS the routing may come from DeploymentPreference, which is not supported here.
    "AWS::StepFunctions::StateMachineAlias": " requires [], not ['RoutingConfiguration']",
}


def aws_schema(provider: Provider) -> dict[str, Json]:
    schema: dict[str, Json] = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", provider.type).schema
    return schema


def named(provider: Provider) -> str:
    return provider.type


def problems(kind: Type, node: dict[str, Json], root: dict[str, Json], path: str) -> Iterator[str]:
    """Yield what a type here has that AWS's has not."""
    while "$ref" in node:
        found: Json = root
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    if kind is Scalar.JSON:
        return
    if isinstance(kind, Object):
        properties = node.get("properties")
        if properties is None:
            yield f"{path} is not an object"
            return
        for name, member in kind.fields.items():
            if name not in properties:
                yield f"{path}/{name} does not exist"
            else:
                yield from problems(member, properties[name], root, f"{path}/{name}")
        required = set(node.get("required", ()))
        if set(kind.required) != required & set(kind.fields):
            yield f"{path} requires {sorted(required & set(kind.fields))}, not {sorted(kind.required)}"
        missing = required - set(kind.fields)
        if missing:
            yield f"{path} lacks the required {sorted(missing)}"
    elif isinstance(kind, ListOf):
        if "items" not in node:
            yield f"{path} is not a list"
        else:
            yield from problems(kind.item, node["items"], root, f"{path}/*")
    elif isinstance(kind, MapOf):
        types = node.get("type")
        if "patternProperties" not in node and "object" not in (types if isinstance(types, list) else [types]):
            yield f"{path} is not a map"
    elif isinstance(kind, OneOf):
        if "enum" in node and not set(kind.values) <= set(node["enum"]):
            yield f"{path} knows no {sorted(set(kind.values) - set(node['enum']))}"
    else:
        wanted = {Scalar.STRING: "string", Scalar.INTEGER: "integer", Scalar.NUMBER: "number", Scalar.BOOLEAN: "boolean"}[kind]
        types = node.get("type")
        if types is not None and wanted not in (types if isinstance(types, list) else [types]):
            yield f"{path} is {types}, not {wanted}"


@pytest.mark.parametrize("provider", PROVIDERS, ids=named)
def test_properties_are_awss(provider: Provider) -> None:
    schema = aws_schema(provider)
    found = list(problems(provider.schema, schema, schema, ""))
    assert found == ([STRICTER[provider.type]] if provider.type in STRICTER else [])


@pytest.mark.parametrize("provider", PROVIDERS, ids=named)
def test_replacement_is_awss(provider: Provider) -> None:
    schema = aws_schema(provider)
    assert isinstance(provider.schema, Object)
    aws = {path.split("/")[2] for path in schema.get("createOnlyProperties", ())} & set(provider.schema.fields)
    assert provider.replaced_by ^ aws == REPLACEMENT_DIFFERENCES.get(provider.type, set())


@pytest.mark.parametrize("provider", PROVIDERS, ids=named)
def test_attributes_are_awss(provider: Provider) -> None:
    known = {str(name).replace("\\", "") for name in PROVIDER_SCHEMA_MANAGER.get_type_getatts(provider.type, "us-east-1")}
    assert {name for name in provider.attributes if name not in known} <= ({"Outputs.*"} if "Outputs..*" in known else set())


@pytest.mark.parametrize("provider", PROVIDERS, ids=named)
def test_what_takes_tags_on_aws_takes_the_stacks(provider: Provider) -> None:
    assert isinstance(provider.schema, Object)
    assert (provider.tags is not None) == ("Tags" in provider.schema.fields)


@pytest.mark.parametrize("provider", PROVIDERS, ids=named)
def test_names(provider: Provider) -> None:
    rule = provider.name
    assert isinstance(provider.schema, Object)
    assert rule.property is None or rule.property in provider.schema.fields
    name = generated_name("stack-" * 20 + "x", "Logical" * 36, rule, ".fifo")
    assert len(name) <= rule.longest
    assert name.endswith(".fifo")
    assert name.lower() == name or not rule.lower
    assert generated_name("s", "L", rule) != generated_name("s", "L", rule)
