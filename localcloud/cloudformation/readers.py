"""What resources really are: their properties, read back through the region's APIs in the words of a template. Drift is found by comparing these.

A type without a reader is not compared, as CloudFormation does with types that have no drift detection; a property that a reader leaves out is not compared,
as with those that AWS's API does not give back (a function's code).
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

Json = Any
Properties = dict[str, Json]
Clients = Callable[[str], Any]
#: Clients, physical id, the properties that the template set → the actual ones; None when the resource is gone.
Reader = Callable[[Clients, str, Properties], Properties | None]

#: Error codes for "it is not there".
_GONE = frozenset(
    ("NoSuchEntity", "NoSuchBucket", "NoSuchBucketPolicy", "404", "ResourceNotFound", "ResourceNotFoundException", "StateMachineDoesNotExist",
     "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException")
)  # fmt: skip


def read(type_name: str, clients: Clients, physical_id: str, properties: Properties) -> Properties | None:
    """Return a resource's actual properties, None when it is gone.

    Raises:
        KeyError: The type has no reader.
        ClientError: It cannot be read.
    """
    reader = READERS[type_name]
    try:
        return reader(clients, physical_id, properties)
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return None
        raise


def _alarm(clients: Clients, physical_id: str, properties: Properties) -> Properties | None:
    found = clients("cloudwatch").describe_alarms(AlarmNames=[physical_id])["MetricAlarms"]
    return dict(found[0]) if found else None


def _rule(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    bus, _, name = physical_id.rpartition("|")
    where = {"EventBusName": bus or "default"}
    rule = clients("events").describe_rule(Name=name, **where)
    targets = clients("events").list_targets_by_rule(Rule=name, **where)["Targets"]
    actual = {key: rule[key] for key in ("Description", "RoleArn", "ScheduleExpression", "State") if key in rule}
    if "EventPattern" in rule:
        actual["EventPattern"] = rule["EventPattern"]
    order = {target["Id"]: number for number, target in enumerate(properties.get("Targets") or ())}
    # In the template's order, what was added by hand last: a target is its id.
    return actual | {"Targets": sorted(targets, key=lambda target: (order.get(target["Id"], len(order)), target["Id"]))}


def _role(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    iam = clients("iam")
    role = iam.get_role(RoleName=physical_id)["Role"]
    actual: Properties = {"AssumeRolePolicyDocument": role["AssumeRolePolicyDocument"]}
    actual |= {key: role[key] for key in ("Description", "MaxSessionDuration", "Path") if key in role}
    if "PermissionsBoundary" in role:
        actual["PermissionsBoundary"] = role["PermissionsBoundary"]["PermissionsBoundaryArn"]
    pages = iam.get_paginator("list_role_policies").paginate(RoleName=physical_id)
    names = [name for page in pages for name in page["PolicyNames"]]
    order = {item["PolicyName"]: number for number, item in enumerate(properties.get("Policies") or ())}
    actual["Policies"] = [
        {"PolicyName": name, "PolicyDocument": iam.get_role_policy(RoleName=physical_id, PolicyName=name)["PolicyDocument"]}
        for name in sorted(names, key=lambda name: (order.get(name, len(order)), name))
    ]
    pages = iam.get_paginator("list_attached_role_policies").paginate(RoleName=physical_id)
    attached = [item["PolicyArn"] for page in pages for item in page["AttachedPolicies"]]
    wanted = properties.get("ManagedPolicyArns") or []
    actual["ManagedPolicyArns"] = [arn for arn in wanted if arn in attached] + sorted(set(attached) - set(wanted))
    return actual


def _managed_policy(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    iam = clients("iam")
    version = iam.get_policy(PolicyArn=physical_id)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=physical_id, VersionId=version)["PolicyVersion"]["Document"]
    return {"PolicyDocument": document}


def _function(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    found = clients("lambda").get_function_configuration(FunctionName=physical_id)
    same = ("Architectures", "Description", "Handler", "MemorySize", "Role", "Runtime", "Timeout", "TracingConfig", "DeadLetterConfig")
    actual = {key: found[key] for key in same if key in found}
    if found.get("Environment"):
        actual["Environment"] = {"Variables": found["Environment"].get("Variables", {})}
    return actual


def _bucket(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    s3 = clients("s3")
    s3.head_bucket(Bucket=physical_id)
    actual: Properties = {}
    status = s3.get_bucket_versioning(Bucket=physical_id).get("Status")
    if status:
        actual["VersioningConfiguration"] = {"Status": status}
    try:
        actual["PublicAccessBlockConfiguration"] = s3.get_public_access_block(Bucket=physical_id)["PublicAccessBlockConfiguration"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchPublicAccessBlockConfiguration":
            raise
    return actual


def _bucket_policy(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    return {"PolicyDocument": clients("s3").get_bucket_policy(Bucket=properties["Bucket"])["Policy"]}


def _queue_policy(clients: Clients, physical_id: str, properties: Properties) -> Properties | None:
    sqs = clients("sqs")
    policies = [
        sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"]).get("Attributes", {}).get("Policy")
        for queue in properties["Queues"]
    ]
    if not any(policies):
        return None
    # One that differs is as bad as all; the first such is shown.
    wanted = _comparable(properties["PolicyDocument"])
    return {"PolicyDocument": next((policy for policy in policies if _comparable(policy) != wanted), policies[0]) or {}}


def _topic_policy(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    policies = [clients("sns").get_topic_attributes(TopicArn=topic)["Attributes"].get("Policy") for topic in properties["Topics"]]
    wanted = _comparable(properties["PolicyDocument"])
    return {"PolicyDocument": next((policy for policy in policies if _comparable(policy) != wanted), policies[0]) or {}}


def _alias(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    found = clients("stepfunctions").describe_state_machine_alias(stateMachineAliasArn=physical_id)
    actual: Properties = {
        "RoutingConfiguration": [
            {"StateMachineVersionArn": route["stateMachineVersionArn"], "Weight": route["weight"]}
            for route in found["routingConfiguration"]
        ]
    }
    return actual | ({"Description": found["description"]} if found.get("description") else {})


def _state_machine(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    found = clients("stepfunctions").describe_state_machine(stateMachineArn=physical_id)
    return {"RoleArn": found["roleArn"], "StateMachineName": found["name"], "StateMachineType": found["type"]}


READERS: Mapping[str, Reader] = {
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::Events::Rule": _rule,
    "AWS::IAM::ManagedPolicy": _managed_policy,
    "AWS::IAM::Role": _role,
    "AWS::Lambda::Function": _function,
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SNS::TopicPolicy": _topic_policy,
    "AWS::SQS::QueuePolicy": _queue_policy,
    "AWS::StepFunctions::StateMachine": _state_machine,
    "AWS::StepFunctions::StateMachineAlias": _alias,
}
#: Properties that a reader of the type gives whenever they have a value, so that one that is missing was removed.
READ: Mapping[str, frozenset[str]] = {
    "AWS::CloudWatch::Alarm": frozenset(
        ("ActionsEnabled", "AlarmActions", "AlarmDescription", "ComparisonOperator", "DatapointsToAlarm", "Dimensions", "EvaluationPeriods",
         "ExtendedStatistic", "InsufficientDataActions", "MetricName", "Namespace", "OKActions", "Period", "Statistic", "Threshold",
         "TreatMissingData", "Unit")
    ),
    "AWS::Events::Rule": frozenset(("Description", "EventPattern", "RoleArn", "ScheduleExpression", "State", "Targets")),
    "AWS::IAM::ManagedPolicy": frozenset(("PolicyDocument",)),
    "AWS::IAM::Role": frozenset(
        ("AssumeRolePolicyDocument", "Description", "ManagedPolicyArns", "MaxSessionDuration", "PermissionsBoundary", "Policies")
    ),
    "AWS::Lambda::Function": frozenset(
        ("Architectures", "DeadLetterConfig", "Description", "Environment", "Handler", "MemorySize", "Role", "Runtime", "Timeout", "TracingConfig")
    ),
    "AWS::S3::Bucket": frozenset(("PublicAccessBlockConfiguration", "VersioningConfiguration")),
    "AWS::S3::BucketPolicy": frozenset(("PolicyDocument",)),
    "AWS::SNS::TopicPolicy": frozenset(("PolicyDocument",)),
    "AWS::SQS::QueuePolicy": frozenset(("PolicyDocument",)),
    "AWS::StepFunctions::StateMachine": frozenset(("RoleArn", "StateMachineName", "StateMachineType")),
    "AWS::StepFunctions::StateMachineAlias": frozenset(("Description", "RoutingConfiguration")),
}  # fmt: skip


def comparable(type_name: str, properties: Mapping[str, Json]) -> Properties:
    """Return those properties that are compared, in one form: JSON in a text as what it says."""
    return {key: _comparable(value) for key, value in sorted(properties.items()) if key in READ[type_name]}


def _comparable(value: Json) -> Json:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", "%"):
        try:
            return _comparable(json.loads(urllib.parse.unquote(value) if value.startswith("%") else value))
        except ValueError:
            return value
    if isinstance(value, Mapping):
        return {str(key): _comparable(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
