"""The CloudFormation templates: linted, and consistent with the code and with each other."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint_file
from moto.core.utils import get_service_model

from helpers_policies import Resolved
from infrastructure.cicd import CICD_TEMPLATE
from infrastructure.deploy import PlatformParameters, asset_parameters
from infrastructure.packaging import INFERENCE_TEMPLATE, PLATFORM_TEMPLATE, ROOT, WORKFLOW_DEFINITION, build_assets
from infrastructure.templates import Template, template_body
from lambdas.common import clients
from localcloud.eventbridge.patterns import compile_pattern
from pipelines.settings import load_settings

PLATFORM, INFERENCE, CICD = (Template.read(path).document for path in (PLATFORM_TEMPLATE, INFERENCE_TEMPLATE, CICD_TEMPLATE))
RESOURCES: dict[str, dict[str, Any]] = PLATFORM["Resources"] | INFERENCE["Resources"]
FUNCTIONS = {name: item["Properties"] for name, item in RESOURCES.items() if item["Type"] == "AWS::Lambda::Function"}
WORKFLOW = json.loads(WORKFLOW_DEFINITION.read_text())
# What CloudFormation takes as TemplateBody: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MAX_TEMPLATE_BODY_BYTES = 51_200
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_ENVIRONMENT_BYTES = 4096


@pytest.mark.parametrize("path", sorted(PLATFORM_TEMPLATE.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_cfn_lint_finds_nothing(path: Path) -> None:
    assert [f"{match.rule.id} {match.message}" for match in lint_file(path) if match.rule.id[0] in "EW"] == []


def test_the_platform_template_can_be_sent_without_a_bucket() -> None:
    assert len(template_body(PLATFORM_TEMPLATE).encode()) <= MAX_TEMPLATE_BODY_BYTES


def test_the_deploying_function_sets_every_parameter_of_the_inference_stack() -> None:
    environment = FUNCTIONS["DeployFunction"]["Environment"]["Variables"]
    handed_on = json.loads(re.sub(r"\$\{[^}]+\}", "x", environment["STACK_PARAMETERS"]["Fn::Sub"][0]))
    assert set(handed_on) | {"ModelPackageArn", "DecidedAt", "Release"} == set(INFERENCE["Parameters"])


def test_parameters_that_are_handed_on_mean_the_same_in_both_templates() -> None:
    names = {name: name for name in PLATFORM["Parameters"]} | {
        "ServingInstanceType": "InstanceType",
        "ServingInstanceCount": "InstanceCount",
    }
    for platform_name, name in names.items():
        if name in INFERENCE["Parameters"]:
            ours, theirs = dict(PLATFORM["Parameters"][platform_name]), dict(INFERENCE["Parameters"][name])
            for parameter in (ours, theirs):
                parameter.pop("Description")
                # What inference.yaml must be given, the platform has no value for before there is code, or takes elsewhere.
                if name.endswith("Key") or name == "ImageBucketName":
                    parameter.pop("Default", None)
            assert ours == theirs


def test_deploy_platform_sets_every_parameter_of_the_platform_stack() -> None:
    assert set(PlatformParameters().for_template()) | set(asset_parameters(build_assets())) == set(PLATFORM["Parameters"])


def test_the_defaults_of_deploy_platform_are_the_templates() -> None:
    defaults = {name: str(parameter["Default"]) for name, parameter in PLATFORM["Parameters"].items() if "Default" in parameter}
    assert PlatformParameters().for_template().items() <= defaults.items()


def test_production_serves_on_an_instance_type_that_versions_are_registered_for() -> None:
    registered = load_settings().settings.registry.inference_instance_types
    assert PlatformParameters().serving_instance_type in registered


def test_outputs() -> None:
    assert set(PLATFORM["Outputs"]) == {
        "ArtifactBucketName",
        "PipelineRoleArn",
        "JobRoleArn",
        "ModelRoleArn",
        "ModelPackageGroupName",
        "DeployFunctionName",
        "DeploymentRoleArn",
        "EventDeadLetterQueueUrl",
        "ApprovalRuleName",
        "NotificationTopicArn",
    }
    assert set(INFERENCE["Outputs"]) == {
        "EndpointName",
        "StateMachineArn",
        "MaxImageBytes",
        "ReviewQueueUrl",
        "ModelPackageArn",
        "DecidedAt",
    }


def test_the_workflow_gets_all_its_substitutions() -> None:
    substitutions = RESOURCES["StateMachine"]["Properties"]["DefinitionSubstitutions"]
    assert set(re.findall(r"\$\{(\w+)\}", WORKFLOW_DEFINITION.read_text())) == set(substitutions)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_a_handler_and_the_settings_that_its_code_reads(name: str) -> None:
    function = FUNCTIONS[name]
    module, attribute = function["Handler"].rsplit(".", 1)
    assert callable(getattr(importlib.import_module(module), attribute))
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    if "workflow_function" in source:
        source += (ROOT / "lambdas/common/observability.py").read_text()
    read = set(re.findall(r'(?:environ|environment)(?:\[|\.get\()"(\w+)"|int_from_environment\("(\w+)"\)', source))
    assert {first or second for first, second in read} == set(function["Environment"]["Variables"])


def test_the_deploying_functions_environment_fits_into_lambdas_limit() -> None:
    variables = FUNCTIONS["DeployFunction"]["Environment"]["Variables"]
    lengths = {"CodeKey": 120, "DefinitionKey": 110, "TemplateKey": 110, "Arn": 120, "Bucket": 63}

    def longest(value: dict[str, Any]) -> int:
        template = value.get("Fn::Sub", "${Other.Arn}")
        template = template[0] if isinstance(template, list) else template
        return len(re.sub(r"\$\{(.+?)\}", lambda m: "x" * next((n for end, n in lengths.items() if m[1].endswith(end)), 20), template))

    assert sum(len(name) + longest(value) for name, value in variables.items()) < MAX_ENVIRONMENT_BYTES


@pytest.mark.parametrize("name", ["SerializeImageData", "ImageClassification", "FilterLowConfidenceInferences"])
def test_a_function_ends_before_the_workflow_stops_waiting_for_it(name: str) -> None:
    assert FUNCTIONS[f"{name}Function"]["Timeout"] < WORKFLOW["States"][name]["TimeoutSeconds"]


def test_a_slow_service_is_an_error_with_a_name_before_the_function_is_stopped() -> None:
    s3 = 2 * (clients.CONNECT_TIMEOUT_SECONDS + clients.S3_READ_TIMEOUT_SECONDS)
    endpoint = 2 * (clients.CONNECT_TIMEOUT_SECONDS + clients.ENDPOINT_READ_TIMEOUT_SECONDS)
    assert s3 < FUNCTIONS["SerializeImageDataFunction"]["Timeout"]
    assert s3 + endpoint < FUNCTIONS["ImageClassificationFunction"]["Timeout"]


def test_only_what_serverless_endpoints_support_is_set_for_them() -> None:
    (variant,) = RESOURCES["EndpointConfig"]["Properties"]["ProductionVariants"]
    nothing = {"Ref": "AWS::NoValue"}
    for name in ("InstanceType", "InitialInstanceCount"):
        assert variant[name]["Fn::If"][:2] == ["IsServerless", nothing]
    assert variant["ServerlessConfig"]["Fn::If"][::2] == ["IsServerless", nothing]
    assert RESOURCES["Endpoint"]["Properties"]["DeploymentConfig"]["Fn::If"][:2] == ["IsServerless", nothing]


def test_alarms_roll_a_bad_deployment_back() -> None:
    _, _, config = RESOURCES["Endpoint"]["Properties"]["DeploymentConfig"]["Fn::If"]
    alarms = [alarm["AlarmName"]["Ref"] for alarm in config["AutoRollbackConfiguration"]["Alarms"]]
    assert alarms == ["EndpointErrorAlarm", "EndpointLatencyAlarm"]
    for alarm in alarms:
        dimensions = {item["Name"]: item["Value"] for item in RESOURCES[alarm]["Properties"]["Dimensions"]}
        assert dimensions["EndpointName"] == RESOURCES["Endpoint"]["Properties"]["EndpointName"]
        assert dimensions["VariantName"] == RESOURCES["EndpointConfig"]["Properties"]["ProductionVariants"][0]["VariantName"]


def test_decisions_reach_the_function_and_what_it_cannot_take_the_dead_letters() -> None:
    (target,) = RESOURCES["ApprovalRule"]["Properties"]["Targets"]
    dead_letters = {"Fn::GetAtt": ["EventDeadLetterQueue", "Arn"]}
    assert target["Arn"] == {"Fn::GetAtt": ["DeployFunction", "Arn"]}
    assert target["DeadLetterConfig"]["Arn"] == FUNCTIONS["DeployFunction"]["DeadLetterConfig"]["TargetArn"] == dead_letters


RULES = {name: item["Properties"] for name, item in (RESOURCES | CICD["Resources"]).items() if item["Type"] == "AWS::Events::Rule"}


@pytest.mark.parametrize("name", RULES)
def test_what_a_rule_cannot_deliver_reaches_the_dead_letters(name: str) -> None:
    allowed = RESOURCES["EventDeadLetterQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"][0]["Condition"]["ArnLike"]
    prefix = allowed["aws:SourceArn"]["Fn::Sub"].rpartition(":rule/")[2].removesuffix("*")
    assert RULES[name]["Name"]["Fn::Sub"].startswith(prefix)
    queue = RESOURCES["EventDeadLetterQueue"]["Properties"]["QueueName"]["Fn::Sub"]
    by_name = {"Fn::Sub": f"arn:${{AWS::Partition}}:sqs:${{AWS::Region}}:${{AWS::AccountId}}:{queue}"}
    wanted = by_name if name in CICD["Resources"] else {"Fn::GetAtt": ["EventDeadLetterQueue", "Arn"]}
    for target in RULES[name]["Targets"]:
        assert target["DeadLetterConfig"]["Arn"] == wanted


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if "InputTransformer" in rule["Targets"][0]])
def test_what_people_are_told_is_one_text_whatever_stands_in_the_event(name: str) -> None:
    (target,) = RULES[name]["Targets"]
    transformer = target["InputTransformer"]
    assert set(re.findall(r"<([\w-]+)>", transformer["InputTemplate"])) == set(transformer["InputPathsMap"])
    assert isinstance(json.loads(transformer["InputTemplate"]), str)


def test_executions_are_logged_and_traced_without_the_photos() -> None:
    machine = RESOURCES["StateMachine"]["Properties"]
    assert machine["TracingConfiguration"] == {"Enabled": True}
    logging = machine["LoggingConfiguration"]
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ERROR", False)
    assert logging["Destinations"] == [{"CloudWatchLogsLogGroup": {"LogGroupArn": {"Fn::GetAtt": ["WorkflowLogGroup", "Arn"]}}}]


@pytest.mark.parametrize("template", [PLATFORM, INFERENCE, CICD], ids=["platform", "inference", "cicd"])
def test_every_parameter_has_a_type_and_says_what_it_is(template: dict[str, Any]) -> None:
    for name, parameter in template["Parameters"].items():
        assert parameter["Type"], name
        assert len(parameter["Description"]) > 10, name


# ------------------------------------------------------------------------------------------------------ rules and AWS's events


def example(name: str, **detail: Any) -> dict[str, Any]:
    """One of AWS's documented events (tests/events), with other values in its detail."""
    event: dict[str, Any] = json.loads((ROOT / "tests" / "events" / f"{name}.json").read_text())
    return event | {"detail": event["detail"] | detail}


def stack_event(status: str, stack: str = "scones-inference") -> dict[str, Any]:
    arn = f"arn:aws:cloudformation:us-east-1:123456789012:stack/{stack}/1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"
    return example("stack", **{"stack-id": arn, "status-details": {"status": status, "status-reason": ""}})


WITH_EVERY_RULE = {"DeployInferenceWorkflowCodeKey": "code/x.zip", "Source": "s3"}
SOURCES = {"name": "scones-cicd-123456789012-us-east-1"}
STACK_STATUSES = get_service_model("cloudformation").shape_for("StackStatus").enum
EVENTS = {
    path.stem: example(path.stem) for path in (ROOT / "tests" / "events").glob("*.json") if "detail-type" in json.loads(path.read_text())
}
EVENTS |= {f"stack {status}": stack_event(status) for status in STACK_STATUSES}
EVENTS |= {f"stack of others {status}": stack_event(status, "scones-inference-2") for status in STACK_STATUSES}
EVENTS |= {
    "rejected": example("model_package_approved", ModelApprovalStatus="Rejected"),
    "approved, of others": example("model_package_approved", ModelPackageGroupName="vehicles"),
    "pending, not complete": example("model_package_pending", ModelPackageStatus="Pending"),
    "step failed, of others": example(
        "pipeline_step_failed", pipelineArn="arn:aws:sagemaker:us-east-1:123456789012:pipeline/scones-vehicle-classifier-2"
    ),
    "step stopped": example("pipeline_step_failed", currentStepStatus="Stopped"),
    "delivery failed": example("codepipeline_execution_failed", pipeline="scones-cicd"),
    "sources uploaded": example("s3_object_created", bucket=SOURCES, object={"key": "_source/source.zip", "size": 5}),
    "something uploaded": example("s3_object_created", bucket=SOURCES, object={"key": "scones-cicd/x", "size": 5}),
}
EVENTS |= {
    f"run {status}": example("pipeline_execution", currentPipelineExecutionStatus=status)
    for status in get_service_model("sagemaker").shape_for("PipelineExecutionStatus").enum
}
#: What each rule is for: these of the events above, and none of the others.
WANTED = {
    "ApprovalRule": {"model_package_approved", "rejected"},
    "ApprovalWaitingRule": {"model_package_pending"},
    "StepFailedRule": {"pipeline_step_failed"},
    "DeployedRule": {"stack", "stack CREATE_COMPLETE", "stack UPDATE_COMPLETE"},
    "DeploymentFailedRule": {"stack ROLLBACK_IN_PROGRESS", "stack UPDATE_ROLLBACK_IN_PROGRESS"},
    "RolledBackRule": {"stack ROLLBACK_COMPLETE", "stack UPDATE_ROLLBACK_COMPLETE"},
    "DeploymentStuckRule": {"stack ROLLBACK_FAILED", "stack UPDATE_ROLLBACK_FAILED", "stack DELETE_FAILED"},
    "DeliveryFailedRule": {"delivery failed"},
    "TrainingEndedRule": {"pipeline_execution", "run Succeeded", "run Failed", "run Stopped"},
    "UploadRule": {"sources uploaded"},
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_takes_the_events_that_it_is_for_and_no_others(name: str) -> None:
    template = next(template for template in (PLATFORM, INFERENCE, CICD) if name in template["Resources"])
    pattern = compile_pattern(json.dumps(Resolved(template, WITH_EVERY_RULE).properties(name)["EventPattern"]))
    assert name in WANTED, f"Say in WANTED which of AWS's events {name} is for; the shapes of others go to tests/events."
    assert {event for event, document in EVENTS.items() if pattern.matches(document)} == WANTED[name]


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if "InputTransformer" in rule["Targets"][0]])
def test_what_people_are_told_is_in_the_event(name: str) -> None:
    paths = RULES[name]["Targets"][0]["InputTransformer"]["InputPathsMap"]
    for event in WANTED[name]:
        for path in paths.values():
            value: Any = EVENTS[event]
            for member in path.removeprefix("$.").split("."):
                value = value[member]
            assert isinstance(value, str | int), path
