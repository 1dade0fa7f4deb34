"""What resources really are: their properties, read back through the region's APIs in the words of a template. Drift is found by comparing these.

A type without a reader is not compared, as CloudFormation does with types that have no drift detection; a property that a reader leaves out is not compared,
as with those that AWS's API does not give back (a function's code).
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from localcloud.cloudformation.providers.s3 import encryption_rule, lifecycle_rule, lifecycle_shown

Json = Any
Properties = dict[str, Json]
Clients = Callable[[str], Any]
#: Clients, physical id, the properties that the template set → the actual ones; None when the resource is gone.
Reader = Callable[[Clients, str, Properties], Properties | None]

#: Error codes for "it is not there".
_GONE = frozenset(
    ("NoSuchEntity", "NoSuchBucket", "NoSuchBucketPolicy", "404", "ResourceNotFound", "ResourceNotFoundException", "StateMachineDoesNotExist",
     "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException", "DashboardNotFoundError",
     "ResourceNotFoundFault")
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


def _inline_policy(clients: Clients, physical_id: str, properties: Properties) -> Properties | None:
    iam, name = clients("iam"), properties["PolicyName"]
    if not properties.get("Roles"):
        return dict(properties)  # only those of roles are looked at
    found: dict[str, Json] = {}
    for role in properties["Roles"]:
        with contextlib.suppress(iam.exceptions.NoSuchEntityException):
            found[role] = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    if not found:
        return None
    # One that differs is as bad as all; the first such is shown.
    wanted = _comparable(properties["PolicyDocument"])
    document = next((item for item in found.values() if _comparable(item) != wanted), next(iter(found.values())))
    return {"PolicyDocument": document, "Roles": list(found)}


def _managed_policy(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    iam = clients("iam")
    version = iam.get_policy(PolicyArn=physical_id)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=physical_id, VersionId=version)["PolicyVersion"]["Document"]
    pages = iam.get_paginator("list_entities_for_policy").paginate(PolicyArn=physical_id, EntityFilter="Role")
    roles = {item["RoleName"] for page in pages for item in page["PolicyRoles"]}
    # Further roles that have it are their own drift.
    return {"PolicyDocument": document, "Roles": [role for role in properties.get("Roles") or () if role in roles]}


def _function(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    found = clients("lambda").get_function_configuration(FunctionName=physical_id)
    same = ("Architectures", "Description", "Handler", "MemorySize", "Role", "Runtime", "Timeout", "TracingConfig", "DeadLetterConfig")
    actual = {key: found[key] for key in same if key in found}
    if found.get("Environment"):
        actual["Environment"] = {"Variables": found["Environment"].get("Variables", {})}
    return actual


def _permission(clients: Clients, physical_id: str, properties: Properties) -> Properties | None:
    policy = json.loads(clients("lambda").get_policy(FunctionName=properties["FunctionName"])["Policy"])
    statement = next((item for item in policy["Statement"] if item.get("Sid") == physical_id), None)
    if statement is None:
        return None
    actual: Properties = {"Action": statement["Action"]}
    principal = statement["Principal"]
    given = principal if isinstance(principal, str) else principal.get("Service") or principal.get("AWS")
    wanted = properties["Principal"]
    # An account's id becomes its root's ARN.
    actual["Principal"] = wanted if str(given).endswith(f":iam::{wanted}:root") else given
    conditions = {key.lower(): value for operator in statement.get("Condition", {}).values() for key, value in operator.items()}
    names = {"SourceAccount": "aws:sourceaccount", "SourceArn": "aws:sourcearn", "PrincipalOrgID": "aws:principalorgid"}
    return actual | {name: conditions[key] for name, key in names.items() if key in conditions}


def _invoke_config(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    found = clients("lambda").get_function_event_invoke_config(FunctionName=properties["FunctionName"], Qualifier=properties["Qualifier"])
    actual = {key: found[key] for key in ("MaximumEventAgeInSeconds", "MaximumRetryAttempts") if found.get(key) is not None}
    destinations = {key: value for key, value in (found.get("DestinationConfig") or {}).items() if value}
    return actual | ({"DestinationConfig": destinations} if destinations else {})


def _version(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    clients("lambda").get_function_configuration(FunctionName=physical_id)
    # It cannot be changed, only deleted.
    return {}


def _function_alias(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    function, _, name = physical_id.rpartition(":")
    found = clients("lambda").get_alias(FunctionName=function, Name=name)
    actual = {key: found[key] for key in ("Description", "FunctionVersion") if found.get(key)}
    weights = (found.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    if weights:
        items = [{"FunctionVersion": version, "FunctionWeight": weight} for version, weight in sorted(weights.items())]
        actual["RoutingConfig"] = {"AdditionalVersionWeights": items}
    return actual


def _log_group(clients: Clients, physical_id: str, properties: Properties) -> Properties | None:
    pages = clients("logs").get_paginator("describe_log_groups").paginate(logGroupNamePrefix=physical_id)
    group = next((item for page in pages for item in page["logGroups"] if item["logGroupName"] == physical_id), None)
    if group is None:
        return None
    names = {"RetentionInDays": "retentionInDays", "KmsKeyId": "kmsKeyId"}
    return {name: group[key] for name, key in names.items() if group.get(key)}


def _queue(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    found = clients("sqs").get_queue_attributes(QueueUrl=physical_id, AttributeNames=["All"])["Attributes"]
    actual: Properties = {}
    for name in READ["AWS::SQS::Queue"] & found.keys():
        value = found[name]
        # Attributes are texts.
        actual[name] = value == "true" if value in ("true", "false") else int(value) if value.isdecimal() else value
    if properties.get("RedrivePolicy") and "RedrivePolicy" in actual:
        redrive = json.loads(actual["RedrivePolicy"])
        redrive["maxReceiveCount"] = type(properties["RedrivePolicy"].get("maxReceiveCount", 0))(redrive["maxReceiveCount"])
        actual["RedrivePolicy"] = redrive
    return {name: value for name, value in actual.items() if value != ""}


def _topic(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    sns = clients("sns")
    found = sns.get_topic_attributes(TopicArn=physical_id)["Attributes"]
    actual = {key: found[key] for key in ("DisplayName", "KmsMasterKeyId") if found.get(key)}
    pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=physical_id)
    there = {(item["Protocol"], item["Endpoint"]) for page in pages for item in page["Subscriptions"]}
    # Other subscriptions are resources of their own, or those of people.
    actual["Subscription"] = [item for item in properties.get("Subscription") or () if (item["Protocol"], item["Endpoint"]) in there]
    return actual


def _subscription(clients: Clients, physical_id: str, properties: Properties) -> Properties | None:
    pages = clients("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=properties["TopicArn"])
    # One that waits for its confirmation has no ARN yet.
    there = {(item["Protocol"], item["Endpoint"]) for page in pages for item in page["Subscriptions"]}
    return {} if (properties["Protocol"], properties.get("Endpoint")) in there else None


def _dashboard(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    return {"DashboardBody": clients("cloudwatch").get_dashboard(DashboardName=physical_id)["DashboardBody"]}


def _bucket(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    s3 = clients("s3")
    s3.head_bucket(Bucket=physical_id)
    actual: Properties = {}
    status = s3.get_bucket_versioning(Bucket=physical_id).get("Status")
    if status:
        actual["VersioningConfiguration"] = {"Status": status}
    block = _configured(s3.get_public_access_block, physical_id, "NoSuchPublicAccessBlockConfiguration")
    if block:
        actual["PublicAccessBlockConfiguration"] = block["PublicAccessBlockConfiguration"]
    ownership = _configured(s3.get_bucket_ownership_controls, physical_id, "OwnershipControlsNotFoundError")
    if ownership:
        actual["OwnershipControls"] = {"Rules": ownership["OwnershipControls"]["Rules"]}
    encryption = _configured(s3.get_bucket_encryption, physical_id, "ServerSideEncryptionConfigurationNotFoundError")
    if encryption:
        wanted = (properties.get("BucketEncryption") or {}).get("ServerSideEncryptionConfiguration") or []
        rules = encryption["ServerSideEncryptionConfiguration"]["Rules"]
        actual["BucketEncryption"] = {"ServerSideEncryptionConfiguration": _as_written(wanted, rules, encryption_rule, _encryption_shown)}
    lifecycle = _configured(s3.get_bucket_lifecycle_configuration, physical_id, "NoSuchLifecycleConfiguration")
    if lifecycle:
        wanted = (properties.get("LifecycleConfiguration") or {}).get("Rules") or []
        actual["LifecycleConfiguration"] = {"Rules": _as_written(wanted, lifecycle["Rules"], lifecycle_rule, lifecycle_shown)}
    return actual


def _configured(get: Callable[..., Properties], bucket: str, absent: str) -> Properties | None:
    try:
        return get(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] == absent:
            return None
        raise


def _as_written(wanted: list[Json], found: list[Json], rule: Callable[[Json], Json], shown: Callable[[Json], Json]) -> list[Json]:
    """Return rules as the template writes them where they are what the API would have been told for that, otherwise as *shown* makes them."""
    result = []
    for number, item in enumerate(found):
        asked = rule(wanted[number]) if number < len(wanted) else None
        same = asked is not None and _comparable(_told(item, asked)) == _comparable(_told(asked, asked))
        result.append(wanted[number] if same else shown(item))
    return result


def _told(rule: Json, asked: Json) -> Json:
    """Return a rule of the API without what S3 adds to one that was asked for, and without what cannot be compared."""
    # S3 gives a rule an id, and says what is the default.
    left_out = {key for key, value in rule.items() if key not in asked and (key == "ID" or (key == "BucketKeyEnabled" and not value))}
    # moto does not keep sizes, and a date comes back in another form.
    sizes = asked.get("Filter") or {}
    if any(key.startswith("ObjectSize") for key in (*sizes, *sizes.get("And", ()))):
        left_out.add("Filter")
    left_out |= {key for key in ("Expiration", "Transitions") if "Date" in json.dumps(asked.get(key), default=str)}
    return {key: value for key, value in rule.items() if key not in left_out}


def _encryption_shown(rule: Json) -> Json:
    return {("ServerSideEncryptionByDefault" if key == "ApplyServerSideEncryptionByDefault" else key): value for key, value in rule.items()}


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
    logging = found.get("loggingConfiguration") or {}
    written = properties.get("LoggingConfiguration") or {}
    actual_logging: Properties = {"Level": logging.get("level", "OFF"), "IncludeExecutionData": logging.get("includeExecutionData", False)}
    actual_logging["Destinations"] = [
        {"CloudWatchLogsLogGroup": {"LogGroupArn": item["cloudWatchLogsLogGroup"]["logGroupArn"]}}
        for item in logging.get("destinations") or ()
    ]
    return {
        "RoleArn": found["roleArn"],
        "StateMachineName": found["name"],
        "StateMachineType": found["type"],
        "LoggingConfiguration": {key: value for key, value in actual_logging.items() if key in written or key == "Level"},
        "TracingConfiguration": {"Enabled": bool((found.get("tracingConfiguration") or {}).get("enabled"))},
    }


def _machine_version(clients: Clients, physical_id: str, properties: Properties) -> Properties:
    clients("stepfunctions").describe_state_machine(stateMachineArn=physical_id)
    # It cannot be changed, only deleted.
    return {}


def _model_package_group(clients: Clients, physical_id: str, properties: Properties) -> Properties | None:
    try:
        found = clients("sagemaker").describe_model_package_group(ModelPackageGroupName=physical_id)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationException" and "does not exist" in error.response["Error"]["Message"]:
            return None
        raise
    description = found.get("ModelPackageGroupDescription")
    return {"ModelPackageGroupDescription": description} if description else {}


READERS: Mapping[str, Reader] = {
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::CloudWatch::Dashboard": _dashboard,
    "AWS::Events::Rule": _rule,
    "AWS::IAM::ManagedPolicy": _managed_policy,
    "AWS::IAM::Policy": _inline_policy,
    "AWS::IAM::Role": _role,
    "AWS::Lambda::Alias": _function_alias,
    "AWS::Lambda::EventInvokeConfig": _invoke_config,
    "AWS::Lambda::Function": _function,
    "AWS::Lambda::Permission": _permission,
    "AWS::Lambda::Version": _version,
    "AWS::Logs::LogGroup": _log_group,
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SageMaker::ModelPackageGroup": _model_package_group,
    "AWS::SNS::Subscription": _subscription,
    "AWS::SNS::Topic": _topic,
    "AWS::SNS::TopicPolicy": _topic_policy,
    "AWS::SQS::Queue": _queue,
    "AWS::SQS::QueuePolicy": _queue_policy,
    "AWS::StepFunctions::StateMachine": _state_machine,
    "AWS::StepFunctions::StateMachineAlias": _alias,
    "AWS::StepFunctions::StateMachineVersion": _machine_version,
}
#: Properties that a reader of the type gives whenever they have a value, so that one that is missing was removed.
READ: Mapping[str, frozenset[str]] = {
    "AWS::CloudWatch::Alarm": frozenset(
        ("ActionsEnabled", "AlarmActions", "AlarmDescription", "ComparisonOperator", "DatapointsToAlarm", "Dimensions", "EvaluationPeriods",
         "ExtendedStatistic", "InsufficientDataActions", "MetricName", "Namespace", "OKActions", "Period", "Statistic", "Threshold",
         "TreatMissingData", "Unit")
    ),
    "AWS::CloudWatch::Dashboard": frozenset(("DashboardBody",)),
    "AWS::Events::Rule": frozenset(("Description", "EventPattern", "RoleArn", "ScheduleExpression", "State", "Targets")),
    "AWS::IAM::ManagedPolicy": frozenset(("PolicyDocument", "Roles")),
    "AWS::IAM::Policy": frozenset(("PolicyDocument", "Roles")),
    "AWS::IAM::Role": frozenset(
        ("AssumeRolePolicyDocument", "Description", "ManagedPolicyArns", "MaxSessionDuration", "PermissionsBoundary", "Policies")
    ),
    "AWS::Lambda::Alias": frozenset(("Description", "FunctionVersion", "RoutingConfig")),
    "AWS::Lambda::EventInvokeConfig": frozenset(("DestinationConfig", "MaximumEventAgeInSeconds", "MaximumRetryAttempts")),
    "AWS::Lambda::Function": frozenset(
        ("Architectures", "DeadLetterConfig", "Description", "Environment", "Handler", "MemorySize", "Role", "Runtime", "Timeout", "TracingConfig")
    ),
    "AWS::Lambda::Permission": frozenset(("Action", "Principal", "PrincipalOrgID", "SourceAccount", "SourceArn")),
    "AWS::Lambda::Version": frozenset(),
    "AWS::Logs::LogGroup": frozenset(("KmsKeyId", "RetentionInDays")),
    "AWS::S3::Bucket": frozenset(
        ("BucketEncryption", "LifecycleConfiguration", "OwnershipControls", "PublicAccessBlockConfiguration", "VersioningConfiguration")
    ),
    "AWS::S3::BucketPolicy": frozenset(("PolicyDocument",)),
    "AWS::SageMaker::ModelPackageGroup": frozenset(("ModelPackageGroupDescription",)),
    "AWS::SNS::Subscription": frozenset(),
    "AWS::SNS::Topic": frozenset(("DisplayName", "KmsMasterKeyId", "Subscription")),
    "AWS::SNS::TopicPolicy": frozenset(("PolicyDocument",)),
    "AWS::SQS::Queue": frozenset(
        ("DelaySeconds", "KmsMasterKeyId", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds", "RedrivePolicy",
         "SqsManagedSseEnabled", "VisibilityTimeout")
    ),
    "AWS::SQS::QueuePolicy": frozenset(("PolicyDocument",)),
    "AWS::StepFunctions::StateMachine": frozenset(
        ("LoggingConfiguration", "RoleArn", "StateMachineName", "StateMachineType", "TracingConfiguration")
    ),
    "AWS::StepFunctions::StateMachineAlias": frozenset(("Description", "RoutingConfiguration")),
    "AWS::StepFunctions::StateMachineVersion": frozenset(),
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
