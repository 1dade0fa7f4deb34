"""Runs one execution of a compiled state machine, on the background loop.

How data flows through a state: https://docs.aws.amazon.com/step-functions/latest/dg/concepts-input-output-filtering.html (JSONPath) and
https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html (JSONata).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from localcloud.stepfunctions.choices import parse_timestamp
from localcloud.stepfunctions.definition import Block, Catcher, Machine, State, StateType
from localcloud.stepfunctions.errors import ErrorName, EvaluationError, StateError, matches
from localcloud.stepfunctions.history import History
from localcloud.stepfunctions.integrations import Kind
from localcloud.stepfunctions.payloads import Expression, Scope, place
from localcloud.stepfunctions.tasks import TaskRunner

#: Items of an inline Map at once when it sets no MaxConcurrency (https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html).
MAP_CONCURRENCY = 40
#: Events that one execution may have (https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html).
MAX_EVENTS = 25_000
#: States after which an execution lets others have a turn.
_TURN = 50


@dataclass
class _Path:
    """Where one path through the state machine is: the execution's own, a branch's or an item's.

    Attributes:
        variables: Workflow variables that it sees.
        previous: Id of its last event.
        map_item: ``Map`` of the context object.
    """

    variables: dict[str, Any] = field(default_factory=dict)
    previous: int = 0
    map_item: dict[str, Any] | None = None

    def inner(self, map_item: dict[str, Any] | None = None) -> _Path:
        """Return the beginning of a branch: it sees the variables as they are now, and its own assignments stay its own."""
        return _Path(dict(self.variables), self.previous, map_item or self.map_item)


class Interpreter:
    """One execution."""

    def __init__(self, machine: Machine, runner: TaskRunner, history: History, context: dict[str, Any], region: str) -> None:
        """
        Args:
            machine: What to run.
            runner: Runs its Tasks.
            history: Takes its events.
            context: The context object's ``Execution`` and ``StateMachine``.
            region: The region that TaskScheduled events name.
        """
        self._machine = machine
        self._runner = runner
        self._history = history
        self._context = context
        self._region = region
        self._turns = 0
        self.path = _Path()
        self._handlers: dict[StateType, Callable[[State, Any, _Path, dict[str, Any]], Awaitable[tuple[Any, str | None]]]] = {
            StateType.TASK: self._task,
            StateType.PASS: self._pass,
            StateType.CHOICE: self._choice,
            StateType.WAIT: self._wait,
            StateType.SUCCEED: self._succeed,
            StateType.FAIL: self._fail,
            StateType.PARALLEL: self._parallel,
            StateType.MAP: self._map,
        }

    async def run(self, value: Any, started: int) -> Any:
        """Run to the end and return the output.

        Args:
            value: The execution's input.
            started: Id of its ExecutionStarted event.

        Raises:
            StateError: The execution failed.
        """
        self.path.previous = started
        return await self._block(self._machine.block, value, self.path)

    async def _block(self, block: Block, value: Any, path: _Path) -> Any:
        name: str | None = block.start_at
        while name is not None:
            value, name = await self._state(block.states[name], value, path)
            self._turns += 1
            if self._turns % _TURN == 0:
                await asyncio.sleep(0)
        return value

    async def _state(self, state: State, value: Any, path: _Path) -> tuple[Any, str | None]:
        # There must be room for this state's events and the execution's last.
        if len(self._history.events) + 3 > MAX_EVENTS:
            raise StateError(ErrorName.RUNTIME, f"The execution reached the maximum number of history events ({MAX_EVENTS}).")
        context = {
            **self._context,
            "State": {
                "EnteredTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "Name": state.name,
                "RetryCount": 0,
            },
        }
        if path.map_item is not None:
            context["Map"] = path.map_item
        entered = path.previous = self._history.add(
            f"{state.type}StateEntered",
            path.previous,
            ("stateEnteredEventDetails", {"name": state.name, "input": value, "inputDetails": {"truncated": False}}),
        )
        try:
            output, following = await self._handlers[state.type](state, value, path, context)
            self._history.check_size(output, state.name)
        except EvaluationError as error:
            raise self._explained(error, state, entered, path) from error
        path.previous = self._history.add(
            f"{state.type}StateExited", path.previous, ("stateExitedEventDetails", self._exit_details(state, output, path))
        )
        return output, following

    def _exit_details(self, state: State, output: Any, path: _Path) -> dict[str, Any]:
        details: dict[str, Any] = {"name": state.name, "output": output, "outputDetails": {"truncated": False}}
        if state.assign is not None:
            details["assignedVariables"] = {name: self._history.text(value) for name, value in path.variables.items()}
            details["assignedVariablesDetails"] = {"truncated": False}
        return details

    def _explained(self, error: EvaluationError, state: State, entered: int, path: _Path) -> StateError:
        """Return the error with AWS's beginning of its cause, and write the event of a JSONata failure."""
        cause = f"An error occurred while executing the state '{state.name}' (entered at the event id #{entered}). {error.cause}"
        if error.location is not None:
            details = {"error": error.error, "cause": cause, "location": error.location, "state": state.name}
            path.previous = self._history.add("EvaluationFailed", path.previous, ("evaluationFailedEventDetails", details))
        return StateError(error.error, cause)

    # Data flow

    @staticmethod
    def _effective_input(state: State, scope: Scope) -> Any:
        if state.jsonata:
            return scope.data
        return {} if state.input_path is None else state.input_path(scope)

    @staticmethod
    def _finish(state: State, value: Any, scope: Scope, path: _Path, assign_scope: Scope | None = None) -> tuple[Any, str | None]:
        """Apply Output or OutputPath and Assign to what a state gives; *scope* is what they see."""
        output = state.output(scope) if state.jsonata and state.output is not None else value
        if not state.jsonata:
            output = {} if state.output_path is None else state.output_path(replace(scope, data=value))
        _assign(state.assign, assign_scope or scope, path)
        return output, state.next

    def _finish_result(self, state: State, value: Any, result: Any, scope: Scope, path: _Path) -> tuple[Any, str | None]:
        """Apply what follows the result of a Task, Parallel or Map."""
        if state.jsonata:
            return self._finish(state, result, replace(scope, result=result), path)
        selected = result if state.result_selector is None else state.result_selector(replace(scope, data=result))
        combined = value if state.result_path is None else place(value, state.result_path, selected)
        return self._finish(state, combined, scope, path, replace(scope, data=result))

    # Plain states

    async def _pass(self, state: State, value: Any, path: _Path, context: dict[str, Any]) -> tuple[Any, str | None]:
        scope = Scope(value, context, path.variables)
        if state.jsonata:
            return self._finish(state, value, scope, path)
        data = self._effective_input(state, scope)
        scope = replace(scope, data=data)
        result = state.result(scope) if state.result is not None else state.parameters(scope) if state.parameters is not None else data
        combined = value if state.result_path is None else place(value, state.result_path, result)
        return self._finish(state, combined, scope, path, replace(scope, data=result))

    async def _succeed(self, state: State, value: Any, path: _Path, context: dict[str, Any]) -> tuple[Any, str | None]:
        scope = Scope(value, context, path.variables)
        data = self._effective_input(state, scope)
        return self._finish(state, data, replace(scope, data=data), path)

    async def _fail(self, state: State, value: Any, path: _Path, context: dict[str, Any]) -> tuple[Any, str | None]:
        scope = Scope(value, context, path.variables)
        error = None if state.error is None else state.error(scope)
        cause = None if state.cause is None else state.cause(scope)
        for name, given in (("Error", error), ("Cause", cause)):
            if given is not None and not isinstance(given, str):
                raise EvaluationError(ErrorName.RUNTIME, f"The value of '{name}' must be a string, not {self._history.text(given)}")
        raise _Failed(error or "", cause)

    async def _choice(self, state: State, value: Any, path: _Path, context: dict[str, Any]) -> tuple[Any, str | None]:
        scope = Scope(value, context, path.variables)
        data = self._effective_input(state, scope)
        scope = replace(scope, data=data)
        for rule in state.choices:
            holds = rule.condition(scope)
            if not isinstance(holds, bool):
                cause = f"The JSONata expression of the field 'Condition' did not give a boolean, but {self._history.text(holds)}."
                raise EvaluationError(ErrorName.QUERY_EVALUATION_ERROR, cause, "Condition")
            if holds:
                output = rule.output(scope) if rule.output is not None else data
                if not state.jsonata:
                    output = {} if state.output_path is None else state.output_path(scope)
                _assign(rule.assign, scope, path)
                return output, rule.next
        if state.default is None:
            raise StateError(
                ErrorName.NO_CHOICE_MATCHED,
                f"Choice state '{state.name}' failed to find a match for the condition extracted from the input.",
            )
        output, _ = self._finish(state, data, scope, path)
        return output, state.default

    async def _wait(self, state: State, value: Any, path: _Path, context: dict[str, Any]) -> tuple[Any, str | None]:
        scope = Scope(value, context, path.variables)
        data = self._effective_input(state, scope)
        scope = replace(scope, data=data)
        await asyncio.sleep(self._wait_seconds(state, scope))
        return self._finish(state, data, scope, path)

    def _wait_seconds(self, state: State, scope: Scope) -> float:
        if state.timestamp is not None:
            moment = parse_timestamp(state.timestamp(scope))
            if moment is None:
                raise EvaluationError(ErrorName.RUNTIME, "The Timestamp of the Wait state is not a valid ISO 8601 timestamp")
            return max(0.0, (moment - datetime.now(UTC)).total_seconds())
        seconds = self._number(state.seconds, scope, "Seconds")
        return 0.0 if seconds is None else seconds

    def _number(self, expression: Expression | None, scope: Scope, member: str) -> float | None:
        if expression is None:
            return None
        found = expression(scope)
        if not isinstance(found, (int, float)) or isinstance(found, bool) or found < 0:
            raise EvaluationError(
                ErrorName.RUNTIME, f"The value of '{member}' must be a number that is not negative, not {self._history.text(found)}"
            )
        return float(found)

    # States that may fail and be tried again

    async def _task(self, state: State, value: Any, path: _Path, context: dict[str, Any]) -> tuple[Any, str | None]:
        return await self._retrying(state, value, path, context, self._attempt_task)

    async def _parallel(self, state: State, value: Any, path: _Path, context: dict[str, Any]) -> tuple[Any, str | None]:
        return await self._retrying(state, value, path, context, self._attempt_parallel)

    async def _map(self, state: State, value: Any, path: _Path, context: dict[str, Any]) -> tuple[Any, str | None]:
        return await self._retrying(state, value, path, context, self._attempt_map)

    async def _retrying(
        self,
        state: State,
        value: Any,
        path: _Path,
        context: dict[str, Any],
        attempt: Callable[[State, Scope, _Path], Coroutine[Any, Any, Any]],
    ) -> tuple[Any, str | None]:
        entered = path.previous
        attempts = [0] * len(state.retriers)
        while True:
            scope = Scope(value, context, path.variables)
            try:
                scope = replace(scope, data=self._effective_input(state, scope))
                result = await attempt(state, scope, path)
                return self._finish_result(state, value, result, scope, path)
            except EvaluationError as error:
                failure = self._explained(error, state, entered, path)
            except StateError as error:
                failure = StateError(error.error, error.cause)
            index = next((index for index, retrier in enumerate(state.retriers) if matches(failure.error, retrier.error_equals)), None)
            if index is not None and attempts[index] < state.retriers[index].max_attempts:
                retrier = state.retriers[index]
                delay = min(retrier.max_delay, retrier.interval * retrier.backoff_rate ** attempts[index])
                attempts[index] += 1
                context["State"] = {**context["State"], "RetryCount": sum(attempts)}
                await asyncio.sleep(random.uniform(0, delay) if retrier.full_jitter else delay)
                continue
            catcher = next((catcher for catcher in state.catchers if matches(failure.error, catcher.error_equals)), None)
            if catcher is None:
                raise failure
            return self._caught(catcher, failure, state, value, scope, path)

    @staticmethod
    def _caught(catcher: Catcher, failure: StateError, state: State, value: Any, scope: Scope, path: _Path) -> tuple[Any, str | None]:
        error_output = {"Error": failure.error, "Cause": failure.cause or ""}
        if state.jsonata:
            scope = replace(scope, error_output=error_output)
            output = error_output if catcher.output is None else catcher.output(scope)
        else:
            scope = replace(scope, data=error_output)
            output = value if catcher.result_path is None else place(value, catcher.result_path, error_output)
        _assign(catcher.assign, scope, path)
        return output, catcher.next

    async def _attempt_task(self, state: State, scope: Scope, path: _Path) -> Any:
        assert state.integration is not None
        parameters = scope.data if state.parameters is None else state.parameters(scope)
        timeout = self._number(state.timeout, scope, "TimeoutSeconds")
        heartbeat = self._number(state.heartbeat, scope, "HeartbeatSeconds")
        events = _TaskEvents(self._history, state, self._region)
        path.previous = events.scheduled(path.previous, parameters, timeout, heartbeat)
        path.previous = events.started(path.previous)
        try:
            async with asyncio.timeout(timeout) as deadline:
                result = await self._runner.run(state.integration, parameters)
            self._history.check_size(result, state.integration.resource)
        except TimeoutError:
            if not deadline.expired():
                raise
            path.previous = events.timed_out(path.previous)
            raise StateError(ErrorName.TIMEOUT) from None
        except StateError as error:
            path.previous = events.failed(path.previous, error)
            raise
        path.previous = events.succeeded(path.previous, result)
        return result

    async def _attempt_parallel(self, state: State, scope: Scope, path: _Path) -> list[Any]:
        value = scope.data if state.parameters is None else state.parameters(scope)
        path.previous = self._history.add("ParallelStateStarted", path.previous)
        try:
            results = await _all(self._block(branch, value, path.inner()) for branch in state.branches)
        except StateError:
            path.previous = self._history.add("ParallelStateFailed", path.previous)
            raise
        path.previous = self._history.add("ParallelStateSucceeded", path.previous)
        return results

    async def _attempt_map(self, state: State, scope: Scope, path: _Path) -> list[Any]:
        items = scope.data if state.items is None else state.items(scope)
        if state.jsonata and isinstance(items, dict):
            items = [{"Key": name, "Value": item} for name, item in items.items()]
        if not isinstance(items, list):
            raise EvaluationError(ErrorName.RUNTIME, f"The items of a Map state must be an array, not {self._history.text(items)[:200]}")
        at_once = self._number(state.max_concurrency, scope, "MaxConcurrency") or MAP_CONCURRENCY
        path.previous = self._history.add("MapStateStarted", path.previous, ("mapStateStartedEventDetails", {"length": len(items)}))
        places = asyncio.Semaphore(max(1, int(at_once)))
        try:
            results = await _all(self._item(state, scope, path.previous, path, index, item, places) for index, item in enumerate(items))
        except StateError:
            path.previous = self._history.add("MapStateFailed", path.previous)
            raise
        path.previous = self._history.add("MapStateSucceeded", path.previous)
        return results

    async def _item(self, state: State, scope: Scope, started: int, path: _Path, index: int, item: Any, places: asyncio.Semaphore) -> Any:
        async with places:
            map_item = {"Item": {"Index": index, "Value": item}}
            details = ("mapIterationStartedEventDetails", {"name": state.name, "index": index})
            inner = path.inner(map_item)
            inner.previous = self._history.add("MapIterationStarted", started, details)
            value = item
            if state.item_selector is not None:
                value = state.item_selector(replace(scope, context={**scope.context, "Map": map_item}))
            try:
                output = await self._block(state.branches[0], value, inner)
            except StateError:
                self._history.add("MapIterationFailed", inner.previous, ("mapIterationFailedEventDetails", details[1]))
                raise
            self._history.add("MapIterationSucceeded", inner.previous, ("mapIterationSucceededEventDetails", details[1]))
            return output


class _Failed(StateError):
    """Indicates that a Fail state was reached."""


class _TaskEvents:
    """A Task's events: Lambda's own kinds for a function's ARN, the general ones for integrations."""

    def __init__(self, history: History, state: State, region: str) -> None:
        assert state.integration is not None
        self._history = history
        self._integration = state.integration
        self._region = region
        self._function = state.integration.kind is Kind.FUNCTION
        self._names = {} if self._function else {"resourceType": self._integration.resource_type, "resource": self._integration.resource}

    def scheduled(self, previous: int, parameters: Any, timeout: float | None, heartbeat: float | None) -> int:
        limits = {} if timeout is None else {"timeoutInSeconds": int(timeout)}
        if self._function:
            details = {"resource": self._integration.resource, "input": parameters, "inputDetails": {"truncated": False}, **limits}
            return self._history.add("LambdaFunctionScheduled", previous, ("lambdaFunctionScheduledEventDetails", details))
        if heartbeat is not None:
            limits["heartbeatInSeconds"] = int(heartbeat)
        details = {**self._names, "region": self._region, "parameters": parameters, **limits}
        return self._history.add("TaskScheduled", previous, ("taskScheduledEventDetails", details))

    def started(self, previous: int) -> int:
        if self._function:
            return self._history.add("LambdaFunctionStarted", previous)
        return self._history.add("TaskStarted", previous, ("taskStartedEventDetails", self._names))

    def succeeded(self, previous: int, result: Any) -> int:
        return self._add("Succeeded", previous, {"output": result, "outputDetails": {"truncated": False}})

    def failed(self, previous: int, error: StateError) -> int:
        return self._add("Failed", previous, {"error": error.error} | ({} if error.cause is None else {"cause": error.cause}))

    def timed_out(self, previous: int) -> int:
        return self._add("TimedOut", previous, {"error": str(ErrorName.TIMEOUT)})

    def _add(self, kind: str, previous: int, details: dict[str, Any]) -> int:
        if self._function:
            return self._history.add(f"LambdaFunction{kind}", previous, (f"lambdaFunction{kind}EventDetails", details))
        return self._history.add(f"Task{kind}", previous, (f"task{kind}EventDetails", {**self._names, **details}))


def _assign(expression: Expression | None, scope: Scope, path: _Path) -> None:
    if expression is not None:
        # A new dict: what other paths were given stays as it was.
        path.variables = {**path.variables, **expression(scope)}


async def _all(coroutines: Any) -> list[Any]:
    """Run coroutines side by side and return their results in order; when one fails the others are cancelled and its error is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
