"""The delivery stack: what it may do to the platform, and that its builds run what a person can type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from packaging.requirements import Requirement

from helpers_policies import ACCOUNT, REGION, Resolved
from infrastructure.cicd import CICD_TEMPLATE, CicdParameters, desired_cicd
from infrastructure.packaging import PLATFORM_TEMPLATE, ROOT
from infrastructure.templates import MAX_BODY_BYTES, Template, template_body
from localcloud.cloudformation.provider import Place
from localcloud.cloudformation.registry import build_registry
from localcloud.cloudformation.target import Templates
from localcloud.codebuild.buildspec import parse_buildspec
from localcloud.errors import ServiceError
from scones.advice import advice

BUILDSPECS = sorted(path for path in (ROOT / "codebuild").glob("*.yaml"))
TEMPLATE = Template.read(CICD_TEMPLATE)
GIVEN = {
    "ArtifactBucketName": "platform-bucket",
    "ConnectionArn": "",
    "NotificationTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:notifications",
    "PipelineRoleArn": f"arn:aws:iam::{ACCOUNT}:role/pipeline",
    "Repository": "owner/name",
}
#: What the build of the platform may do through CloudFormation only.
FOR_CLOUDFORMATION = ("PlatformRolesPolicy", "PlatformResourcesPolicy")
#: What the schemas of the platform's types ask for and its stack does not use, by what it is for.
UNUSED_FEATURES = {
    "features of buckets": (
        r"s3tables:.*|s3:.*(Analytics|Cors|CORS|Metadata|Metrics|Replication|Website|Accelerate|Abac|Inventory|IntelligentTiering|ObjectLock).*"
    ),
    "ACLs and tags of buckets": r"s3:(PutBucketAcl|GetBucketAcl|PutObjectAcl|ListTagsForResource|TagResource|UntagResource)",
    "data, which outlives its stack": r"s3:(DeleteBucket|DeleteObject|DeleteBucketEncryption|DeleteBucketLifecycle)|sagemaker:DeleteModelPackageGroup",
    "policies of model package groups": r"sagemaker:(Delete|Put)ModelPackageGroupPolicy",
    "taking a boundary away": r"iam:DeleteRolePermissionsBoundary",
    "users and groups": r"iam:(Attach|Detach)(Group|User)Policy",
    "VPCs, file systems": r"ec2:.*|(elasticfilesystem|s3files):.*",
    "keys of functions": r"kms:.*",
    "code signing, concurrency, layers and runtimes": (
        r"lambda:((Delete|Put)FunctionCodeSigningConfig|GetCodeSigningConfig|(Delete|Put)FunctionConcurrency|PassCapacityProvider"
        r"|GetLayerVersion|PutRuntimeManagementConfig|AssociateRuntimeAlias|PutFunction(Recursion|Scaling)Config|PublishVersion)"
    ),
    "delivery of logs elsewhere, policies of log groups": (
        r"logs:(CreateLogDelivery|(Delete|Put)(ResourcePolicy|DataProtectionPolicy|IndexPolicy)|PutLogGroupDeletionProtection"
        r"|PutBearerTokenAuthentication)|firehose:.*|s3:REST\.PUT\.OBJECT"
    ),
    "data protection of topics": r"sns:PutDataProtectionPolicy",
    "billing views": r"billing:.*",
}
#: What the deployment needs and no schema says.
BEYOND_THE_SCHEMAS = {
    "iam:ListEntitiesForPolicy",
    "lambda:ListTags",  # the tags in what GetFunction returns
    "s3:GetBucketLocation",
}


def allowed(role: str) -> dict[str, set[str]]:
    """The actions of a role, each with its resources."""
    found: dict[str, set[str]] = {}
    for item in Resolved(TEMPLATE.document, GIVEN).of_role(role):
        for action in item.actions:
            found.setdefault(action, set()).update(item.resources)
    return found


def test_the_platforms_deployment_may_do_what_the_types_of_its_stack_ask_for_and_no_more() -> None:
    """AWS's registry says of every type which permissions its handlers use (`handlers.*.permissions` of the resource schemas)."""
    asked: set[str] = set()
    for kind in {resource.type for resource in Template.read(PLATFORM_TEMPLATE).resources.values()}:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
        asked |= {action for name in ("create", "read", "update", "delete") for action in handlers.get(name, {}).get("permissions", ())}
    unused = {action for action in asked if any(re.fullmatch(pattern, action) for pattern in UNUSED_FEATURES.values())}
    statements = [item for item in Resolved(TEMPLATE.document, GIVEN).statements() if item.owner in FOR_CLOUDFORMATION]
    may = {action for item in statements for action in item.actions}
    assert all(item.conditions["ForAnyValue:StringEquals"] == {"aws:CalledVia": "cloudformation.amazonaws.com"} for item in statements)
    assert asked - unused - set(allowed("PlatformRole")) == set(), "asked for, and not allowed"
    assert may & unused == set(), "allowed, and not used"
    assert may - asked <= BEYOND_THE_SCHEMAS, "allowed, and not asked for"


@pytest.mark.parametrize("region", ["eu-south-2", "us-east-1"])
def test_a_region_without_codeconnections_takes_the_delivery_with_any_other_source(region: str) -> None:
    templates = Templates(
        build_registry(cast("Any", None), client_of_nothing), Place(region), lambda *_: None, lambda *_: False, lambda _: None
    )

    def planned(source: str) -> set[str]:
        given = GIVEN | {
            "Source": source,
            "GitHubOidcProviderArn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com",
        }
        request = {
            "TemplateBody": template_body(CICD_TEMPLATE),
            "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        }
        stack = {"StackName": "scones-cicd", "StackId": f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/scones-cicd/1"}
        return set(templates.target(request, stack, 10**6).blueprint.active)

    assert "Delivery" in planned("s3")
    assert "GitHubActionsRole" in planned("github-actions")
    if region == "us-east-1":
        assert "Connection" in planned("connection")
    else:
        with pytest.raises(ServiceError) as raised:
            planned("connection")
        assert raised.value.message == "Template format error: Unrecognized resource types: [AWS::CodeConnections::Connection]"
        assert "--set cicd.source=s3" in str(advice(str(raised.value)))


def client_of_nothing(service: str) -> Any:
    raise AssertionError(f"planning needs no {service}")


def test_no_build_may_change_what_it_was_not_made_for() -> None:
    for role in ("TestRole", "PackageRole"):
        services = {action.partition(":")[0] for action in allowed(role)}
        assert services <= {"logs", "s3"}
        assert all("-cicd-" in resource for action in allowed(role) for resource in allowed(role)[action])
    assert "s3:PutObject" not in allowed("TestRole")
    assert {action for action in allowed("PipelineBuildRole") if action.startswith(("iam:", "sts:"))} == {"iam:PassRole"}
    by_itself = [item for item in Resolved(TEMPLATE.document, GIVEN).of_role("PlatformRole") if item.owner not in FOR_CLOUDFORMATION]
    assert {action.partition(":")[0] for item in by_itself for action in item.actions} == {"cloudformation", "logs", "s3"}


def test_with_a_boundary_no_role_is_made_or_widened_without_it() -> None:
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    widening = {"iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"}
    found = set()
    for item in Resolved(TEMPLATE.document, GIVEN | {"PermissionsBoundaryArn": boundary}).of_role("PlatformRole"):
        if widening & set(item.actions):
            assert item.conditions["ArnEquals"] == {"iam:PermissionsBoundary": boundary}
            found |= widening & set(item.actions)
    assert found == widening


def test_every_parameter_is_one_of_the_template_and_its_text_fits_into_a_request() -> None:
    parameters = CicdParameters(
        **{name: "x" for name in CicdParameters.__dataclass_fields__ if name != "log_retention_in_days"}, log_retention_in_days=30
    )
    assert set(parameters.for_template()) == set(TEMPLATE.document["Parameters"])
    assert len(desired_cicd(parameters).template["TemplateBody"].encode()) <= MAX_BODY_BYTES


# --- buildspecs -----------------------------------------------------------------------------------------------------------------------------


def commands(path: Path) -> list[str]:
    phases: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["phases"]
    return [command for phase in phases.values() for command in phase.get("commands", ())]


def test_each_stage_after_the_source_runs_a_buildspec_that_is_there() -> None:
    projects = [resource for resource in TEMPLATE.resources.values() if resource.type == "AWS::CodeBuild::Project"]
    assert {ROOT / project.properties["Source"]["BuildSpec"] for project in projects} == set(BUILDSPECS)


@pytest.mark.parametrize("path", BUILDSPECS, ids=lambda path: path.name)
def test_a_buildspec_is_read_and_runs_what_a_person_can_type(path: Path) -> None:
    parse_buildspec(path.read_text(encoding="utf-8"))
    for command in commands(path):
        words = shlex.split(command)
        assert words[:3] in (["python", "-m", "pip"], ["python", "-m", "scones"]) or command == 'eval "$TEST_COMMAND"'
        if words[:3] == ["python", "-m", "scones"]:
            check_typed(words[3:])


def check_typed(words: list[str]) -> None:
    """Each option belongs to the command that is called."""
    import click

    from scones.cli import cli

    command: Any = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_tests_are_the_readmes_command_unless_the_template_says_otherwise() -> None:
    assert TEMPLATE.defaults["TestCommand"] == "make test"
    assert yaml.safe_load((ROOT / "codebuild/test.yaml").read_text())["env"]["variables"] == {"TEST_COMMAND": "make test"}
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def required(name: str) -> set[str]:
    lines = (ROOT / "codebuild" / name).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith(("#", "--"))}


def test_a_build_installs_what_the_commands_need(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: declared.update(arguments))
    exec(compile((ROOT / "setup.py").read_text(encoding="utf-8"), str(ROOT / "setup.py"), "exec"), {"__file__": str(ROOT / "setup.py")})
    assert required("requirements.txt") == {Requirement(line).name for line in declared["install_requires"]}
    # MLflow is what the jobs log to; nothing here imports it.
    pipeline = {Requirement(line).name for line in declared["extras_require"]["pipeline"]} - {"mlflow"}
    assert required("requirements-pipeline.txt") == pipeline


def test_the_workflow_for_github_actions_runs_the_buildspecs_commands() -> None:
    (block,) = re.findall(r"```yaml\n(.+?)```", (ROOT / "docs" / "cicd.md").read_text(encoding="utf-8"), re.DOTALL)
    jobs = yaml.safe_load(block)["jobs"]
    typed = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    package, platform, pipeline = (commands(ROOT / "codebuild" / f"{name}.yaml") for name in ("package", "platform", "pipeline"))
    folder = [command.replace('"$CODEBUILD_SRC_DIR_Package"', "build/package") for command in platform]
    assert typed["test"] == [TEMPLATE.defaults["TestCommand"]]
    assert typed["deliver"] == [pipeline[0], *package[1:], *folder[1:], *pipeline[1:]]
    assert "permissions" not in jobs["test"]
    assert jobs["deliver"]["permissions"]["id-token"] == "write"
