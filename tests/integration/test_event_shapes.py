"""What localcloud sends has the keys and types that AWS documents (tests/events), and no others but those named here with their reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import helpers_codebuild
import helpers_functions
import helpers_sagemaker
from helpers_codepipeline import Clone, Workshop, action, real_project, stage
from helpers_functions import attributes_of
from helpers_sagemaker import IMAGE
from helpers_shapes import differences, documented

MODEL = "def model_fn(model_dir): return None\ndef transform_fn(model, body, content_type, accept): return body\n"
PASS = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
FAIL = {"StartAt": "A", "States": {"A": {"Type": "Fail", "Error": "Broken", "Cause": "for the test"}}}


class Sent:
    """The events that a rule for everything of AWS's services delivers to a queue, in AWS's envelope."""

    def __init__(self, lab: helpers_functions.Lab) -> None:
        self._lab = lab
        self._url, arn = lab.queue()
        lab.client("events").put_rule(Name="all", EventPattern=json.dumps({"source": [{"prefix": "aws."}]}))
        lab.client("events").put_targets(Rule="all", Targets=[{"Id": "queue", "Arn": arn}])
        self._events: list[dict[str, Any]] = []

    def find(self, detail_type: str, words: str) -> dict[str, Any]:
        """Wait for an event of this kind whose detail has these words, and return it."""

        def look() -> dict[str, Any] | None:
            messages = self._lab.client("sqs").receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, VisibilityTimeout=600)
            self._events += [json.loads(message["Body"]) for message in messages.get("Messages", [])]
            found = (event for event in self._events if event["detail-type"] == detail_type and words in json.dumps(event["detail"]))
            return next(found, None)

        return dict(self._lab.poll(look))


@pytest.fixture(scope="module")
def lab(region: Any) -> helpers_functions.Lab:
    return helpers_functions.Lab(region)


@pytest.fixture(scope="module")
def sent(lab: helpers_functions.Lab) -> Sent:
    return Sent(lab)


@pytest.fixture(scope="module")
def sagemaker(region: Any, sent: Sent) -> helpers_sagemaker.Lab:
    return helpers_sagemaker.Lab(region)


# ----------------------------------------------------------------------------------------------------------------- SageMaker


@pytest.fixture(scope="module")
def version(sagemaker: helpers_sagemaker.Lab) -> str:
    """A version of a model with all that its event can tell."""
    sagemaker.sm.create_model_package_group(ModelPackageGroupName="vehicles")
    report = sagemaker.put("evaluation.json", "{}")
    data = sagemaker.put("model.tar.gz", b"")
    package = sagemaker.sm.create_model_package(
        ModelPackageGroupName="vehicles",
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [{"Image": IMAGE, "ModelDataUrl": data}],
            "SupportedContentTypes": ["image/png"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        MetadataProperties={"GeneratedBy": "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/e"},
        ModelMetrics={"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": report}}},
        ModelLifeCycle={"Stage": "Development", "StageStatus": "Approved", "StageDescription": "tried"},
    )
    return str(package["ModelPackageArn"])


#: No image is pulled here, so that it has no digest.
NO_DIGEST = "- detail.InferenceSpecification.Containers.ImageDigest"


def test_a_new_version_of_a_model(sent: Sent, version: str) -> None:
    event = sent.find("SageMaker Model Package State Change", '"PendingManualApproval"')
    # A version that is new has no fields that were updated.
    assert differences(documented("model_package_pending"), event) == {NO_DIGEST, "- detail.UpdatedModelPackageFields"}
    assert event["resources"] == [version]


@pytest.mark.parametrize("approval", ["Approved", "Rejected"])
def test_a_decision_on_a_version(sent: Sent, sagemaker: helpers_sagemaker.Lab, version: str, approval: str) -> None:
    sagemaker.sm.update_model_package(ModelPackageArn=version, ModelApprovalStatus=approval, ApprovalDescription="looked at")
    event = sent.find("SageMaker Model Package State Change", f'"ModelApprovalStatus": "{approval}"')
    # The description is in DescribeModelPackage's answer, whose shape the event has.
    assert differences(documented("model_package_approved"), event) == {NO_DIGEST, "+ detail.ApprovalDescription"}
    assert "ModelApprovalStatus" in event["detail"]["UpdatedModelPackageFields"]
    # The example that AWS gives is from before events named what was updated, and before life cycles.
    later = {"+ detail.UpdatedModelPackageFields", "+ detail.ModelLifeCycle"}
    assert differences(documented("model_package_rejected"), event) == {NO_DIGEST, "+ detail.ApprovalDescription"} | later


NETWORK = {
    "EnableInterContainerTrafficEncryption": True,
    "EnableNetworkIsolation": False,
    "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
}
#: What the request did not set; AWS's examples have everything.
KEYS = {"- detail.ProcessingOutputConfig.KmsKeyId", "- detail.ProcessingResources.ClusterConfig.VolumeKmsKeyId"}


def test_a_processing_job(sent: Sent, sagemaker: helpers_sagemaker.Lab) -> None:
    sagemaker.process("raise SystemExit(3)", name="processing", NetworkConfig=NETWORK)
    event = sent.find("SageMaker Processing Job State Change", '"Failed"')
    told = {"+ detail.Tags", "+ detail.AppSpecification.ContainerEntrypoint", "+ detail.AppSpecification.ContainerArguments"}
    assert differences(documented("processing_job"), event) - KEYS == told | {
        "- detail.ExperimentConfig",
        "- detail.ProcessingInputs.S3Input.S3DataDistributionType",
    }


def test_a_training_job(sent: Sent, sagemaker: helpers_sagemaker.Lab) -> None:
    sagemaker.train("print('done')", name="training", HyperParameters={"epochs": "1"})
    event = sent.find("SageMaker Training Job State Change", '"Completed"')
    found = differences(documented("training_job"), event)
    # AWS's example for training jobs writes times as texts, those for every other resource as numbers.
    times = {f"! detail.{name}Time: a text is a number" for name in ("Creation", "TrainingStart", "TrainingEnd", "LastModified")}
    assert times <= found
    assert {difference for difference in found - times if difference[0] == "!"} == set()
    # An example from the year 2018 lacks what DescribeTrainingJob tells since, and has what this request does not set.
    assert {difference for difference in found if difference[0] == "+"} <= {
        "+ detail.AlgorithmSpecification.ContainerArguments",
        "+ detail.AlgorithmSpecification.ContainerEntrypoint",
        "+ detail.AlgorithmSpecification.EnableSageMakerMetricsTimeSeries",
        "+ detail.AlgorithmSpecification.MetricDefinitions",
        "+ detail.BillableTimeInSeconds",
        "+ detail.EnableInterContainerTrafficEncryption",
        "+ detail.EnableManagedSpotTraining",
        "+ detail.EnableNetworkIsolation",
        "+ detail.FinalMetricDataList",
        "+ detail.ModelArtifacts",
        "+ detail.OutputDataConfig.CompressionType",
        "+ detail.ProfilingStatus",
        "+ detail.TrainingTimeInSeconds",
    }
    assert {difference for difference in found if difference[0] == "-"} <= {
        "- detail.InputDataConfig.CompressionType",
        "- detail.InputDataConfig.ContentType",
        "- detail.InputDataConfig.DataSource.S3DataSource.S3DataDistributionType",
        "- detail.InputDataConfig.RecordWrapperType",
        "- detail.OutputDataConfig.KmsKeyId",
        "- detail.ResourceConfig.VolumeKmsKeyId",
        "- detail.VpcConfig",
    }


def test_an_endpoint(sent: Sent, sagemaker: helpers_sagemaker.Lab) -> None:
    sagemaker.endpoint(sagemaker.model(MODEL))
    event = sent.find("SageMaker Endpoint State Change", '"IN_SERVICE"')
    # The example of a deployment's event has the variant's name.
    assert differences(documented("endpoint"), event) == {"+ detail.ProductionVariants.VariantName"}


def test_an_endpoints_deployment(sent: Sent, sagemaker: helpers_sagemaker.Lab) -> None:
    name = sagemaker.endpoint(sagemaker.model(MODEL))
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 1}
    config = sagemaker.config(sagemaker.model(MODEL))
    sagemaker.sm.update_endpoint(EndpointName=name, EndpointConfigName=config, DeploymentConfig={"BlueGreenUpdatePolicy": policy})
    event = sent.find("SageMaker Endpoint Deployment State Change", '"Baking"')
    assert differences(documented("endpoint_deployment"), event) == set()


def test_a_pipelines_execution_and_its_steps(sent: Sent, sagemaker: helpers_sagemaker.Lab) -> None:
    request = sagemaker.processing_request("import sys; sys.exit(4)")
    del request["ProcessingJobName"]
    definition = {"Version": "2020-12-01", "Steps": [{"Name": "Prepare", "Type": "Processing", "Arguments": request}]}
    sagemaker.sm.create_pipeline(
        PipelineName="shapes", PipelineDefinition=json.dumps(definition), RoleArn=sagemaker.role, ClientRequestToken="shapes" * 8
    )
    sagemaker.sm.start_pipeline_execution(
        PipelineName="shapes", PipelineExecutionDisplayName="one", PipelineExecutionDescription="a try", ClientRequestToken="shapes-" * 8
    )
    step = sent.find("SageMaker Model Building Pipeline Execution Step Status Change", '"currentStepStatus": "Failed"')
    assert differences(documented("pipeline_step_failed"), step) == set()
    execution = sent.find("SageMaker Model Building Pipeline Execution Status Change", '"currentPipelineExecutionStatus": "Failed"')
    assert differences(documented("pipeline_execution"), execution) == set()


# --------------------------------------------------------------------------------------------------------------- other services


def test_an_object_that_was_created(sent: Sent, sagemaker: helpers_sagemaker.Lab) -> None:
    sagemaker.s3.create_bucket(Bucket="photos")
    sagemaker.s3.put_bucket_versioning(Bucket="photos", VersioningConfiguration={"Status": "Enabled"})
    sagemaker.s3.put_bucket_notification_configuration(Bucket="photos", NotificationConfiguration={"EventBridgeConfiguration": {}})
    sagemaker.s3.put_object(Bucket="photos", Key="a photo.png", Body=b"png")
    event = sent.find("Object Created", '"a photo.png"')
    assert differences(documented("s3_object_created"), event) == set()


def test_a_stack_and_its_resources(sent: Sent, lab: helpers_functions.Lab) -> None:
    template = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}
    lab.client("cloudformation").create_stack(StackName="shapes", TemplateBody=json.dumps(template), ClientRequestToken="shapes")
    stack = sent.find("CloudFormation Stack Status Change", "CREATE_COMPLETE")
    assert differences(documented("stack"), stack) == set()
    assert stack["detail"]["client-request-token"] == "shapes"
    resource = sent.find("CloudFormation Resource Status Change", "CREATE_COMPLETE")
    assert differences(documented("stack_resource"), resource) == set()


@pytest.mark.parametrize(("definition", "status"), [(PASS, "SUCCEEDED"), (FAIL, "FAILED")], ids=["succeeded", "failed"])
def test_an_execution_of_a_state_machine(sent: Sent, lab: helpers_functions.Lab, definition: dict[str, Any], status: str) -> None:
    states = lab.client("stepfunctions")
    machine = states.create_state_machine(name=f"m-{status}", definition=json.dumps(definition), roleArn=lab.role)["stateMachineArn"]
    states.start_execution(stateMachineArn=machine, name=f"e-{status}")
    event = sent.find("Step Functions Execution Status Change", f'"{status}"')
    assert differences(documented(f"execution_{status.lower()}"), event) == set()


def test_an_alarm(sent: Sent, lab: helpers_functions.Lab) -> None:
    cloudwatch = lab.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="shapes",
        AlarmDescription="for the test",
        Namespace="Tests",
        MetricName="errors",
        Dimensions=[{"Name": "EndpointName", "Value": "e"}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="ignore",
    )
    for state in ("OK", "ALARM"):
        cloudwatch.set_alarm_state(AlarmName="shapes", StateValue=state, StateReason="by hand", StateReasonData="{}")
    event = sent.find("CloudWatch Alarm State Change", '"state": {"value": "ALARM"')
    assert differences(documented("alarm"), event) == set()


def test_what_lambda_says_of_a_function_that_failed(lab: helpers_functions.Lab) -> None:
    (letters, dead_letter_arn), (records, destination_arn) = lab.queue(), lab.queue()
    code = "def handler(event, context): raise ValueError('no other version is Approved')"
    name = lab.function(code, DeadLetterConfig={"TargetArn": dead_letter_arn})
    lab.client("lambda").put_function_event_invoke_config(
        FunctionName=name, MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": destination_arn}}
    )
    _, error = lab.invoke(name, {})
    assert differences(documented("lambda_error"), error) == set()
    lab.invoke(name, {"a": 1}, InvocationType="Event")
    letter = lab.receive(letters)
    shape = documented("lambda_dead_letter_attributes")
    assert {key: value["DataType"] for key, value in letter["MessageAttributes"].items()} == {k: v["DataType"] for k, v in shape.items()}
    assert attributes_of(letter)["ErrorMessage"] == "no other version is Approved"
    assert differences(documented("lambda_destination_record"), json.loads(lab.receive(records)["Body"])) == set()


def test_a_build_and_its_phases(sent: Sent, region: Any) -> None:
    builds = helpers_codebuild.Lab(region)
    spec = helpers_codebuild.buildspec("touch x", artifacts={"files": ["x"]})
    target = {"type": "S3", "location": helpers_codebuild.BUCKET, "packaging": "ZIP"}
    name = builds.project(source=builds.source({"buildspec.yml": spec}), artifacts=target)
    builds.build(name)
    # The phase that a build is in has no end yet: here the last.
    unfinished = {
        f"- detail.additional-information.phases.{key}" for key in ("phase-context", "end-time", "duration-in-seconds", "phase-status")
    }
    event = sent.find("CodeBuild Build State Change", '"SUCCEEDED", "project-name"')
    assert differences(documented("build_state"), event) == unfinished
    event = sent.find("CodeBuild Build Phase Change", '"completed-phase": "FINALIZING"')
    assert differences(documented("build_phase"), event) == set()
    # The digests are known once the artifact is there.
    event = sent.find("CodeBuild Build Phase Change", '"completed-phase": "BUILD"')
    assert differences(documented("build_phase"), event) == {
        f"- detail.additional-information.artifact.{key}" for key in ("md5sum", "sha256sum")
    }


@pytest.fixture(scope="module")
def shop(region: Any, sent: Sent) -> Workshop:
    return Workshop(region)


EXECUTION, STAGE, ACTION = (f"CodePipeline {what} Execution State Change" for what in ("Pipeline", "Stage", "Action"))


def test_an_execution_of_a_pipeline(sent: Sent, lab: helpers_functions.Lab, shop: Workshop, tmp_path: Path) -> None:
    arn, remote = shop.connection("team/app")
    clone = Clone(tmp_path / "clone", remote)
    settings = {"ConnectionArn": arn, "FullRepositoryId": "team/app", "BranchName": "main"}
    take = stage("Source", action("Take", "Source/CodeStarSourceConnection", settings, outputs=["Source"]))
    test = action("Test", "Test/CodeBuild", {"ProjectName": real_project(shop, "test -e good")}, inputs=["Source"])
    configuration = {"sourceActionName": "Take", "push": [{"tags": {"includes": ["v*"]}}]}
    trigger = {"providerType": "CodeStarSourceConnection", "gitConfiguration": configuration}
    name, _ = shop.create(take, stage("Test", test), triggers=[trigger])
    # Nothing is in the repository yet.
    assert differences(documented("codepipeline_execution_started"), sent.find(EXECUTION, '"STARTED"')) == set()
    assert differences(documented("codepipeline_execution_failed"), sent.find(EXECUTION, '"FAILED"')) == set()
    for tag, files in (("v1", {"a": ""}), ("v2", {"good": ""})):
        clone.commit(f"Add {tag}", **files)
        clone.git("tag", tag)
        clone.push(tag)
        lab.poll(lambda: shop.executions(name)[0]["status"] in ("Failed", "Succeeded") and shop.executions(name)[0]["sourceRevisions"])
    assert differences(documented("codepipeline_stage_started"), sent.find(STAGE, '"STARTED"')) == set()
    assert differences(documented("codepipeline_action_started"), sent.find(ACTION, '"input-artifacts"')) == set()
    assert differences(documented("codepipeline_action_succeeded"), sent.find(ACTION, '"output-artifacts"')) == set()
    assert differences(documented("codepipeline_action_failed"), sent.find(ACTION, "Build terminated with state: FAILED")) == set()
    event = sent.find(EXECUTION, '"SUCCEEDED"')
    assert differences(documented("codepipeline_execution_succeeded"), event) == set()
    assert event["detail"]["execution-trigger"]["tag-name"] == "v2"
    assert event["detail"]["execution-trigger"]["commit-message"] == "Add v2"


def test_a_pipeline_that_is_stopped_and_tried_again(sent: Sent, lab: helpers_functions.Lab, shop: Workshop) -> None:
    name, execution = shop.create(shop.source(), stage("Approve", action("Ask", "Approval/Manual")))
    lab.poll(lambda: "Ask" in shop.actions(name, execution))
    which = {"pipelineName": name, "pipelineExecutionId": execution}
    shop.client("codepipeline").stop_pipeline_execution(**which, abandon=True, reason="for an update")
    event = sent.find(EXECUTION, '"STOPPING"')
    assert differences(documented("codepipeline_execution_stopping"), event) == set()
    assert event["detail"]["stop-execution-comments"] == "for an update"
    assert differences(documented("codepipeline_action_abandoned"), sent.find(ACTION, '"ABANDONED"')) == set()
    # A stage that stops is told of as one that starts.
    for state in ("STOPPING", "STOPPED"):
        assert differences(documented("codepipeline_stage_started"), sent.find(STAGE, f'"{state}"')) == set()
    lab.poll(lambda: shop.status(name, execution) == "Stopped")
    shop.client("codepipeline").retry_stage_execution(**which, stageName="Approve", retryMode="FAILED_ACTIONS")
    assert differences(documented("codepipeline_stage_resumed"), sent.find(STAGE, '"RESUMED"')) == set()


# ------------------------------------------------------------------------------------------------------------- the comparison


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda detail: detail.pop("EndpointStatus"), "- detail.EndpointStatus"),
        (lambda detail: detail.update(Status="InService"), "+ detail.Status"),
        (lambda detail: detail.update(CreationTime="2026-01-01"), "! detail.CreationTime: a number is a text"),
        (lambda detail: detail["ProductionVariants"][0].pop("DesiredWeight"), "- detail.ProductionVariants.DesiredWeight"),
        (lambda detail: detail.update(Tags={"anything": "goes"}), None),
    ],
)
def test_a_difference_is_seen(change: Callable[[dict[str, Any]], Any], found: str | None) -> None:
    event = documented("endpoint")
    change(event["detail"])
    assert differences(documented("endpoint"), event) == ({found} if found else set())
