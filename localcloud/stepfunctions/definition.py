"""Definitions in the Amazon States Language: checked as AWS checks them, then compiled once into what the interpreter runs.

https://states-language.net/spec.html and https://docs.aws.amazon.com/step-functions/latest/dg/concepts-amazon-states-language.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from localcloud.stepfunctions.choices import OPERATORS, compile_condition, parse_timestamp
from localcloud.stepfunctions.errors import ErrorName
from localcloud.stepfunctions.integrations import Integration, UnsupportedResource, parameter_errors, parse_resource
from localcloud.stepfunctions.payloads import Expression, TemplateSyntaxError, compile_expression, compile_reference, compile_template

MAX_DEFINITION_BYTES = 1_048_576
_MAX_NAME = 80
_MAX_SECONDS = 99_999_999


class StateType(StrEnum):
    """The types of states."""

    TASK = "Task"
    PASS = "Pass"
    CHOICE = "Choice"
    WAIT = "Wait"
    SUCCEED = "Succeed"
    FAIL = "Fail"
    PARALLEL = "Parallel"
    MAP = "Map"


@dataclass(frozen=True)
class Diagnostic:
    """Something wrong with a definition.

    Attributes:
        code: AWS's name of the kind of mistake.
        message: What is wrong.
        location: JSON pointer.
    """

    code: str
    message: str
    location: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message} at {self.location}"


class InvalidDefinition(ValueError):
    """Indicates that a definition is not valid, or uses what localcloud does not play.

    Attributes:
        diagnostics: Everything that is wrong.
    """

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        super().__init__(", ".join(str(diagnostic) for diagnostic in diagnostics))
        self.diagnostics = diagnostics


@dataclass(frozen=True)
class Retrier:
    """One entry of Retry; times in seconds."""

    error_equals: list[str]
    interval: float
    max_attempts: int
    backoff_rate: float
    max_delay: float
    full_jitter: bool


@dataclass(frozen=True)
class Catcher:
    """One entry of Catch. Without `result_path` (null) the error is dropped; `output` is JSONata's."""

    error_equals: list[str]
    next: str
    result_path: list[str | int] | None
    output: Expression | None
    assign: Expression | None


@dataclass(frozen=True)
class ChoiceRule:
    """One entry of Choices. A JSONata condition may give anything; only a boolean is right."""

    condition: Expression
    next: str
    output: Expression | None
    assign: Expression | None


@dataclass(frozen=True)
class State:
    """A compiled state. Which members mean something depends on its type.

    Attributes:
        jsonata: Whether its query language is JSONata.
        next: The state after it, None for an end.
        input_path: Selects the effective input; None gives ``{}``.
        parameters: Parameters, ItemSelector's older form, or Arguments; None when there is none.
        result_selector: ResultSelector.
        result_path: Keys of ResultPath; None drops the result.
        output_path: Selects the output; None gives ``{}``.
        output: JSONata's Output.
        assign: Assign.
        timeout: Seconds that a Task may take.
        heartbeat: Seconds between a Task's heartbeats.
    """

    name: str
    type: StateType
    jsonata: bool
    next: str | None = None
    input_path: Expression | None = None
    parameters: Expression | None = None
    result_selector: Expression | None = None
    result_path: list[str | int] | None = field(default_factory=list)
    output_path: Expression | None = None
    output: Expression | None = None
    assign: Expression | None = None
    retriers: tuple[Retrier, ...] = ()
    catchers: tuple[Catcher, ...] = ()
    timeout: Expression | None = None
    heartbeat: Expression | None = None
    integration: Integration | None = None
    result: Expression | None = None
    choices: tuple[ChoiceRule, ...] = ()
    default: str | None = None
    seconds: Expression | None = None
    timestamp: Expression | None = None
    error: Expression | None = None
    cause: Expression | None = None
    branches: tuple[Block, ...] = ()
    items: Expression | None = None
    item_selector: Expression | None = None
    max_concurrency: Expression | None = None


@dataclass(frozen=True)
class Block:
    """States that are entered at `start_at`: a state machine, a branch, an item processor."""

    start_at: str
    states: dict[str, State]


@dataclass(frozen=True)
class Machine:
    """A compiled definition.

    Attributes:
        block: Its states.
        timeout: Seconds that an execution may take, or None.
        comment: Its Comment.
    """

    block: Block
    timeout: float | None
    comment: str


_EVERYWHERE = {"Type", "Comment", "QueryLanguage"}
_FLOW = {"Next", "End"}
_RETRYING = {"Retry", "Catch"}
_JSONPATH_RESULT = {"ResultPath", "ResultSelector"}
_MAP = {
    "ItemProcessor",
    "Iterator",
    "MaxConcurrency",
    "Label",
    "ItemReader",
    "ItemBatcher",
    "ResultWriter",
    "ToleratedFailureCount",
    "ToleratedFailurePercentage",
}
_TASK = {"Resource", "TimeoutSeconds", "HeartbeatSeconds", "Credentials"}
#: Fields of each type: in both query languages, in JSONPath, in JSONata.
_FIELDS: dict[StateType, tuple[set[str], set[str], set[str]]] = {
    StateType.TASK: (
        _TASK | _FLOW | _RETRYING | {"Assign"},
        _JSONPATH_RESULT | {"Parameters", "TimeoutSecondsPath", "HeartbeatSecondsPath", "InputPath", "OutputPath"},
        {"Arguments", "Output"},
    ),
    StateType.PASS: (_FLOW | {"Assign"}, {"Result", "ResultPath", "Parameters", "InputPath", "OutputPath"}, {"Output"}),
    StateType.CHOICE: ({"Choices", "Default", "Assign"}, {"InputPath", "OutputPath"}, {"Output"}),
    StateType.WAIT: (_FLOW | {"Assign", "Seconds", "Timestamp"}, {"SecondsPath", "TimestampPath", "InputPath", "OutputPath"}, {"Output"}),
    StateType.SUCCEED: (set(), {"InputPath", "OutputPath"}, {"Output"}),
    StateType.FAIL: ({"Error", "Cause"}, {"ErrorPath", "CausePath"}, set()),
    StateType.PARALLEL: (
        _FLOW | _RETRYING | {"Branches", "Assign"},
        _JSONPATH_RESULT | {"Parameters", "InputPath", "OutputPath"},
        {"Arguments", "Output"},
    ),
    StateType.MAP: (
        _FLOW | _RETRYING | _MAP | {"Assign", "ItemSelector"},
        _JSONPATH_RESULT
        | {
            "Parameters",
            "ItemsPath",
            "MaxConcurrencyPath",
            "InputPath",
            "OutputPath",
            "ToleratedFailureCountPath",
            "ToleratedFailurePercentagePath",
        },
        {"Items", "Output"},
    ),
}
#: What makes a Map a distributed one.
_DISTRIBUTED = (
    "ItemReader",
    "ItemBatcher",
    "ResultWriter",
    "Label",
    *(f"ToleratedFailure{kind}{suffix}" for kind in ("Count", "Percentage") for suffix in ("", "Path")),
)
_CODE = "SCHEMA_VALIDATION_FAILED"


def compile_definition(text: str) -> Machine:
    """Check and compile a definition.

    Raises:
        InvalidDefinition: With all that is wrong.
    """
    compiler = _Compiler()
    machine = compiler.machine(text)
    if compiler.diagnostics or machine is None:
        raise InvalidDefinition(compiler.diagnostics)
    return machine


class _Compiler:
    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._names: set[str] = set()

    def machine(self, text: str) -> Machine | None:
        try:
            document = json.loads(text)
        except ValueError as error:
            self.diagnostics.append(Diagnostic("INVALID_JSON_DESCRIPTION", f"Invalid JSON description: {error}", "/"))
            return None
        if not isinstance(document, dict):
            self._error("The definition must be a JSON object", "/")
            return None
        for name in document:
            if name not in ("Comment", "StartAt", "States", "TimeoutSeconds", "Version", "QueryLanguage"):
                self._error(f'The field "{name}" is not supported by Step Functions', f"/{name}")
        language = self._language(document, "JSONPath", "")
        timeout = document.get("TimeoutSeconds")
        if timeout is not None and not _is_seconds(timeout):
            self._error("The value for the field 'TimeoutSeconds' must be an integer between 1 and 99999999", "/TimeoutSeconds")
            timeout = None
        if document.get("Version", "1.0") != "1.0":
            self._error("The value for the field 'Version' must be '1.0'", "/Version")
        block = self._block(document, language, "")
        return None if block is None else Machine(block, timeout, str(document.get("Comment", "")))

    def _error(self, message: str, location: str, code: str = _CODE) -> None:
        self.diagnostics.append(Diagnostic(code, message, location or "/"))

    def _language(self, document: dict[str, Any], outer: str, location: str) -> str:
        language = document.get("QueryLanguage", outer)
        if language not in ("JSONPath", "JSONata"):
            self._error("The value for the field 'QueryLanguage' must be one of 'JSONPath', 'JSONata'", f"{location}/QueryLanguage")
            return outer
        if outer == "JSONata" and language == "JSONPath":
            self._error("'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' for whole state machine", f"{location}/QueryLanguage")
            return outer
        return str(language)

    # Blocks

    def _block(self, document: dict[str, Any], language: str, location: str) -> Block | None:
        states, start_at = document.get("States"), document.get("StartAt")
        missing = [name for name, value in (("StartAt", start_at), ("States", states)) if value is None]
        if missing:
            self._error(f"These fields are required: [{', '.join(missing)}]", location)
            return None
        if not isinstance(states, dict) or not states or not isinstance(start_at, str):
            self._error("'States' must be a non-empty object and 'StartAt' the name of one of its states", f"{location}/States")
            return None
        if start_at not in states:
            self._error(f"Missing 'Next' target: {start_at}", f"{location}/StartAt", "MISSING_TRANSITION_TARGET")
        compiled: dict[str, State] = {}
        targets: dict[str, list[str]] = {}
        for name, state in states.items():
            where = f"{location}/States/{name}"
            if not name or len(name) > _MAX_NAME:
                self._error(f"A state's name must have 1 to {_MAX_NAME} characters", where)
            if name in self._names:
                self._error(f"State names must be unique in a state machine: '{name}'", where, "DUPLICATE_STATE_NAME")
            self._names.add(name)
            if not isinstance(state, dict):
                self._error("A state must be a JSON object", where)
                continue
            found = self._state(name, state, language, where)
            targets[name] = self._targets(state, states, where)
            if found is not None:
                compiled[name] = found
        self._check_reachable(start_at, targets, location)
        self._check_terminal(states, location)
        return Block(start_at, compiled)

    def _targets(self, state: dict[str, Any], states: dict[str, Any], where: str) -> list[str]:
        found: list[tuple[Any, str]] = [(state[name], f"{where}/{name}") for name in ("Next", "Default") if name in state]
        for kind in ("Choices", "Catch"):
            entries = state.get(kind)
            for index, entry in enumerate(entries if isinstance(entries, list) else []):
                if isinstance(entry, dict) and "Next" in entry:
                    found.append((entry["Next"], f"{where}/{kind}[{index}]/Next"))
        for target, location in found:
            if not isinstance(target, str) or target not in states:
                self._error(f"Missing 'Next' target: {target}", location, "MISSING_TRANSITION_TARGET")
        return [target for target, _ in found if isinstance(target, str)]

    def _check_reachable(self, start_at: str, targets: dict[str, list[str]], location: str) -> None:
        reached, waiting = set(), [start_at]
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting += targets.get(name, [])
        for name in targets:
            if name not in reached:
                self._error(f'State "{name}" is not reachable.', f"{location}/States/{name}", "MISSING_TRANSITION_TARGET")

    def _check_terminal(self, states: dict[str, Any], location: str) -> None:
        if not any(
            isinstance(state, dict) and (state.get("End") is True or state.get("Type") in ("Succeed", "Fail")) for state in states.values()
        ):
            self._error("No terminal state: at least one state must be an end state", f"{location}/States", "NO_TERMINAL_STATE")

    # States

    def _state(self, name: str, state: dict[str, Any], outer: str, where: str) -> State | None:
        if state.get("Type") not in [kind.value for kind in StateType]:
            kinds = ", ".join(f"'{kind.value}'" for kind in StateType)
            self._error(f"The value for the field 'Type' must be one of {kinds}", f"{where}/Type")
            return None
        kind = StateType(state["Type"])
        jsonata = self._language(state, outer, where) == "JSONata"
        both, jsonpath_only, jsonata_only = _FIELDS[kind]
        allowed = _EVERYWHERE | both | (jsonata_only if jsonata else jsonpath_only)
        for member in state:
            if member not in allowed:
                language = "JSONata" if jsonata else "JSONPath"
                reason = f" when using '{language}'" if member in jsonpath_only | jsonata_only else ""
                self._error(f'The field "{member}" is not supported by Step Functions{reason}', f"{where}/{member}")
        self._check_flow(kind, state, where)
        common: dict[str, Any] = {"name": name, "type": kind, "jsonata": jsonata, "next": None if state.get("End") else state.get("Next")}
        if jsonata:
            common["output"] = self._jsonata(state, "Output", where)
            common["assign"] = self._assign(state, jsonata, where)
        else:
            common["input_path"] = self._path(state, "InputPath", where)
            common["output_path"] = self._path(state, "OutputPath", where)
            common["assign"] = self._assign(state, jsonata, where)
        builder: Callable[[dict[str, Any], bool, str], dict[str, Any]] = {
            StateType.TASK: self._task,
            StateType.PASS: self._pass,
            StateType.CHOICE: self._choice,
            StateType.WAIT: self._wait,
            StateType.SUCCEED: lambda state, jsonata, where: {},
            StateType.FAIL: self._fail,
            StateType.PARALLEL: self._parallel,
            StateType.MAP: self._map,
        }[kind]
        return State(**common, **builder(state, jsonata, where))

    def _check_flow(self, kind: StateType, state: dict[str, Any], where: str) -> None:
        if kind in (StateType.CHOICE, StateType.SUCCEED, StateType.FAIL):
            return
        if "End" in state and not isinstance(state["End"], bool):
            self._error("The value for the field 'End' must be a boolean", f"{where}/End")
        if ("Next" in state) == bool(state.get("End")):
            message = (
                "A state must have either 'Next' or 'End', not both"
                if "Next" in state
                else "A state must have a 'Next' or 'End: true' field"
            )
            self._error(message, where)

    def _task(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        integration: Integration | None = None
        if not isinstance(state.get("Resource"), str):
            self._error("These fields are required: [Resource]", where)
        else:
            try:
                integration = parse_resource(state["Resource"])
            except UnsupportedResource as error:
                self._error(str(error), f"{where}/Resource")
        if "Credentials" in state:
            self._error("'Credentials' is not supported by localcloud", f"{where}/Credentials")
        member = "Arguments" if jsonata else "Parameters"
        if integration is not None:
            for message, name in parameter_errors(integration, state.get(member)):
                self._error(message, f"{where}/{member}" + (f"/{name}" if name else ""))
        timeout: Any = state.get("TimeoutSeconds")
        heartbeat: Any = state.get("HeartbeatSeconds")
        if _is_seconds(timeout) and _is_seconds(heartbeat) and not heartbeat < timeout:
            self._error("'HeartbeatSeconds' must be smaller than 'TimeoutSeconds'", f"{where}/HeartbeatSeconds")
        return {
            "integration": integration,
            "parameters": self._template(state, member, jsonata, where),
            "timeout": self._seconds(state, "TimeoutSeconds", jsonata, where),
            "heartbeat": self._seconds(state, "HeartbeatSeconds", jsonata, where),
            **self._result(state, jsonata, where),
            **self._error_handling(state, jsonata, where),
        }

    def _pass(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        if jsonata:
            return {}
        result = state.get("Result")
        return {
            "result": (lambda _: result) if "Result" in state else None,
            "parameters": self._template(state, "Parameters", jsonata, where),
            "result_path": self._result_path(state, where),
        }

    def _choice(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        entries = state.get("Choices")
        if not isinstance(entries, list) or not entries:
            self._error("These fields are required: [Choices]", where)
            return {}
        rules = []
        for index, entry in enumerate(entries):
            location = f"{where}/Choices[{index}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("Next"), str):
                self._error("These fields are required: [Next]", location)
                continue
            condition = self._condition(entry, jsonata, location)
            if condition is not None:
                output = self._jsonata(entry, "Output", location) if jsonata else None
                rules.append(ChoiceRule(condition, entry["Next"], output, self._assign(entry, jsonata, location)))
        return {"choices": tuple(rules), "default": state.get("Default")}

    def _condition(self, entry: dict[str, Any], jsonata: bool, location: str) -> Expression | None:
        known = {"Next", "Comment", "Assign"} | ({"Condition", "Output"} if jsonata else {"Variable", "And", "Or", "Not"} | OPERATORS)
        for name in entry:
            if name not in known:
                self._error(f'The field "{name}" is not supported by Step Functions', f"{location}/{name}")
        if not jsonata:
            try:
                return compile_condition(entry)
            except TemplateSyntaxError as error:
                self._error(str(error), location)
                return None
        if isinstance(entry.get("Condition"), bool):
            constant: bool = entry["Condition"]
            return lambda _: constant
        expression = self._jsonata(entry, "Condition", location)
        if expression is None:
            self._error("These fields are required: [Condition]", location)
            return None
        return expression

    def _wait(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        given = [name for name in ("Seconds", "Timestamp", "SecondsPath", "TimestampPath") if name in state]
        if len(given) != 1:
            self._error("A Wait state must have exactly one of 'Seconds', 'Timestamp', 'SecondsPath', 'TimestampPath'", where)
            return {}
        timestamp = state.get("Timestamp")
        expression: Expression | None = None
        if "Timestamp" in state:
            if jsonata and _is_jsonata(timestamp):
                expression = self._jsonata(state, "Timestamp", where)
            elif parse_timestamp(timestamp) is None:
                self._error("The value for the field 'Timestamp' must be a valid ISO 8601 timestamp", f"{where}/Timestamp")
            else:
                expression = lambda _: timestamp  # noqa: E731
        elif "TimestampPath" in state:
            expression = self._path(state, "TimestampPath", where)
        return {"seconds": self._seconds(state, "Seconds", jsonata, where, lowest=0), "timestamp": expression}

    def _fail(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        compiled: dict[str, Any] = {}
        for member in ("Error", "Cause"):
            if member in state and f"{member}Path" in state:
                self._error(f"A Fail state may have either '{member}' or '{member}Path'", where)
            value = state.get(member)
            if value is not None and not isinstance(value, str):
                self._error(f"The value for the field '{member}' must be a string", f"{where}/{member}")
            elif value is not None:
                compiled[member.lower()] = self._jsonata(state, member, where) if jsonata else _constant(value)
            elif f"{member}Path" in state:
                compiled[member.lower()] = self._expression(state, f"{member}Path", where)
        return compiled

    def _parallel(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        branches = state.get("Branches")
        if not isinstance(branches, list) or not branches:
            self._error("These fields are required: [Branches]", where)
            return {}
        compiled = [self._sub_block(branch, jsonata, f"{where}/Branches[{index}]", set()) for index, branch in enumerate(branches)]
        return {
            "branches": tuple(block for block in compiled if block is not None),
            "parameters": self._template(state, "Arguments" if jsonata else "Parameters", jsonata, where),
            **self._result(state, jsonata, where),
            **self._error_handling(state, jsonata, where),
        }

    def _map(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        member = "ItemProcessor" if "ItemProcessor" in state else "Iterator"
        processor = state.get(member)
        if not isinstance(processor, dict):
            self._error("These fields are required: [ItemProcessor]", where)
            return {}
        mode = processor.get("ProcessorConfig", {}).get("Mode", "INLINE")
        distributed = [name for name in _DISTRIBUTED if name in state]
        if mode != "INLINE" or distributed:
            what = f"'{distributed[0]}'" if distributed else f"ProcessorConfig.Mode '{mode}'"
            self._error(f"A distributed Map state ({what}) is not supported by localcloud", where)
        if "ItemSelector" in state and "Parameters" in state:
            self._error("A Map state may have either 'ItemSelector' or 'Parameters'", where)
        block = self._sub_block(processor, jsonata, f"{where}/{member}", {"ProcessorConfig"})
        selector = "ItemSelector" if "ItemSelector" in state else "Parameters"
        return {
            "branches": () if block is None else (block,),
            "items": self._template(state, "Items", jsonata, where) if jsonata else self._path(state, "ItemsPath", where),
            "item_selector": self._template(state, selector, jsonata, where),
            "max_concurrency": self._seconds(state, "MaxConcurrency", jsonata, where, lowest=0),
            **self._result(state, jsonata, where),
            **self._error_handling(state, jsonata, where),
        }

    def _sub_block(self, document: Any, jsonata: bool, location: str, extra: set[str]) -> Block | None:
        if not isinstance(document, dict):
            self._error("A branch or item processor must be a JSON object", location)
            return None
        for name in document:
            if name not in {"StartAt", "States", "Comment", "QueryLanguage", *extra}:
                self._error(f'The field "{name}" is not supported by Step Functions', f"{location}/{name}")
        # A sub-workflow's states follow the state machine's query language unless they say otherwise.
        return self._block(document, self._language(document, "JSONata" if jsonata else "JSONPath", location), location)

    # Fields

    def _result(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        if jsonata:
            return {}
        return {"result_selector": self._template(state, "ResultSelector", jsonata, where), "result_path": self._result_path(state, where)}

    def _result_path(self, state: dict[str, Any], where: str) -> list[str | int] | None:
        value = state.get("ResultPath", "$")
        if value is None:
            return None
        keys: list[str | int] | None = self._guarded(
            lambda: compile_reference(_text(value, "ResultPath"), "ResultPath"), f"{where}/ResultPath"
        )
        return keys or []

    def _path(self, state: dict[str, Any], member: str, where: str) -> Expression | None:
        value = state.get(member, "$")
        if value is None:
            return None
        return self._compiled(lambda: compile_expression(_text(value, member), member), f"{where}/{member}")

    def _expression(self, state: dict[str, Any], member: str, where: str) -> Expression | None:
        return self._compiled(lambda: compile_expression(_text(state.get(member), member), member), f"{where}/{member}")

    def _template(self, state: dict[str, Any], member: str, jsonata: bool, where: str) -> Expression | None:
        if member not in state:
            return None
        if jsonata:
            return self._jsonata(state, member, where)
        return self._compiled(lambda: compile_template(state[member], member), f"{where}/{member}")

    def _assign(self, state: dict[str, Any], jsonata: bool, where: str) -> Expression | None:
        if "Assign" not in state:
            return None
        names = state["Assign"]
        if not isinstance(names, dict) or any(name.removesuffix(".$") in ("states", "") for name in names):
            self._error("'Assign' must be an object of variable names and values; 'states' is reserved", f"{where}/Assign")
            return None
        return self._template(state, "Assign", jsonata, where)

    def _jsonata(self, state: dict[str, Any], member: str, where: str) -> Expression | None:
        if member not in state:
            return None
        # Imported only where it is used: few definitions need it.
        from localcloud.stepfunctions.jsonata_payloads import compile_jsonata

        return self._compiled(lambda: compile_jsonata(state[member], member), f"{where}/{member}")

    def _seconds(self, state: dict[str, Any], member: str, jsonata: bool, where: str, lowest: int = 1) -> Expression | None:
        value = state.get(member)
        if f"{member}Path" in state and not jsonata:
            if member in state:
                self._error(f"A state may have either '{member}' or '{member}Path'", where)
            return self._expression(state, f"{member}Path", where)
        if member not in state:
            return None
        if jsonata and _is_jsonata(value):
            return self._jsonata(state, member, where)
        if not _is_seconds(value, lowest):
            self._error(f"The value for the field '{member}' must be an integer between {lowest} and {_MAX_SECONDS}", f"{where}/{member}")
            return None
        return _constant(value)

    def _error_handling(self, state: dict[str, Any], jsonata: bool, where: str) -> dict[str, Any]:
        retriers = [self._retrier(entry, location) for entry, location in self._handlers(state, "Retry", where)]
        catchers = [self._catcher(entry, jsonata, location) for entry, location in self._handlers(state, "Catch", where)]
        return {"retriers": tuple(retriers), "catchers": tuple(catchers)}

    def _handlers(self, state: dict[str, Any], member: str, where: str) -> list[tuple[dict[str, Any], str]]:
        entries = state.get(member, [])
        if not isinstance(entries, list):
            self._error(f"The value for the field '{member}' must be an array", f"{where}/{member}")
            return []
        checked = []
        for index, entry in enumerate(entries):
            location = f"{where}/{member}[{index}]"
            names = entry.get("ErrorEquals") if isinstance(entry, dict) else None
            if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
                self._error("These fields are required: [ErrorEquals]", location)
                continue
            if ErrorName.ALL in names and (len(names) > 1 or index < len(entries) - 1):
                self._error("'States.ALL' must be the only element of the 'ErrorEquals' array, and in the last entry", location)
            checked.append((entry, location))
        return checked

    def _retrier(self, entry: dict[str, Any], location: str) -> Retrier:
        for name in entry:
            if name not in ("ErrorEquals", "IntervalSeconds", "MaxAttempts", "BackoffRate", "MaxDelaySeconds", "JitterStrategy", "Comment"):
                self._error(f'The field "{name}" is not supported by Step Functions', f"{location}/{name}")
        interval, attempts, rate = entry.get("IntervalSeconds", 1), entry.get("MaxAttempts", 3), entry.get("BackoffRate", 2.0)
        longest, jitter = entry.get("MaxDelaySeconds", _MAX_SECONDS), entry.get("JitterStrategy", "NONE")
        for name, valid in (
            ("IntervalSeconds", _is_seconds(interval)),
            ("MaxAttempts", _is_seconds(attempts, 0)),
            ("BackoffRate", isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate >= 1),
            (
                "MaxDelaySeconds",
                _is_seconds(longest) and (not _is_seconds(interval) or longest > interval or "MaxDelaySeconds" not in entry),
            ),
            ("JitterStrategy", jitter in ("FULL", "NONE")),
        ):
            if not valid:
                self._error(f"The value for the field '{name}' is not valid: {entry.get(name)}", f"{location}/{name}")
                return Retrier(entry["ErrorEquals"], 1, 0, 1, 1, False)
        return Retrier(entry["ErrorEquals"], interval, attempts, rate, longest, jitter == "FULL")

    def _catcher(self, entry: dict[str, Any], jsonata: bool, location: str) -> Catcher:
        known = {"ErrorEquals", "Next", "Comment", "Assign"} | ({"Output"} if jsonata else {"ResultPath"})
        for name in entry:
            if name not in known:
                self._error(f'The field "{name}" is not supported by Step Functions', f"{location}/{name}")
        if not isinstance(entry.get("Next"), str):
            self._error("These fields are required: [Next]", location)
        result_path = None if jsonata else self._result_path(entry, location)
        output = self._jsonata(entry, "Output", location) if jsonata else None
        return Catcher(entry["ErrorEquals"], str(entry.get("Next")), result_path, output, self._assign(entry, jsonata, location))

    def _compiled(self, work: Callable[[], Expression], location: str) -> Expression | None:
        expression: Expression | None = self._guarded(work, location)
        return expression

    def _guarded(self, work: Callable[[], Any], location: str) -> Any:
        try:
            return work()
        except TemplateSyntaxError as error:
            tail = error.location if not location.endswith(error.location) else ""
            self._error(str(error), location + tail)
            return None


def _is_seconds(value: Any, lowest: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= _MAX_SECONDS


def _is_jsonata(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


def _constant(value: Any) -> Expression:
    return lambda _: value


def _text(value: Any, member: str) -> str:
    if not isinstance(value, str):
        raise TemplateSyntaxError(f"The value for the field '{member}' must be a valid JSONPath")
    return value
