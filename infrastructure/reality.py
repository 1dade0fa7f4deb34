"""Drift that CloudFormation does not look for, found by asking the services: what an endpoint serves, which code a function has, who gave a role more policies.

CloudFormation has no drift detection for SageMaker's types, does not compare a function's code, and compares only properties that a template sets
(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-stack-drift.html).
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.drift import Difference, Drift, DriftStatus, ResourceDrift
from infrastructure.templates import Template
from lambdas.deploy_inference_workflow.retirement import is_gone
from lambdas.deploy_inference_workflow.stacks import StackState

_DIGEST = re.compile(r"/(?P<digest>[0-9a-f]{64})\.zip$")
_MANAGED_POLICY = "AWS::IAM::ManagedPolicy"

Json = Any


class Reality:
    """Looks at what a stack's resources are. `session` is a boto3 session, `state` the stack."""

    def __init__(self, session: Any, state: StackState) -> None:
        self._session = session
        self._state = state
        self._checks: Mapping[str, Callable[[str, str], Iterator[Difference]]] = {
            "AWS::IAM::Role": self._role,
            "AWS::Lambda::Function": self._function,
            "AWS::SageMaker::Endpoint": self._endpoint,
            "AWS::SageMaker::EndpointConfig": self._endpoint_config,
            "AWS::SageMaker::Model": self._model,
        }
        self._template = Template({"Resources": {}})
        self._physical: dict[str, str] = {}
        self._types: dict[str, str] = {}

    def added_to(self, drift: Drift) -> Drift:
        """Returns what CloudFormation found together with what is found here; what cannot be looked at is a reason for the drift not to be known."""
        try:
            found, reasons = self._look(drift)
        except ClientError as error:
            found, reasons = [], [_refused(error)]
        by_name = {item.logical_id: item for item in self._without_own_policies(drift.resources)}
        for item in found:
            known = by_name.get(item.logical_id)
            if known is None or known.status == "DELETED":
                by_name.setdefault(item.logical_id, item)
                continue
            paths = {difference.path for difference in known.differences}
            new = tuple(difference for difference in item.differences if difference.path not in paths)
            by_name[item.logical_id] = replace(known, differences=known.differences + new)
        resources = tuple(by_name.values())
        reason = "; ".join(text for text in (drift.reason, *reasons) if text) or None
        if resources:
            return replace(
                drift, status=DriftStatus.DRIFTED, resources=resources, checked=max(drift.checked, len(resources)), reason=reason
            )
        if reasons or drift.status is DriftStatus.UNKNOWN:
            return replace(drift, status=DriftStatus.UNKNOWN, resources=(), reason=reason)
        return replace(drift, status=DriftStatus.IN_SYNC, resources=(), reason=reason)

    def _look(self, drift: Drift) -> tuple[list[ResourceDrift], list[str]]:
        client = self._session.client("cloudformation")
        body = client.get_template(StackName=self._state.stack_id)["TemplateBody"]
        self._template = Template.parse(body) if isinstance(body, str) else Template(body)
        for page in client.get_paginator("list_stack_resources").paginate(StackName=self._state.stack_id):
            for item in page["StackResourceSummaries"]:
                if item["ResourceStatus"] != "DELETE_COMPLETE" and item.get("PhysicalResourceId"):
                    self._physical[item["LogicalResourceId"]] = item["PhysicalResourceId"]
                    self._types[item["LogicalResourceId"]] = item["ResourceType"]
        gone = {item.logical_id for item in drift.resources if item.status == "DELETED"}
        found: list[ResourceDrift] = []
        reasons: list[str] = []
        for name, kind in self._types.items():
            check = self._checks.get(kind)
            if check is None or name in gone or name not in self._template.resources:
                continue
            try:
                differences = tuple(check(name, self._physical[name]))
            except ClientError as error:
                if is_gone(error) or error.response["Error"]["Code"] == "NoSuchEntity":
                    found.append(ResourceDrift(name, kind, self._physical[name], "DELETED", ()))
                else:
                    reasons.append(f"{name}: {_refused(error)}")
                continue
            if differences:
                found.append(ResourceDrift(name, kind, self._physical[name], "MODIFIED", differences))
        return found, reasons

    def _endpoint(self, name: str, physical_id: str) -> Iterator[Difference]:
        serves = self._session.client("sagemaker").describe_endpoint(EndpointName=_last(physical_id))["EndpointConfigName"]
        config = next((item for item, kind in self._types.items() if kind == "AWS::SageMaker::EndpointConfig"), None)
        # ARNs are in lower case, names are not.
        if config is not None and _last(self._physical[config]).lower() != serves.lower():
            yield Difference("/EndpointConfigName", "NOT_EQUAL", _last(self._physical[config]), serves)

    def _endpoint_config(self, name: str, physical_id: str) -> Iterator[Difference]:
        # It cannot be changed, only deleted.
        self._session.client("sagemaker").describe_endpoint_config(EndpointConfigName=_last(physical_id))
        return iter(())

    def _model(self, name: str, physical_id: str) -> Iterator[Difference]:
        self._session.client("sagemaker").describe_model(ModelName=_last(physical_id))
        return iter(())

    def _function(self, name: str, physical_id: str) -> Iterator[Difference]:
        key = self._template.resources[name].properties.get("Code", {}).get("S3Key")
        parameter = key.get("Ref") if isinstance(key, dict) else None
        match = _DIGEST.search(self._state.parameters.get(str(parameter), ""))
        if match is None:
            return
        # The key has the digest of the zip, and so has the function's configuration.
        expected = base64.b64encode(bytes.fromhex(match["digest"])).decode()
        actual = self._session.client("lambda").get_function_configuration(FunctionName=physical_id)["CodeSha256"]
        if actual != expected:
            yield Difference("/Code", "NOT_EQUAL", f"SHA-256 {expected}", f"SHA-256 {actual}")

    def _role(self, name: str, physical_id: str) -> Iterator[Difference]:
        iam, properties = self._session.client("iam"), self._template.resources[name].properties
        named = {item for item in properties.get("ManagedPolicyArns") or () if isinstance(item, str)}
        for page in iam.get_paginator("list_attached_role_policies").paginate(RoleName=physical_id):
            for policy in page["AttachedPolicies"]:
                if policy["PolicyArn"] not in named | self._own_policies():
                    yield Difference("/ManagedPolicyArns", "ADD", None, policy["PolicyArn"])
        inline = {item.get("PolicyName") for item in properties.get("Policies") or () if isinstance(item, dict)}
        conditional = any("Fn::If" in item for item in properties.get("Policies") or () if isinstance(item, dict))
        for page in iam.get_paginator("list_role_policies").paginate(RoleName=physical_id):
            for policy_name in page["PolicyNames"]:
                if policy_name not in inline and not conditional:
                    yield Difference("/Policies", "ADD", None, policy_name)

    def _own_policies(self) -> set[str]:
        return {self._physical[name] for name, kind in self._types.items() if kind == _MANAGED_POLICY}

    def _without_own_policies(self, resources: tuple[ResourceDrift, ...]) -> Iterator[ResourceDrift]:
        """Leaves out that a role has a policy which the stack itself attaches, from the policy's side."""
        own = self._own_policies()
        for item in resources:
            differences = tuple(
                found for found in item.differences if not (found.path.startswith("/ManagedPolicyArns") and found.actual in own)
            )
            if item.status != "MODIFIED" or differences:
                yield replace(item, differences=differences)


def _last(physical_id: str) -> str:
    return physical_id.rpartition("/")[2]


def _refused(error: ClientError) -> str:
    details = error.response["Error"]
    return f"{error.operation_name} was refused: {details['Code']}: {details.get('Message', '')}"
