"""How executions run: data flow, retries, catches, branches, maps, variables, both query languages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from localcloud.stepfunctions.definition import compile_definition
from localcloud.stepfunctions.errors import StateError
from localcloud.stepfunctions.history import History
from localcloud.stepfunctions.integrations import Integration
from localcloud.stepfunctions.interpreter import Interpreter
from localcloud.stepfunctions.tasks import TaskRunner

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:"
CONTEXT = {
    "Execution": {"Id": "e", "Input": {}, "Name": "n", "RoleArn": "r", "StartTime": "2026-01-01T00:00:00.000Z"},
    "StateMachine": {"Id": "m", "Name": "m"},
}


class FakeRunner(TaskRunner):
    """Runs functions of the test instead of AWS's: by the last part of the resource's ARN."""

    def __init__(self, functions: dict[str, Callable[[Any], Any]]) -> None:
        self.functions = functions
        self.calls: list[tuple[str, Any]] = []

    async def run(self, integration: Integration, parameters: Any) -> Any:
        name = integration.resource.rpartition(":")[2]
        self.calls.append((name, parameters))
        result = self.functions[name](parameters)
        return await result if asyncio.iscoroutine(result) else result


def execute(definition: dict[str, Any], value: Any, **functions: Callable[[Any], Any]) -> tuple[Any, History, FakeRunner]:
    """Return (output or the StateError, history, runner)."""
    runner, history = FakeRunner(functions), History()

    async def run() -> Any:
        started = history.add("ExecutionStarted", 0)
        try:
            return await Interpreter(compile_definition(json.dumps(definition)), runner, history, CONTEXT, "us-east-1").run(value, started)
        except StateError as error:
            return error

    return asyncio.run(run()), history, runner


def chain(**states: dict[str, Any]) -> dict[str, Any]:
    return {"StartAt": next(iter(states)), "States": states}


def task(name: str = "f", **members: Any) -> dict[str, Any]:
    flow = {} if "Next" in members else {"End": True}
    return {"Type": "Task", "Resource": FUNCTION + name, **flow, **members}


def fail(error: str, cause: str = "why") -> Callable[[Any], Any]:
    def raise_it(_: Any) -> Any:
        raise StateError(error, cause)

    return raise_it


def types(history: History) -> list[str]:
    return [event["type"] for event in history.events]


# Data flow


def test_the_order_of_the_five_fields() -> None:
    state = task(
        InputPath="$.in",
        Parameters={"n.$": "$.n", "name.$": "$$.State.Name"},
        ResultSelector={"double.$": "$.v"},
        ResultPath="$.out",
        OutputPath="$.out",
    )
    output, _, runner = execute(chain(A=state), {"in": {"n": 2}, "keep": 1}, f=lambda parameters: {"v": parameters["n"] * 2, "noise": 1})
    assert runner.calls == [("f", {"n": 2, "name": "A"})]
    assert output == {"double": 4}


def test_result_path_puts_the_result_into_the_whole_input() -> None:
    output, _, _ = execute(chain(A=task(InputPath="$.in", ResultPath="$.in.r")), {"in": {"n": 2}, "keep": 1}, f=lambda _: 3)
    assert output == {"in": {"n": 2, "r": 3}, "keep": 1}


def test_null_paths() -> None:
    assert execute(chain(A=task(ResultPath=None)), {"a": 1}, f=lambda _: 2)[0] == {"a": 1}
    assert execute(chain(A=task(InputPath=None)), {"a": 1}, f=lambda value: value)[0] == {}
    assert execute(chain(A=task(OutputPath=None)), {"a": 1}, f=lambda value: value)[0] == {}


def test_pass_states() -> None:
    definition = chain(
        A={"Type": "Pass", "Result": {"x": 1}, "ResultPath": "$.fixed", "Next": "B"},
        B={"Type": "Pass", "Parameters": {"all.$": "$", "kept": True}, "Next": "C"},
        C={"Type": "Succeed", "InputPath": "$.all"},
    )
    assert execute(definition, {"a": 0})[0] == {"a": 0, "fixed": {"x": 1}}


def test_input_is_not_changed_by_what_states_do() -> None:
    value = {"a": {"b": 1}}
    execute(chain(A={"Type": "Pass", "Result": 2, "ResultPath": "$.a.b", "End": True}), value)
    assert value == {"a": {"b": 1}}


def test_a_missing_path_fails_the_execution_with_the_states_name() -> None:
    error, _, _ = execute(chain(A={"Type": "Pass", "Parameters": {"x.$": "$.no"}, "End": True}), {})
    assert error.error == "States.Runtime"
    assert error.cause.startswith(
        "An error occurred while executing the state 'A' (entered at the event id #2). The JSONPath '$.no' specified for the field 'x.$'"
    )


# Choice, Wait, Fail


@pytest.mark.parametrize(("value", "expected"), [({"n": 1}, "low"), ({"n": 9}, "high"), ({"n": 5}, "default")])
def test_choice(value: Any, expected: str) -> None:
    definition = chain(
        C={
            "Type": "Choice",
            "Choices": [
                {"Variable": "$.n", "NumericLessThan": 3, "Next": "Low"},
                {"Variable": "$.n", "NumericGreaterThan": 7, "Next": "High"},
            ],
            "Default": "Other",
        },
        Low={"Type": "Pass", "Result": "low", "End": True},
        High={"Type": "Pass", "Result": "high", "End": True},
        Other={"Type": "Pass", "Result": "default", "End": True},
    )
    assert execute(definition, value)[0] == expected


def test_no_choice_matched() -> None:
    definition = chain(
        C={"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericEquals": 1, "Next": "P"}]}, P={"Type": "Pass", "End": True}
    )
    assert execute(definition, {"n": 2})[0].error == "States.NoChoiceMatched"


def test_wait_passes_its_input_on() -> None:
    definition = chain(
        A={"Type": "Wait", "SecondsPath": "$.s", "Next": "B"}, B={"Type": "Wait", "Timestamp": "2020-01-01T00:00:00Z", "Next": "C"},
        C={"Type": "Wait", "TimestampPath": "$.t", "End": True},
    )  # fmt: skip
    output, history, _ = execute(definition, {"s": 0, "t": "2021-01-01T00:00:00Z"})
    assert output == {"s": 0, "t": "2021-01-01T00:00:00Z"}
    assert types(history)[1:3] == ["WaitStateEntered", "WaitStateExited"]


def test_fail_with_texts_paths_and_functions() -> None:
    error = execute(chain(F={"Type": "Fail", "Error": "E", "Cause": "C"}), {})[0]
    assert (error.error, error.cause) == ("E", "C")
    error = execute(chain(F={"Type": "Fail", "ErrorPath": "$.e", "CausePath": "States.Format('{}!', $.c)"}), {"e": "E", "c": "C"})[0]
    assert (error.error, error.cause) == ("E", "C!")


# Retry and Catch


def flaky(failures: int, error: str = "Busy") -> Callable[[Any], Any]:
    left = [failures]

    def work(_: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise StateError(error, "why")
        return "done"

    return work


def no_delay(error: str, attempts: int) -> dict[str, Any]:
    return {"ErrorEquals": [error], "IntervalSeconds": 1, "MaxAttempts": attempts, "JitterStrategy": "FULL"}


@pytest.fixture(autouse=True)
def short_sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Back-off is counted, not waited for."""
    slept: list[float] = []
    original = asyncio.sleep

    async def sleep(seconds: float, result: Any = None) -> Any:
        slept.append(seconds)
        return await original(0, result)

    monkeypatch.setattr("localcloud.stepfunctions.interpreter.asyncio.sleep", sleep)
    monkeypatch.setattr("localcloud.stepfunctions.interpreter.random.uniform", lambda low, high: high)
    return slept


def test_retry_until_it_works(short_sleeps: list[float]) -> None:
    retry = [{"ErrorEquals": ["Busy"], "IntervalSeconds": 2, "BackoffRate": 3, "MaxAttempts": 3, "MaxDelaySeconds": 10}]
    output, history, runner = execute(chain(A=task(Retry=retry)), {}, f=flaky(3))
    assert output == "done"
    assert len(runner.calls) == 4
    assert short_sleeps == [2, 6, 10]
    assert types(history).count("TaskStateEntered") == 1
    assert types(history).count("LambdaFunctionFailed") == 3


def test_retry_gives_up_and_the_error_is_the_functions_own() -> None:
    error, _, runner = execute(chain(A=task(Retry=[no_delay("Busy", 2)])), {}, f=flaky(9))
    assert (error.error, len(runner.calls)) == ("Busy", 3)


def test_retriers_count_for_themselves_and_the_first_that_matches_counts() -> None:
    outcomes = iter(["A", "B", "A", "B"])
    retry = [no_delay("A", 1), no_delay("States.ALL", 1)]
    _, _, runner = execute(chain(A=task(Retry=retry)), {}, f=lambda _: fail(next(outcomes))(None))
    # A, retried; B, retried; A again: its retrier is used up.
    assert len(runner.calls) == 3


def test_zero_attempts_is_never_tried_again() -> None:
    assert len(execute(chain(A=task(Retry=[no_delay("States.ALL", 0)])), {}, f=fail("X"))[2].calls) == 1


def test_catch_by_name_keeps_the_input_and_goes_on() -> None:
    state = task(
        Catch=[{"ErrorEquals": ["Other"], "Next": "Wrong"}, {"ErrorEquals": ["LowConfidenceError"], "ResultPath": "$.low", "Next": "Review"},
               {"ErrorEquals": ["States.ALL"], "Next": "Wrong"}]
    )  # fmt: skip
    definition = chain(A=state, Review={"Type": "Pass", "End": True}, Wrong={"Type": "Fail"})
    output, _, _ = execute(definition, {"photo": 1}, f=fail("LowConfidenceError", '{"errorMessage":"0.5"}'))
    assert output == {"photo": 1, "low": {"Error": "LowConfidenceError", "Cause": '{"errorMessage":"0.5"}'}}


def test_catch_without_result_path_replaces_the_input_and_output_path_is_not_applied() -> None:
    definition = chain(A=task(OutputPath="$.x", Catch=[{"ErrorEquals": ["States.ALL"], "Next": "B"}]), B={"Type": "Pass", "End": True})
    assert execute(definition, {}, f=fail("E", "C"))[0] == {"Error": "E", "Cause": "C"}


def test_a_runtime_error_is_never_caught() -> None:
    definition = chain(
        A=task(Parameters={"x.$": "$.no"}, Catch=[{"ErrorEquals": ["States.ALL"], "Next": "B"}]), B={"Type": "Pass", "End": True}
    )
    assert execute(definition, {}, f=lambda _: 1)[0].error == "States.Runtime"


def test_a_task_that_takes_too_long_times_out_and_can_be_caught() -> None:
    async def slow(_: Any) -> None:
        await asyncio.Event().wait()

    # TimeoutSeconds are whole numbers from 1 in a definition; a path may give less.
    definition = chain(
        A=task(TimeoutSecondsPath="$.t", Catch=[{"ErrorEquals": ["States.Timeout"], "Next": "B"}]), B={"Type": "Pass", "End": True}
    )
    output, history, _ = execute(definition, {"t": 0.01}, f=slow)
    assert output == {"Error": "States.Timeout", "Cause": ""}
    assert "LambdaFunctionTimedOut" in types(history)


def test_a_result_that_is_too_large_is_refused_and_only_caught_by_name() -> None:
    big = {"x": "a" * 262_144}
    all_caught = chain(A=task(Catch=[{"ErrorEquals": ["States.ALL"], "Next": "B"}]), B={"Type": "Pass", "End": True})
    assert execute(all_caught, {}, f=lambda _: big)[0].error == "States.DataLimitExceeded"
    by_name = chain(A=task(Catch=[{"ErrorEquals": ["States.DataLimitExceeded"], "Next": "B"}]), B={"Type": "Pass", "End": True})
    assert execute(by_name, {}, f=lambda _: big)[0]["Error"] == "States.DataLimitExceeded"


def test_the_limit_counts_bytes_not_characters() -> None:
    fits = "é" * ((262_144 - 2) // 2)
    assert execute(chain(A=task()), {}, f=lambda _: fits)[0] == fits
    assert execute(chain(A=task()), {}, f=lambda _: fits + "é")[0].error == "States.DataLimitExceeded"


# Parallel and Map


def test_parallel_gives_each_branch_the_input_and_collects_in_order() -> None:
    branches = [
        {"StartAt": "B1", "States": {"B1": task("slow")}},
        {"StartAt": "B2", "States": {"B2": {"Type": "Pass", "End": True}}},
    ]

    async def slow(value: Any) -> Any:
        await asyncio.sleep(0)
        return {"seen": value}

    state = {"Type": "Parallel", "Branches": branches, "Parameters": {"v.$": "$.a"}, "ResultPath": "$.r", "End": True}
    output, history, _ = execute(chain(A=state), {"a": 1}, slow=slow)
    assert output == {"a": 1, "r": [{"seen": {"v": 1}}, {"v": 1}]}
    assert [name for name in types(history) if name.startswith("Parallel")] == [
        "ParallelStateEntered", "ParallelStateStarted", "ParallelStateSucceeded", "ParallelStateExited",
    ]  # fmt: skip


def test_a_branch_that_fails_ends_the_others_and_fails_the_state_with_its_error() -> None:
    ended = []

    async def slow(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    branches = [
        {"StartAt": "B1", "States": {"B1": task("slow")}},
        {"StartAt": "B2", "States": {"B2": {"Type": "Fail", "Error": "E", "Cause": "C"}}},
    ]
    state = {"Type": "Parallel", "Branches": branches, "Catch": [{"ErrorEquals": ["E"], "Next": "B"}], "End": True}
    output, _, _ = execute(chain(A=state, B={"Type": "Pass", "End": True}), {}, slow=slow)
    assert output == {"Error": "E", "Cause": "C"}
    assert ended == [True]


def mapping(**members: Any) -> dict[str, Any]:
    return {
        "Type": "Map",
        "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "I", "States": {"I": task()}},
        "End": True,
        **members,
    }


def test_map_over_items_with_a_selector() -> None:
    state = mapping(
        ItemsPath="$.items", ItemSelector={"v.$": "$$.Map.Item.Value", "i.$": "$$.Map.Item.Index", "k.$": "$.k"}, ResultPath="$.out"
    )
    output, history, _ = execute(chain(A=state), {"items": [5, 6], "k": "x"}, f=lambda value: [value["v"], value["i"], value["k"]])
    assert output["out"] == [[5, 0, "x"], [6, 1, "x"]]
    assert types(history).count("MapIterationSucceeded") == 2


def test_map_runs_no_more_than_max_concurrency_at_once() -> None:
    running, most = 0, 0

    async def work(value: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running -= 1
        return value

    output, _, _ = execute(chain(A=mapping(MaxConcurrency=2)), list(range(9)), f=work)
    assert output == list(range(9))
    assert most == 2


def test_an_item_that_fails_fails_the_map() -> None:
    error, history, _ = execute(chain(A=mapping()), [1, 2], f=lambda value: fail("Odd")(None) if value % 2 else value)
    assert error.error == "Odd"
    assert {"MapIterationFailed", "MapStateFailed"} <= set(types(history))


def test_a_map_over_no_array_is_said() -> None:
    assert "must be an array" in execute(chain(A=mapping(ItemsPath="$.x")), {"x": 1}, f=lambda value: value)[0].cause


# Variables and JSONata


def test_variables_are_seen_by_later_states_and_branches_but_branches_keep_theirs() -> None:
    branch = {
        "StartAt": "I",
        "States": {
            "I": {"Type": "Pass", "Assign": {"v": "inner"}, "Next": "J"},
            "J": {"Type": "Pass", "Parameters": {"v.$": "$v"}, "End": True},
        },
    }
    definition = chain(
        A=task(Assign={"v.$": "$.result", "fixed": 1}, ResultSelector={"other": 1}, Next="P"),
        P={"Type": "Parallel", "Branches": [branch], "ResultPath": "$.p", "Next": "B"},
        B={"Type": "Pass", "Parameters": {"v.$": "$v", "fixed.$": "$fixed", "p.$": "$.p"}, "End": True},
    )
    output, history, _ = execute(definition, {}, f=lambda _: {"result": "outer"})
    assert output == {"v": "outer", "fixed": 1, "p": [{"v": "inner"}]}
    exited = next(event for event in history.events if event["type"] == "TaskStateExited")
    assert exited["stateExitedEventDetails"]["assignedVariables"] == {"v": '"outer"', "fixed": "1"}


def test_assignments_see_the_values_from_before() -> None:
    definition = chain(
        A={"Type": "Pass", "Assign": {"x": 1, "y": 2}, "Next": "B"},
        B={"Type": "Pass", "Assign": {"x.$": "$y", "y.$": "$x"}, "Next": "C"},
        C={"Type": "Pass", "Parameters": {"x.$": "$x", "y.$": "$y"}, "End": True},
    )
    assert execute(definition, {})[0] == {"x": 2, "y": 1}


def test_jsonata_states() -> None:
    definition = {
        "QueryLanguage": "JSONata",
        **chain(
            A=task(
                Arguments={"n": "{% $states.input.n + 1 %}", "fixed": "x"},
                Assign={"raw": "{% $states.result %}", "name": "{% $states.context.State.Name %}"},
                Output={"doubled": "{% $states.result.v * 2 %}"},
                Next="C",
            ),
            C={"Type": "Choice", "Choices": [{"Condition": "{% $states.input.doubled > 5 %}", "Next": "M"}], "Default": "F"},
            M={
                "Type": "Map",
                "Items": "{% [1..3] %}",
                "ItemSelector": {"i": "{% $states.context.Map.Item.Value * $raw.v %}"},
                "ItemProcessor": {"StartAt": "I", "States": {"I": {"Type": "Pass", "Output": "{% $states.input.i %}", "End": True}}},
                "Output": {"sum": "{% $sum($states.result) %}", "name": "{% $name %}"},
                "Next": "W",
            },
            W={"Type": "Wait", "Seconds": "{% 0 %}", "Next": "S"},
            S={"Type": "Succeed", "Output": "{% $merge([$states.input, {'done': true}]) %}"},
            F={"Type": "Fail", "Error": "{% 'E' & 'x' %}"},
        ),
    }
    output, _, runner = execute(definition, {"n": 2}, f=lambda value: {"v": value["n"]})
    assert runner.calls == [("f", {"n": 3, "fixed": "x"})]
    assert output == {"sum": 18, "name": "A", "done": True}
    assert execute(definition, {"n": 0}, f=lambda value: {"v": value["n"]})[0].error == "Ex"


def test_a_jsonata_catch_sees_the_error() -> None:
    definition = {
        "QueryLanguage": "JSONata",
        **chain(
            A=task(
                Catch=[
                    {
                        "ErrorEquals": ["States.ALL"],
                        "Output": {"error": "{% $states.errorOutput.Error %}", "in": "{% $states.input %}"},
                        "Next": "B",
                    }
                ]
            ),
            B={"Type": "Pass", "End": True},
        ),
    }
    assert execute(definition, {"a": 1}, f=fail("E"))[0] == {"error": "E", "in": {"a": 1}}


@pytest.mark.parametrize(
    "expression", ["{% $states.input.nothing %}", "{% $error('x') %}", "{% 1 + 'a' %}", "{% function($x){$x} %}", "{% 1 / 0 %}"]
)
def test_a_jsonata_expression_that_fails_is_a_query_evaluation_error(expression: str) -> None:
    definition = {"QueryLanguage": "JSONata", **chain(A={"Type": "Pass", "Output": expression, "End": True})}
    error, history, _ = execute(definition, {})
    assert error.error == "States.QueryEvaluationError"
    assert types(history)[-1] == "EvaluationFailed"
    assert history.events[-1]["evaluationFailedEventDetails"]["state"] == "A"


def test_a_jsonata_condition_must_be_a_boolean() -> None:
    definition = {
        "QueryLanguage": "JSONata",
        **chain(C={"Type": "Choice", "Choices": [{"Condition": "{% 1 %}", "Next": "P"}]}, P={"Type": "Pass", "End": True}),
    }
    assert execute(definition, {})[0].error == "States.QueryEvaluationError"


# History


def test_the_history_of_a_function_and_of_an_integration() -> None:
    definition = chain(
        A=task(Next="B"),
        B={
            "Type": "Task",
            "Resource": "arn:aws:states:::lambda:invoke",
            "Parameters": {"FunctionName": "f", "Payload.$": "$"},
            "TimeoutSeconds": 9,
            "End": True,
        },
    )
    _, history, _ = execute(definition, {"a": 1}, f=lambda value: value, invoke=lambda value: {"Payload": value["Payload"]})
    events = history.rendered()
    assert [(event["type"], event["previousEventId"]) for event in events] == [
        ("ExecutionStarted", 0), ("TaskStateEntered", 1), ("LambdaFunctionScheduled", 2), ("LambdaFunctionStarted", 3), ("LambdaFunctionSucceeded", 4),
        ("TaskStateExited", 5), ("TaskStateEntered", 6), ("TaskScheduled", 7), ("TaskStarted", 8), ("TaskSucceeded", 9), ("TaskStateExited", 10),
    ]  # fmt: skip
    assert events[2]["lambdaFunctionScheduledEventDetails"] == {
        "resource": FUNCTION + "f",
        "input": '{"a":1}',
        "inputDetails": {"truncated": False},
    }
    assert events[7]["taskScheduledEventDetails"] == {
        "resourceType": "lambda", "resource": "invoke", "region": "us-east-1", "parameters": '{"FunctionName":"f","Payload":{"a":1}}', "timeoutInSeconds": 9,
    }  # fmt: skip


def test_an_execution_that_never_ends_is_ended_by_the_limit_of_events() -> None:
    definition = chain(
        A={"Type": "Choice", "Choices": [{"Variable": "$.x", "IsPresent": True, "Next": "S"}], "Default": "A"}, S={"Type": "Succeed"}
    )
    error, history, _ = execute(definition, {})
    assert error.error == "States.Runtime"
    assert "25000" in error.cause
    assert 24_990 < len(history.events) < 25_000
