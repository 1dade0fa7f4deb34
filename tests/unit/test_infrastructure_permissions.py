"""Least privilege: every policy in every template, held against AWS's own list of actions, and shown to break the rules when it is loosened."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from helpers_policies import (
    ACCOUNT,
    ALSO_ON,
    OTHERS_ACCOUNTS,
    PARLIAMENT_MAY_FIND_ESCALATION,
    REGION,
    UNBOUND_ACTIONS,
    Resolved,
    check_policies,
    check_storage,
    known,
    lint_with_parliament,
)
from infrastructure.packaging import PLATFORM_TEMPLATE, ROOT
from infrastructure.templates import Template

TEMPLATES = {path.name: Template.read(path) for path in sorted(PLATFORM_TEMPLATE.parent.glob("*.yaml"))}
#: What parameters that have no default, or are empty by default, are given: to have one, and to switch everything on.
EXAMPLES = {
    "ConnectionArn": f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:connection/1",
    "GitHubOidcProviderArn": "",
    **{key: f"code/{key}" for key in Template.read(PLATFORM_TEMPLATE).parameters if key.endswith("Key")},
    "EncryptionKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1",
    "MlflowAppArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-app/app-1",
    "MlflowTrackingServerArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:mlflow-tracking-server/tracking",
    "MonthlyBudget": "100",
    "NotificationTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:notifications",
    "PermissionsBoundaryArn": f"arn:aws:iam::{ACCOUNT}:policy/boundary",
    "PipelineRoleArn": f"arn:aws:iam::{ACCOUNT}:role/pipeline",
    "Repository": "owner/name",
    "ServingMode": "instance",
}
Document = dict[str, Any]


def as_needed(template: Template) -> dict[str, str]:
    return {name: value for name, value in EXAMPLES.items() if name in template.document["Parameters"] and name not in template.defaults}


def everything_on(template: Template) -> dict[str, str]:
    empty = {name: name.lower() for name, default in template.defaults.items() if default == ""}
    return empty | {name: value for name, value in EXAMPLES.items() if name in template.document["Parameters"]}


def variants(template: Template) -> Iterator[tuple[str, dict[str, str]]]:
    """What the rules are held against: the defaults, all that is optional, and each choice that brings other roles."""
    yield "defaults", as_needed(template)
    yield "everything on", everything_on(template)
    for source in template.document["Parameters"].get("Source", {}).get("AllowedValues", ()):
        yield f"everything on, {source}", everything_on(template) | {"Source": source}


CASES = [
    pytest.param(template, parameters, id=f"{name}, {how}")
    for name, template in TEMPLATES.items()
    for how, parameters in variants(template)
]


@pytest.mark.parametrize(("template", "parameters"), CASES)
def test_every_policy_allows_what_it_names_and_no_more(template: Template, parameters: dict[str, str]) -> None:
    assert check_policies(Resolved(template.document, parameters)) == []


@pytest.mark.parametrize(("template", "parameters"), CASES)
def test_the_linter_parliament_finds_nothing(template: Template, parameters: dict[str, str]) -> None:
    assert list(lint_with_parliament(Resolved(template.document, parameters))) == []


@pytest.mark.parametrize(("template", "parameters"), CASES)
def test_what_holds_data_is_encrypted_and_takes_tls_only_and_roles_are_bounded(template: Template, parameters: dict[str, str]) -> None:
    assert list(check_storage(Resolved(template.document, parameters))) == []


def test_no_exception_outlives_its_reason() -> None:
    statements = [item for case in CASES for item in Resolved(case.values[0].document, case.values[1]).statements()]  # type: ignore[union-attr, arg-type]
    allowed = {action for item in statements if item.kind == "identity" for action in item.actions}
    assert set(UNBOUND_ACTIONS) == {
        action for item in statements if "*" in item.resources for action in item.actions if item.kind == "identity"
    }
    assert {action for action, _ in ALSO_ON} | set(OTHERS_ACCOUNTS) <= allowed
    assert set(PARLIAMENT_MAY_FIND_ESCALATION) <= {item.owner for item in statements}


# ---------------------------------------------------------------------------------------------------------- a loosened policy is found


def role(document: Document, name: str) -> Document:
    return dict(document["Resources"][name]["Properties"])


def replace(item: Document, what: Document) -> None:
    """Give the item other values; None takes one away."""
    for key, value in what.items():
        if value is None:
            del item[key]
        else:
            item[key] = value


def change(sid: str, owner: str, **what: Any) -> Callable[[Document], None]:
    def loosen(document: Document) -> None:
        items = [item for policy in role(document, owner)["Policies"] for item in policy["PolicyDocument"]["Statement"]]
        replace(next(item for item in items if item.get("Sid") == sid), what)

    return loosen


def trust(owner: str, **what: Any) -> Callable[[Document], None]:
    def loosen(document: Document) -> None:
        (item,) = role(document, owner)["AssumeRolePolicyDocument"]["Statement"]
        item.pop("Condition", None)
        item.update(what)

    return loosen


def in_policy(owner: str, index: int, **what: Any) -> Callable[[Document], None]:
    def loosen(document: Document) -> None:
        replace(document["Resources"][owner]["Properties"]["PolicyDocument"]["Statement"][index], what)

    return loosen


def without(name: str, *path: str) -> Callable[[Document], None]:
    def loosen(document: Document) -> None:
        place = document["Resources"][name]["Properties"]
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return loosen


def to_one(*services: str) -> Document:
    return {"StringEquals": {"iam:PassedToService": list(services)}}


LOOSENED = {
    "all of a service's actions": (change("Data", "JobRole", Action="s3:*"), "s3:\\* is not one action"),
    "an action that is misspelt": (change("Data", "JobRole", Action="s3:GetObjects"), "there is no action s3:GetObjects"),
    "any resource": (change("Data", "JobRole", Resource="*"), "s3:GetObject on all resources"),
    "an action without a reason on all": (
        in_policy("ContainerPolicy", 3, Action="ecr:CreatePullThroughCacheRule"),
        "on all resources",
    ),
    "an action on what it does not work on": (change("Bucket", "JobRole", Resource="arn:aws:s3:::bucket/*"), "none of these"),
    "a resource that no action is for": (
        change("Data", "JobRole", Resource=["arn:aws:s3:::bucket/*", "arn:aws:sqs:us-east-1:123456789012:queue"]),
        "no action works on arn:aws:sqs",
    ),
    "any account's resources": (
        change("Endpoint", "SmokeTestRole", Resource="arn:aws:sagemaker:us-east-1:*:endpoint/x"),
        "in all accounts",
    ),
    "all but some actions": (change("Data", "JobRole", Action=None, NotAction="iam:*"), "NotAction says what is not meant"),
    "roles to any service": (change("RolesOfJobsAndModels", "PipelineRole", Condition=None), "not to one"),
    "roles to two services": (
        change("WorkflowRole", "DeploymentRole", Condition=to_one("states.amazonaws.com", "lambda.amazonaws.com")),
        "not to one",
    ),
    "any role": (change("WorkflowRole", "DeploymentRole", Resource="arn:aws:iam::123456789012:role/*"), "which is not one role"),
    "a role to a service that it is not for": (
        change("WorkflowRole", "DeploymentRole", Condition=to_one("lambda.amazonaws.com")),
        "passes WorkflowRole to lambda.amazonaws.com, which it does not trust",
    ),
    "SageMaker for anybody": (trust("JobRole"), "JobRole/\\?: sagemaker.amazonaws.com may do sts:AssumeRole for anybody"),
    "Lambda for anybody": (trust("SmokeTestRole"), "lambda.amazonaws.com may do sts:AssumeRole for anybody"),
    "Step Functions for anybody": (trust("WorkflowRole"), "states.amazonaws.com may do sts:AssumeRole for anybody"),
    "any account's SageMaker": (
        trust("JobRole", Condition={"ArnLike": {"aws:SourceArn": "arn:aws:sagemaker:us-east-1:*:*"}}),
        "is of any account",
    ),
    "a service that nobody looked up": (trust("JobRole", Principal={"Service": "ec2.amazonaws.com"}), "nobody has looked up how ec2"),
    "anybody assumes a role": (trust("JobRole", Principal={"AWS": "*"}), "JobRole/\\?: anybody"),
    "anybody publishes": (in_policy("NotificationTopicPolicy", 1, Principal="*"), "NotificationTopicPolicy/Alarms: anybody"),
    "anybody's alarms": (
        in_policy("NotificationTopicPolicy", 1, Condition=None),
        "cloudwatch.amazonaws.com may do sns:Publish for anybody",
    ),
    "anybody's rules": (
        in_policy("EventDeadLetterQueuePolicy", 0, Condition=None),
        "events.amazonaws.com may do sqs:SendMessage for anybody",
    ),
    "anybody's rules to the function": (
        without("DeployFunctionPermission", "SourceArn"),
        "events.amazonaws.com may do lambda:InvokeFunction",
    ),
}
WEAKENED = {
    "a bucket without TLS": (
        in_policy("ArtifactBucketPolicy", 0, Condition={"Bool": {"aws:SecureTransport": "true"}}),
        "ArtifactBucket: .* TLS",
    ),
    "a bucket's objects without TLS": (in_policy("ArtifactBucketPolicy", 0, Resource={"Fn::GetAtt": ["ArtifactBucket", "Arn"]}), "TLS"),
    "a queue without TLS": (in_policy("EventDeadLetterQueuePolicy", 1, Effect="Allow"), "EventDeadLetterQueue: .* TLS"),
    "a topic without TLS": (in_policy("NotificationTopicPolicy", -1, Principal={"AWS": ACCOUNT}), "NotificationTopic: .* TLS"),
    "a public bucket": (without("ArtifactBucket", "PublicAccessBlockConfiguration", "BlockPublicPolicy"), "can be made public"),
    "a bucket that is not encrypted": (without("ArtifactBucket", "BucketEncryption"), "ArtifactBucket: is not encrypted with the key"),
    "a queue that is not encrypted": (
        without("EventDeadLetterQueue", "KmsMasterKeyId"),
        "EventDeadLetterQueue: is not encrypted with the key",
    ),
    "a topic that is not encrypted": (without("NotificationTopic", "KmsMasterKeyId"), "NotificationTopic: is not encrypted with the key"),
    "a log that is not encrypted": (without("DeployFunctionLogGroup", "KmsKeyId"), "DeployFunctionLogGroup: is not encrypted with the key"),
    "a log for ever": (without("DeployFunctionLogGroup", "RetentionInDays"), "is kept for ever"),
    "a bucket with ACLs": (without("ArtifactBucket", "OwnershipControls"), "has ACLs"),
    "a bucket for ever": (without("ArtifactBucket", "LifecycleConfiguration"), "keeps for ever .* NoncurrentVersionExpiration"),
    "a role without a boundary": (without("ModelRole", "PermissionsBoundary"), "ModelRole: has no permissions boundary"),
}


def loosened(loosen: Callable[[Document], None]) -> Resolved:
    document = copy.deepcopy(dict(TEMPLATES["platform.yaml"].document))
    loosen(document)
    return Resolved(document, everything_on(TEMPLATES["platform.yaml"]))


@pytest.mark.parametrize("how", LOOSENED)
def test_a_loosened_policy_is_found(how: str) -> None:
    loosen, words = LOOSENED[how]
    found = check_policies(loosened(loosen))
    assert any(re.search(words, text) for text in found), found


@pytest.mark.parametrize("how", WEAKENED)
def test_weaker_storage_is_found(how: str) -> None:
    loosen, words = WEAKENED[how]
    found = list(check_storage(loosened(loosen)))
    assert any(re.search(words, text) for text in found), found


# ------------------------------------------------------------------------------------------------------------------- what must hold


def allowed(owner: str) -> dict[str, set[str]]:
    """The actions of a role, each with its resources, with everything switched on."""
    template = TEMPLATES["platform.yaml"]
    found: dict[str, set[str]] = {}
    for item in Resolved(template.document, everything_on(template)).of_role(owner):
        for action in item.actions:
            found.setdefault(action, set()).update(item.resources)
    return found


@pytest.mark.parametrize("owner", ["PipelineRole", "JobRole", "ModelRole", "SmokeTestRole", "DeployFunctionRole", "DeploymentRole"])
def test_nobody_who_runs_here_can_change_the_code_that_is_deployed(owner: str) -> None:
    writable = {
        resource for action, resources in allowed(owner).items() if action.startswith(("s3:Put", "s3:Delete")) for resource in resources
    }
    prefixes = {resource.partition("/")[2] for resource in writable}
    assert prefixes <= {"checkpoints/*", "runs/*", "mlflow/*", "smoke-test/*"}


def test_only_people_approve() -> None:
    """Nobody who runs here may decide on a version, and the pipeline registers none that nobody has decided on."""
    for name, template in TEMPLATES.items():
        for item in Resolved(template.document, everything_on(template)).statements():
            assert "sagemaker:UpdateModelPackage" not in item.actions, f"{name}: {item}"
            if "sagemaker:CreateModelPackage" in item.actions:
                assert item.conditions == {"StringEquals": {"sagemaker:ModelApprovalStatus": "PendingManualApproval"}}, f"{name}: {item}"


def test_an_approval_cannot_widen_permissions() -> None:
    """Neither the deploying function nor the role of its stack may touch IAM but for passing roles, and the stack makes none."""
    for owner in ("DeploymentRole", "DeployFunctionRole"):
        assert {action for action in allowed(owner) if action.startswith(("iam:", "sts:"))} <= {"iam:PassRole"}
    assert not [item for item in TEMPLATES["inference.yaml"].resources.values() if item.type.startswith("AWS::IAM::")]


def test_the_deploying_function_deploys_with_one_role_and_the_platforms_template_only() -> None:
    for item in Resolved(TEMPLATES["platform.yaml"].document, {}).statements():
        if item.owner == "DeployFunctionRole" and {"cloudformation:CreateStack", "cloudformation:UpdateStack"} & set(item.actions):
            assert item.conditions["ArnEquals"]["cloudformation:RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/DeploymentRole"
            template = item.conditions["StringLike"]["cloudformation:TemplateUrl"]
            assert template == f"https://scones-dev-{ACCOUNT}-{REGION}.s3.{REGION}.amazonaws.com/code/templates/inference/*"


#: What the schemas of the inference stack's types ask for and the stack does not use, by what it is for.
UNUSED_FEATURES = {
    "VPCs": r"ec2:.*",
    "file systems": r"(elasticfilesystem|s3files):.*",
    "keys of functions and state machines": r"kms:(Decrypt|Encrypt|GenerateDataKey)",
    "code signing": r"lambda:(Delete|Put)FunctionCodeSigningConfig|lambda:GetCodeSigningConfig",
    "concurrency and capacity": r"lambda:(Delete|Put)FunctionConcurrency|lambda:PutProvisionedConcurrencyConfig|lambda:PassCapacityProvider",
    "layers and runtimes": r"lambda:(GetLayerVersion|PutRuntimeManagementConfig|AssociateRuntimeAlias)",
    "settings that have defaults": r"lambda:PutFunction(Recursion|Scaling)Config",
    "delivery of logs elsewhere": r"logs:(CreateLogDelivery|(Delete|Put)ResourcePolicy)|firehose:.*|s3:REST\.PUT\.OBJECT",
    "policies and protection of log groups": r"logs:(Delete|Put)(DataProtectionPolicy|IndexPolicy)|logs:PutLogGroupDeletionProtection",
    "tokens of log groups": r"logs:PutBearerTokenAuthentication",
}
#: What the deployment needs and no schema says.
BEYOND_THE_SCHEMAS = {
    "lambda:InvokeFunction": "the smoke test, a custom resource",
    "lambda:ListTags": "the tags in what GetFunction returns",
    "sagemaker:DescribeModelPackage": "CreateModel from a package",
}


def test_the_deployment_may_do_what_the_types_of_its_stack_ask_for_and_no_more() -> None:
    """AWS's registry says of every type which permissions its handlers use (`handlers.*.permissions` of the resource schemas)."""
    asked: set[str] = set()
    for kind in {resource.type for resource in TEMPLATES["inference.yaml"].resources.values() if not resource.type.startswith("Custom::")}:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
        asked |= {action for name in ("create", "read", "update", "delete") for action in handlers.get(name, {}).get("permissions", ())}
    unused = {action for action in asked if any(re.fullmatch(pattern, action) for pattern in UNUSED_FEATURES.values())}
    may = set(allowed("DeploymentRole"))
    assert asked - unused - may == set(), "asked for, and not allowed"
    assert may - asked - {action for action in may if action.startswith("s3:")} == set(BEYOND_THE_SCHEMAS), "allowed, and not asked for"
    assert all(known(action) for action in may)


def test_the_alarms_may_be_read_with_the_roles_that_deployments_run_with() -> None:
    names = {
        Resolved(TEMPLATES["inference.yaml"].document, {}).properties(name)["AlarmName"]
        for name in ("EndpointErrorAlarm", "EndpointLatencyAlarm")
    }
    for owner in ("DeploymentRole", "ModelRole"):
        patterns = [resource.rpartition(":")[2] for resource in allowed(owner)["cloudwatch:DescribeAlarms"]]
        for name in names:
            assert any(re.fullmatch(pattern.replace("*", ".*"), name) for pattern in patterns), (owner, name)


def test_no_finding_of_a_linter_is_switched_off_in_a_template() -> None:
    """Neither for all of it nor for a resource, where cfn-lint takes its settings from; comments switch off nothing."""
    for name, template in TEMPLATES.items():
        places = {name: template.document, **template.document["Resources"]}
        assert [place for place, item in places.items() if "cfn-lint" in item.get("Metadata", {})] == []
    assert not list(ROOT.glob(".cfnlintrc*"))
