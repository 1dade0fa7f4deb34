"""Executions over a region that runs no jobs: order, failure, stop, retry, cache, records and reports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from helpers_localcloud_pipelines import (
    CACHED,
    PIPELINE_ARN,
    Json,
    Runner,
    compare,
    condition,
    definition,
    fail,
    get,
    join,
    json_get,
    processing,
    training,
)
from localcloud.errors import LocalCloudError, ServiceError
from localcloud.sagemaker.pipelines import engine as engine_module
from localcloud.sagemaker.pipelines.engine import FAILURE_REASON, INTERRUPTED_REASON, Engine
from localcloud.sagemaker.pipelines.host import Invocation
from localcloud.sagemaker.pipelines.store import now

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:f"
REPORT: dict[str, Any] = {"PropertyFiles": [{"PropertyFileName": "Report", "OutputName": "evaluation", "FilePath": "evaluation.json"}]}
TRAIN_DATA = get("Steps.Prepare.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    found = Runner(tmp_path)
    yield found
    found.close()


def lambda_step(name: str, arguments: Json | None = None, outputs: Json | None = None, **members: Any) -> Json:
    listed = [{"OutputName": key, "OutputType": kind} for key, kind in (outputs or {}).items()]
    return {"Name": name, "Type": "Lambda", "FunctionArn": FUNCTION, "Arguments": arguments or {}, "OutputParameters": listed, **members}


def gate(else_message: Any = "too bad") -> Json:
    return definition(
        processing("Evaluate", outputs=["evaluation"], **REPORT),
        condition(
            "Gate",
            compare("GreaterThanOrEqualTo", json_get("Evaluate", "Report", "scones.accuracy"), get("Parameters.Minimum")),
            if_steps=[lambda_step("Good")],
            else_steps=[fail("Missed", else_message)],
        ),
        parameters=[{"Name": "Minimum", "Type": "Float", "DefaultValue": 0.9}],
    )


def report(runner: Runner, accuracy: float) -> None:
    """Let every Evaluate job write this accuracy."""
    original = runner.host._end

    def end(job: Json, status: str, reason: str | None) -> None:
        for output in job.get("ProcessingOutputConfig", {}).get("Outputs", []):
            runner.host.objects[f"{output['S3Output']['S3Uri']}/evaluation.json"] = json.dumps({"scones": {"accuracy": accuracy}}).encode()
        original(job, status, reason)

    runner.host._end = end  # type: ignore[method-assign]


def test_data_flows_from_step_to_step(runner: Runner) -> None:
    document = definition(
        processing("Prepare", {"raw": get("Parameters.Data")}, ["train"]),
        training("Train", {"train": TRAIN_DATA}, {"epochs": join(get("Parameters.Epochs")), "name": get("Execution.TrainingJobName")}),
        processing("Evaluate", {"model": get("Steps.Train.ModelArtifacts.S3ModelArtifacts")}),
        parameters=[{"Name": "Data", "Type": "String"}, {"Name": "Epochs", "Type": "Integer", "DefaultValue": 3}],
    )
    arn = runner.run(document, {"Data": "s3://b/raw"})
    identifier = arn.rpartition("/")[2]
    assert runner.execution(arn)["Status"] == "Succeeded"
    assert list(runner.statuses(arn)) == ["Prepare", "Train", "Evaluate"]
    prepare, evaluate = runner.host.created("CreateProcessingJob")
    (train,) = runner.host.created("CreateTrainingJob")
    assert re.fullmatch(rf"pipelines-{identifier}-Prepare-[A-Za-z0-9]{{10}}", prepare["ProcessingJobName"])
    assert prepare["ProcessingInputs"][0]["S3Input"]["S3Uri"] == "s3://b/raw"
    assert train["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] == f"s3://b/{identifier}/Prepare/train"
    assert train["HyperParameters"] == {"epochs": "3", "name": train["TrainingJobName"]}
    assert evaluate["ProcessingInputs"][0]["S3Input"]["S3Uri"] == f"s3://b/models/{train['TrainingJobName']}/output/model.tar.gz"
    assert {"Key": "sagemaker:pipeline-execution-arn", "Value": arn} in train["Tags"]
    step = runner.steps(arn)["Train"]
    assert step["Metadata"] == {"TrainingJob": {"Arn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{train['TrainingJobName']}"}}
    assert step["AttemptCount"] == 1
    assert step["StartTime"] <= step["EndTime"]


def test_only_the_branch_taken_runs(runner: Runner) -> None:
    report(runner, 0.95)
    runner.host.functions[FUNCTION] = lambda payload: Invocation(None, {})
    arn = runner.run(gate())
    assert runner.statuses(arn) == {"Evaluate": "Succeeded", "Gate": "Succeeded", "Good": "Succeeded"}
    assert runner.steps(arn)["Gate"]["Metadata"] == {"Condition": {"Outcome": "True"}}
    assert runner.execution(arn)["Status"] == "Succeeded"


def test_a_fail_step_fails_the_execution_with_its_message(runner: Runner) -> None:
    report(runner, 0.5)
    message = join(
        "accuracy ",
        json_get("Evaluate", "Report", "scones.accuracy"),
        " < ",
        get("Parameters.Minimum"),
        " outcome ",
        get("Steps.Gate.Outcome"),
    )
    arn = runner.run(gate(message))
    assert runner.statuses(arn) == {"Evaluate": "Succeeded", "Gate": "Succeeded", "Missed": "Failed"}
    missed = runner.steps(arn)["Missed"]
    assert missed["FailureReason"] == "accuracy 0.5 < 0.9 outcome false"
    assert missed["Metadata"] == {"Fail": {"ErrorMessage": "accuracy 0.5 < 0.9 outcome false"}}
    execution = runner.execution(arn)
    assert (execution["Status"], execution["FailureReason"]) == ("Failed", FAILURE_REASON)


def test_a_fail_step_without_a_message_has_no_failure_reason(runner: Runner) -> None:
    arn = runner.run(definition(fail("F")))
    assert "FailureReason" not in runner.steps(arn)["F"]
    assert runner.steps(arn)["F"]["Metadata"] == {"Fail": {"ErrorMessage": ""}}


def test_a_failed_step_lets_running_ones_finish_and_starts_nothing_more(runner: Runner) -> None:
    runner.host.behaviour = {"Slow": "wait", "Bad": "wait"}
    document = definition(processing("Slow"), processing("Bad"), processing("After", DependsOn=["Slow"]))
    arn = runner.start(document)
    runner.wait_for(lambda: runner.statuses(arn) == {"Slow": "Executing", "Bad": "Executing"})
    runner.host.finish("Bad", "Failed", "AlgorithmError: no")
    runner.wait_for(lambda: runner.statuses(arn)["Bad"] == "Failed")
    assert runner.execution(arn)["Status"] == "Executing"
    runner.host.finish("Slow")
    assert runner.wait(arn)["Status"] == "Failed"
    assert runner.statuses(arn) == {"Slow": "Succeeded", "Bad": "Failed"}
    assert runner.steps(arn)["Bad"]["FailureReason"] == "ClientError: AlgorithmError: no"


def test_a_long_failure_reason_is_cut_to_what_the_api_allows(runner: Runner) -> None:
    runner.host.behaviour = {"Bad": "Failed: " + "x" * 2000}
    arn = runner.run(definition(processing("Bad")))
    assert len(runner.steps(arn)["Bad"]["FailureReason"]) == 1024


def test_a_refused_request_says_what_was_refused(runner: Runner) -> None:
    runner.host.refusals["CreateProcessingJob"] = [ServiceError("ValidationException", "Could not assume role r.")]
    arn = runner.run(definition(processing("P")))
    step = runner.steps(arn)["P"]
    assert step["FailureReason"] == "ClientError: Failed to invoke sagemaker:CreateProcessingJob. Error Details: Could not assume role r."
    assert step["Metadata"] == {}


def test_a_resource_limit_without_a_policy_fails_in_awss_words(runner: Runner) -> None:
    runner.host.refusals["CreateTrainingJob"] = [ServiceError("ResourceLimitExceeded", "The account-level service limit is 0.")]
    arn = runner.run(definition(training("T")))
    assert runner.steps(arn)["T"]["FailureReason"] == (
        "ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: The account-level service limit is 0.\n"
        f"Retry not appropriate on execution of step with PipelineExecutionArn {arn} and StepId T."
        " No retry policy configured for the exception type SAGEMAKER_RESOURCE_LIMIT."
    )


def test_a_missing_value_in_a_property_file_fails_the_condition(runner: Runner) -> None:
    arn = runner.run(gate())
    reason = runner.steps(arn)["Gate"]["FailureReason"]
    assert "Unable to get the JSON file s3://b/" in reason
    assert "evaluation.json" in reason


def test_a_fault_of_localcloud_ends_the_step_and_not_the_process(runner: Runner) -> None:
    def broken(payload: Any) -> NoReturn:
        raise ZeroDivisionError("division by zero")

    runner.host.functions[FUNCTION] = broken
    arn = runner.run(definition(lambda_step("L")))
    assert runner.steps(arn)["L"]["FailureReason"] == "InternalServerError: ZeroDivisionError: division by zero"


def test_a_full_disk_delays_the_record_and_loses_nothing(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_RECORD_AGAIN_SECONDS", 0.01)
    put = runner.store.steps.put
    refusals = iter(range(3))

    def full_for_a_while(key: str, document: Json) -> None:
        if document["Status"] == "Succeeded" and next(refusals, None) is not None:
            raise LocalCloudError("The state cannot be saved: database or disk is full.")
        put(key, document)

    monkeypatch.setattr(runner.store.steps, "put", full_for_a_while)
    arn = runner.run(definition(processing("P")))
    assert next(refusals, None) is None
    assert runner.statuses(arn) == {"P": "Succeeded"}
    assert len(runner.host.created("CreateProcessingJob")) == 1


def test_retry_policies_start_a_new_job(runner: Runner) -> None:
    runner.host.behaviour = {"T": "wait"}
    policies = [{"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 0, "BackoffRate": 1.0, "MaxAttempts": 2}]
    arn = runner.start(definition(training("T", RetryPolicies=policies)))
    for attempt in (1, 2):

        def running(attempt: int = attempt) -> bool:
            return len(runner.host.created("CreateTrainingJob")) == attempt and runner.statuses(arn)["T"] == "Executing"

        runner.wait_for(running)
        runner.host.finish("T", "Failed", "CapacityError: none left")
    runner.wait_for(lambda: len(runner.host.created("CreateTrainingJob")) == 3)
    runner.host.finish("T")
    assert runner.wait(arn)["Status"] == "Succeeded"
    assert runner.steps(arn)["T"]["AttemptCount"] == 3
    assert len({job["TrainingJobName"] for job in runner.host.created("CreateTrainingJob")}) == 3


def test_retries_that_run_out_leave_the_last_reason(runner: Runner) -> None:
    runner.host.behaviour = {"T": "Failed: CapacityError: none left"}
    policies = [{"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 0, "MaxAttempts": 1}]
    arn = runner.run(definition(training("T", RetryPolicies=policies)))
    step = runner.steps(arn)["T"]
    assert (step["AttemptCount"], step["FailureReason"]) == (2, "ClientError: CapacityError: none left")


def test_throttling_is_retried_without_a_policy_of_its_own_delay(runner: Runner) -> None:
    policies = [{"ExceptionType": ["Step.THROTTLING"], "IntervalSeconds": 0, "MaxAttempts": 1}]
    runner.host.refusals["CreateProcessingJob"] = [ServiceError("ThrottlingException", "Rate exceeded")]
    arn = runner.run(definition(processing("P", RetryPolicies=policies)))
    assert runner.steps(arn)["P"]["AttemptCount"] == 2
    assert runner.execution(arn)["Status"] == "Succeeded"


def test_no_more_steps_run_at_once_than_the_configuration_says(runner: Runner) -> None:
    names = [f"P{index}" for index in range(5)]
    runner.host.behaviour = dict.fromkeys(names, "wait")
    arn = runner.start(definition(*(processing(name) for name in names)), Parallelism={"MaxParallelExecutionSteps": 2})
    for done in range(5):
        running = min(2, 5 - done)
        runner.wait_for(lambda running=running: list(runner.statuses(arn).values()).count("Executing") == running)  # type: ignore[misc]
        assert len(runner.host.created("CreateProcessingJob")) == done + running
        runner.host.finish(next(name for name, status in runner.statuses(arn).items() if status == "Executing"))
        runner.wait_for(lambda done=done: list(runner.statuses(arn).values()).count("Succeeded") == done + 1)  # type: ignore[misc]
    assert runner.wait(arn)["Status"] == "Succeeded"


def test_stop_stops_the_jobs_and_starts_nothing_more(runner: Runner) -> None:
    runner.host.behaviour = {"A": "wait"}
    arn = runner.start(definition(training("A"), processing("B", DependsOn=["A"])))
    runner.wait_for(lambda: runner.statuses(arn).get("A") == "Executing")
    runner.stop(arn)
    assert runner.wait(arn)["Status"] == "Stopped"
    assert runner.statuses(arn) == {"A": "Stopped"}
    assert len(runner.host.created("StopTrainingJob")) == 1
    statuses = [detail["currentStepStatus"] for kind, detail, _ in runner.host.events if "stepName" in detail]
    assert statuses == ["Starting", "Executing", "Stopping", "Stopped"]


def test_stop_ends_a_wait_between_attempts(runner: Runner) -> None:
    runner.host.behaviour = {"T": "Failed: CapacityError: none left"}
    policies = [{"ExceptionType": ["SageMaker.CAPACITY_ERROR"], "IntervalSeconds": 3600, "MaxAttempts": 1}]
    arn = runner.start(definition(training("T", RetryPolicies=policies)))
    runner.wait_for(lambda: runner.statuses(arn).get("T") == "Executing")
    runner.stop(arn)
    assert runner.wait(arn)["Status"] == "Stopped"
    assert runner.statuses(arn) == {"T": "Stopped"}


def test_a_job_stopped_by_someone_else_fails_its_step(runner: Runner) -> None:
    runner.host.behaviour = {"T": "wait"}
    arn = runner.start(definition(training("T")))
    runner.wait_for(lambda: runner.statuses(arn).get("T") == "Executing")
    runner.host.finish("T", "Stopped")
    assert runner.wait(arn)["Status"] == "Failed"
    assert "was stopped" in runner.steps(arn)["T"]["FailureReason"]


def test_retry_runs_what_failed_and_what_never_ran(runner: Runner) -> None:
    runner.host.behaviour = {"B": "Failed: AlgorithmError: no"}
    document = definition(
        processing("A", outputs=["train"]),
        training("B", {"train": get("Steps.A.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri")}),
        condition("C", compare("Equals", 1, 1), if_steps=[processing("D")], DependsOn=["B"]),
    )
    arn = runner.run(document)
    assert runner.statuses(arn) == {"A": "Succeeded", "B": "Failed"}
    first = runner.steps(arn)["A"]
    runner.host.behaviour = {}
    runner.retry(arn)
    execution = runner.wait(arn)
    assert execution["Status"] == "Succeeded"
    assert "FailureReason" not in execution
    assert runner.statuses(arn) == {"A": "Succeeded", "B": "Succeeded", "C": "Succeeded", "D": "Succeeded"}
    assert runner.steps(arn)["A"] == first
    assert runner.steps(arn)["B"]["AttemptCount"] == 2
    assert "FailureReason" not in runner.steps(arn)["B"]


def cached_pipeline(**changes: Any) -> Json:
    return definition(
        processing("Prepare", {"raw": get("Parameters.Data")}, ["train"], **CACHED),
        training("Train", {"train": TRAIN_DATA}, changes.get("hyperparameters", {"epochs": "1"}), **CACHED),
        parameters=[{"Name": "Data", "Type": "String", "DefaultValue": "s3://b/1"}],
    )


def test_a_second_run_takes_everything_from_the_cache(runner: Runner) -> None:
    first = runner.run(cached_pipeline())
    second = runner.run(cached_pipeline())
    assert runner.execution(second)["Status"] == "Succeeded"
    assert len(runner.host.created("CreateProcessingJob")) == len(runner.host.created("CreateTrainingJob")) == 1
    for name, step in runner.steps(second).items():
        assert step["CacheHit"] == first
        assert step["Metadata"] == runner.steps(first)[name]["Metadata"]
        assert step["Properties"] == runner.steps(first)[name]["Properties"]
        assert step["Cache"] == {"hit": True, "source": first}
    # The third finds the result where it was computed, not at the second.
    assert runner.steps(runner.run(cached_pipeline()))["Train"]["CacheHit"] == first


def test_a_miss_names_the_input_that_changed(runner: Runner) -> None:
    first = runner.run(cached_pipeline())
    second = runner.run(cached_pipeline(hyperparameters={"epochs": "2"}))
    steps = runner.steps(second)
    assert steps["Prepare"]["CacheHit"] == first
    assert "CacheHit" not in steps["Train"]
    assert steps["Train"]["Cache"] == {
        "hit": False,
        "reason": f"Changed since {first}: HyperParameters.epochs: '1' -> '2'",
        "changed": ["HyperParameters.epochs: '1' -> '2'"],
    }
    line = next(line for _, _, line in runner.host.lines if line["step"] == "Train" and line.get("cache", {}).get("changed"))
    assert line["cache"]["changed"] == ["HyperParameters.epochs: '1' -> '2'"]


def test_a_changed_parameter_is_a_miss_for_what_uses_it_and_all_that_follows(runner: Runner) -> None:
    runner.run(cached_pipeline())
    second = runner.run(cached_pipeline(), {"Data": "s3://b/2"})
    steps = runner.steps(second)
    assert steps["Prepare"]["Cache"]["changed"] == ["ProcessingInputs.raw.S3Input.S3Uri: 's3://b/1' -> 's3://b/2'"]
    assert [change.partition(":")[0] for change in steps["Train"]["Cache"]["changed"]] == [
        "InputDataConfig.train.DataSource.S3DataSource.S3Uri"
    ]


def test_failed_runs_are_not_reused(runner: Runner) -> None:
    runner.host.behaviour = {"Train": "Failed: no"}
    runner.run(cached_pipeline())
    runner.host.behaviour = {}
    second = runner.run(cached_pipeline())
    assert "CacheHit" in runner.steps(second)["Prepare"]
    assert "CacheHit" not in runner.steps(second)["Train"]
    assert runner.execution(second)["Status"] == "Succeeded"


def test_a_result_whose_output_is_gone_is_not_reused(runner: Runner) -> None:
    first = runner.run(cached_pipeline())
    identifier = first.rpartition("/")[2]
    del runner.host.objects[f"s3://b/{identifier}/Prepare/train/data"]
    steps = runner.steps(runner.run(cached_pipeline()))
    assert steps["Prepare"]["Cache"]["reason"] == f"What the run of {first} made is gone."
    assert "CacheHit" not in steps["Prepare"]


def test_a_result_older_than_expire_after_is_not_reused(runner: Runner) -> None:
    first = runner.run(cached_pipeline())
    old = runner.steps(first)["Prepare"]
    runner.store.put_step(old | {"StartTime": now() - timedelta(days=31), "EndTime": now() - timedelta(days=31)})
    steps = runner.steps(runner.run(cached_pipeline()))
    assert steps["Prepare"]["Cache"]["reason"] == f"The run of {first} is older than ExpireAfter."


def test_caching_is_off_unless_it_is_enabled(runner: Runner) -> None:
    document = definition(processing("P", CacheConfig={"Enabled": False, "ExpireAfter": "P1D"}), processing("Q"))
    runner.run(document)
    second = runner.run(document)
    assert all("CacheHit" not in step and "Cache" not in step for step in runner.steps(second).values())


def model_pipeline(**members: Any) -> Json:
    return definition(
        {
            "Name": "Model",
            "Type": "Model",
            "Arguments": {"ExecutionRoleArn": "arn:aws:iam::123456789012:role/model", "PrimaryContainer": {"Image": "i"}},
            **members,
        },
        {
            "Name": "Config",
            "Type": "EndpointConfig",
            "Arguments": {
                "EndpointConfigName": "staging",
                "ProductionVariants": [
                    {
                        "VariantName": "A",
                        "ModelName": get("Steps.Model.ModelName"),
                        "InstanceType": "ml.m5.large",
                        "InitialInstanceCount": 1,
                    }
                ],
            },
        },
        {
            "Name": "Endpoint",
            "Type": "Endpoint",
            "Arguments": {"EndpointName": "staging", "EndpointConfigName": get("Steps.Config.EndpointConfigName")},
        },
    )


def test_an_endpoint_is_made_and_then_updated(runner: Runner) -> None:
    first = runner.run(model_pipeline())
    second = runner.run(model_pipeline())
    identifier = first.rpartition("/")[2]
    (created,) = runner.host.created("CreateEndpoint")
    assert created["EndpointName"] == "staging"
    assert re.fullmatch(rf"staging-{identifier}-[A-Za-z0-9]{{10}}-0", created["EndpointConfigName"])
    (updated,) = runner.host.created("UpdateEndpoint")
    assert updated["EndpointName"] == "staging"
    assert updated["EndpointConfigName"] != created["EndpointConfigName"]
    assert runner.steps(second)["Endpoint"]["Metadata"] == {"Endpoint": {"Arn": "arn:endpoint/staging"}}
    assert runner.statuses(second) == {"Model": "Succeeded", "Config": "Succeeded", "Endpoint": "Succeeded"}


def test_an_update_that_is_rolled_back_fails_the_step(runner: Runner) -> None:
    runner.run(model_pipeline())
    runner.host.behaviour = {"UpdateEndpoint": "rolls back"}
    arn = runner.run(model_pipeline())
    assert runner.statuses(arn)["Endpoint"] == "Failed"
    assert "InService with configuration staging-" in runner.steps(arn)["Endpoint"]["FailureReason"]


def test_models_are_not_cached_and_it_is_said(runner: Runner) -> None:
    runner.run(model_pipeline(**CACHED))
    second = runner.run(model_pipeline(**CACHED))
    assert len(runner.host.created("CreateModel")) == 2
    assert runner.steps(second)["Model"]["Cache"] == {"hit": False, "reason": "Steps of type Model are not cached."}


def test_registering_makes_the_group_and_says_who_generated_it(runner: Runner) -> None:
    document = definition(
        {"Name": "R", "Type": "RegisterModel", "Arguments": {"ModelPackageGroupName": "g", "ModelApprovalStatus": "Approved"}}
    )
    arn = runner.run(document)
    runner.run(document)
    assert len(runner.host.created("CreateModelPackageGroup")) == 1
    assert runner.host.created("CreateModelPackage")[0] == {
        "ModelPackageGroupName": "g",
        "ModelApprovalStatus": "Approved",
        "MetadataProperties": {"GeneratedBy": arn},
    }
    assert runner.steps(arn)["R"]["Metadata"] == {"RegisterModel": {"Arn": "arn:model-package/g/1"}}


def test_a_lambda_steps_answer_has_types(runner: Runner) -> None:
    received: list[Any] = []

    def function(payload: Any) -> Invocation:
        received.append(payload)
        return Invocation(None, {"n": 3, "ok": True, "text": "x", "ignored": []})

    runner.host.functions[FUNCTION] = function
    arn = runner.run(
        definition(
            lambda_step("L", {"a": [get("Parameters.P")]}, {"n": "Integer", "ok": "Boolean", "text": "String"}),
            condition(
                "C",
                compare("GreaterThan", get("Steps.L.OutputParameters['n']"), 2),
                if_steps=[fail("F", join(get("Steps.L.OutputParameters['ok']")))],
            ),
            parameters=[{"Name": "P", "Type": "Integer", "DefaultValue": 7}],
        )
    )
    assert received == [{"a": [7]}]
    assert runner.steps(arn)["F"]["FailureReason"] == "true"
    assert runner.steps(arn)["L"]["Metadata"]["Lambda"] == {
        "Arn": FUNCTION,
        "OutputParameters": [{"Name": "n", "Value": "3"}, {"Name": "ok", "Value": "true"}, {"Name": "text", "Value": "x"}],
    }


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            Invocation("Unhandled", {"errorType": "ValueError", "errorMessage": "no"}),
            f"ClientError: Lambda function {FUNCTION} failed: ValueError: no",
        ),
        (Invocation(None, {}), "ClientError: The output parameter 'n' of step 'L' was not returned."),
        (Invocation(None, {"n": "many"}), "ClientError: The output parameter 'n' of step 'L' is not of type Integer: 'many'"),
    ],
)
def test_a_lambda_step_fails_with_the_functions_reason(runner: Runner, answer: Invocation, reason: str) -> None:
    runner.host.functions[FUNCTION] = lambda payload: answer
    arn = runner.run(definition(lambda_step("L", outputs={"n": "Integer"})))
    assert runner.steps(arn)["L"]["FailureReason"] == reason


CALLBACK = {
    "Name": "Ask",
    "Type": "Callback",
    "SqsQueueUrl": "http://q",
    "Arguments": {"who": "me"},
    "OutputParameters": [{"OutputName": "n", "OutputType": "Integer"}],
}


def test_a_callback_step_waits_for_its_answer(runner: Runner) -> None:
    arn = runner.start(definition(CALLBACK, fail("After", join(get("Steps.Ask.OutputParameters['n']")))))
    runner.wait_for(lambda: runner.statuses(arn).get("Ask") == "Executing")
    ((url, message),) = runner.host.messages
    assert (url, message["pipelineExecutionArn"], message["status"], message["arguments"]) == ("http://q", arn, "Executing", {"who": "me"})
    with pytest.raises(ServiceError, match="is not of type Integer"):
        runner.engine.callbacks.succeed(message["token"], {"n": "x"})
    with pytest.raises(ServiceError, match="not declared"):
        runner.engine.callbacks.succeed(message["token"], {"n": "1", "m": "1"})
    assert runner.engine.callbacks.succeed(message["token"], {"n": "5"}) == arn
    runner.host.announce()
    runner.wait(arn)
    assert runner.steps(arn)["After"]["FailureReason"] == "5"
    assert runner.steps(arn)["Ask"]["Metadata"]["Callback"]["OutputParameters"] == [{"Name": "n", "Value": "5"}]
    with pytest.raises(ServiceError, match="No callback step waits"):
        runner.engine.callbacks.succeed(message["token"], {"n": "5"})


def test_a_stopped_execution_tells_the_queue_and_waits_for_the_callback(runner: Runner) -> None:
    arn = runner.start(definition(CALLBACK))
    runner.wait_for(lambda: runner.statuses(arn).get("Ask") == "Executing")
    token = runner.host.messages[0][1]["token"]
    runner.stop(arn)
    runner.wait_for(lambda: len(runner.host.messages) == 2 or runner.statuses(arn)["Ask"] == "Stopping")
    runner.engine.callbacks.fail(token, "cleaned up")
    runner.host.announce()
    execution = runner.wait(arn)
    assert [message["status"] for _, message in runner.host.messages] == ["Executing", "Stopping"]
    assert runner.steps(arn)["Ask"]["FailureReason"] == "cleaned up"
    assert execution["Status"] == "Failed"


def test_what_ends_well_while_stopping_starts_nothing_more(runner: Runner) -> None:
    arn = runner.start(definition(CALLBACK, processing("After", DependsOn=["Ask"])))
    runner.wait_for(lambda: runner.statuses(arn).get("Ask") == "Executing")
    runner.stop(arn)
    runner.engine.callbacks.succeed(runner.host.messages[0][1]["token"], {"n": "1"})
    runner.host.announce()
    assert runner.wait(arn)["Status"] == "Stopped"
    assert runner.statuses(arn) == {"Ask": "Succeeded"}


def test_events_have_awss_shapes(runner: Runner) -> None:
    arn = runner.run(definition(processing("P")))
    resources = [PIPELINE_ARN, arn]
    executions = [
        (detail, names) for kind, detail, names in runner.host.events if kind == "SageMaker Model Building Pipeline Execution Status Change"
    ]
    steps = [
        (detail, names)
        for kind, detail, names in runner.host.events
        if kind == "SageMaker Model Building Pipeline Execution Step Status Change"
    ]
    assert all(names == resources for _, names in executions + steps)
    detail = executions[-1][0]
    assert set(detail) == {
        "pipelineExecutionDisplayName",
        "currentPipelineExecutionStatus",
        "previousPipelineExecutionStatus",
        "executionStartTime",
        "executionEndTime",
        "pipelineArn",
        "pipelineExecutionArn",
    }
    assert (detail["previousPipelineExecutionStatus"], detail["currentPipelineExecutionStatus"]) == ("Executing", "Succeeded")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", detail["executionEndTime"])
    detail = steps[-1][0]
    assert detail["metadata"] == {"processingJob": {"arn": runner.steps(arn)["P"]["Metadata"]["ProcessingJob"]["Arn"]}}
    assert (detail["stepName"], detail["stepType"], detail["previousStepStatus"], detail["currentStepStatus"]) == (
        "P",
        "Processing",
        "Executing",
        "Succeeded",
    )
    assert set(detail) == {
        "metadata",
        "stepStartTime",
        "stepEndTime",
        "stepName",
        "stepType",
        "previousStepStatus",
        "currentStepStatus",
        "pipelineArn",
        "pipelineExecutionArn",
    }


def test_events_of_cache_hits_and_failures_say_so(runner: Runner) -> None:
    first = runner.run(cached_pipeline())
    runner.run(cached_pipeline())
    hit = runner.host.events[-2][1]
    assert hit["cacheHitResult"] == {"sourcePipelineExecutionArn": first}
    runner.host.behaviour = {"Bad": "Failed: AlgorithmError: no"}
    runner.run(definition(processing("Bad")))
    assert runner.host.events[-2][1]["failureReason"] == "ClientError: AlgorithmError: no"


def test_step_events_are_logged_as_json_lines(runner: Runner) -> None:
    arn = runner.run(definition(processing("P")))
    assert {(group, stream) for group, stream, _ in runner.host.lines} == {("/aws/sagemaker/Pipelines/p", arn.rpartition("/")[2])}
    assert [(line["step"], line["type"], line["status"]) for _, _, line in runner.host.lines] == [
        ("P", "Processing", "Starting"),
        ("P", "Processing", "Executing"),
        ("P", "Processing", "Succeeded"),
    ]


def test_what_a_killed_process_left_running_is_failed_at_the_next_start(runner: Runner) -> None:
    runner.host.behaviour = {"B": "wait"}
    arn = runner.start(definition(processing("A"), processing("B", DependsOn=["A"])))
    runner.wait_for(lambda: runner.statuses(arn).get("B") == "Executing")
    before = runner.steps(arn)["A"]
    runner.host.close()
    runner.engine.join(5)
    assert runner.execution(arn)["Status"] == "Executing"
    assert runner.statuses(arn) == {"A": "Succeeded", "B": "Executing"}

    runner.host.closing = False
    runner.host.behaviour = {}
    runner.engine = Engine(runner.store, runner.host)
    runner.engine.recover()
    assert runner.statuses(arn) == {"A": "Succeeded", "B": "Failed"}
    assert runner.steps(arn)["A"] == before
    assert runner.steps(arn)["B"]["FailureReason"] == INTERRUPTED_REASON
    assert runner.execution(arn)["Status"] == "Failed"
    runner.retry(arn)
    assert runner.wait(arn)["Status"] == "Succeeded"
    assert runner.steps(arn)["A"] == before


def test_a_selective_execution_leaves_the_rest_out(runner: Runner) -> None:
    arn = runner.run(definition(processing("A"), processing("B"), processing("C", DependsOn=["B"])), SelectedSteps=["B"])
    assert runner.statuses(arn) == {"B": "Succeeded"}
    assert runner.execution(arn)["Status"] == "Succeeded"
