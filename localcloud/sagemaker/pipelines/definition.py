"""A pipeline definition (version 2020-12-01) as typed objects; the steps of conditions' branches stand beside the others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

VERSION = "2020-12-01"
_NAME = re.compile(r"[A-Za-z0-9\-_]{1,64}")
_DURATION = re.compile(
    r"P?(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?",
    re.IGNORECASE,
)
_DAYS = {"years": 365, "months": 30, "weeks": 7, "days": 1}


class DefinitionError(Exception):
    """Indicates that a pipeline definition cannot be used; the message is what AWS would answer, or as close as is known."""


def unparsable(detail: str) -> DefinitionError:
    """Return the error with the words that AWS puts before almost every such complaint."""
    return DefinitionError(f"Unable to parse pipeline definition. {detail}")


class StepType(StrEnum):
    """The step types that run here."""

    PROCESSING = "Processing"
    TRAINING = "Training"
    CONDITION = "Condition"
    FAIL = "Fail"
    REGISTER_MODEL = "RegisterModel"
    MODEL = "Model"
    ENDPOINT_CONFIG = "EndpointConfig"
    ENDPOINT = "Endpoint"
    LAMBDA = "Lambda"
    CALLBACK = "Callback"


#: Step types of AWS that localcloud refuses. Any other word is no step type at all.
REFUSED_TYPES = (
    "Athena",
    "AutoML",
    "BedrockCustomModel",
    "BedrockCustomModelDeployment",
    "BedrockModelImport",
    "BedrockProvisionedModelThroughput",
    "ClarifyCheck",
    "Cleanup",
    "EMR",
    "EMRServerless",
    "ForEach",
    "HubContent",
    "InferenceComponent",
    "Job",
    "Lineage",
    "QualityCheck",
    "Transform",
    "Tuning",
)


class ParameterType(StrEnum):
    """Types of pipeline parameters, and of what a Lambda or Callback step returns."""

    STRING = "String"
    INTEGER = "Integer"
    FLOAT = "Float"
    BOOLEAN = "Boolean"

    def accepts(self, value: Any) -> bool:
        """Return whether a JSON value is of this type."""
        if self is ParameterType.STRING:
            return isinstance(value, str)
        if self is ParameterType.BOOLEAN:
            return isinstance(value, bool)
        kinds = (int,) if self is ParameterType.INTEGER else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)


class ExceptionType(StrEnum):
    """What a retry policy can match."""

    SERVICE_FAULT = "Step.SERVICE_FAULT"
    THROTTLING = "Step.THROTTLING"
    JOB_INTERNAL_ERROR = "SageMaker.JOB_INTERNAL_ERROR"
    CAPACITY_ERROR = "SageMaker.CAPACITY_ERROR"
    RESOURCE_LIMIT = "SageMaker.RESOURCE_LIMIT"


@dataclass(frozen=True)
class Parameter:
    """A declared parameter.

    Attributes:
        default: None when a value must be given at the start.
        allowed: The EnumValues, or empty.
    """

    name: str
    type: ParameterType
    default: str | int | float | bool | None = None
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class CacheConfig:
    """When an earlier run of a step may stand in for a new one.

    Attributes:
        expire_after: How old it may be; None: any age.
    """

    enabled: bool
    expire_after: timedelta | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """One entry of RetryPolicies; seconds and minutes as in the definition."""

    exception_types: frozenset[ExceptionType]
    interval_seconds: float = 1.0
    backoff_rate: float = 2.0
    max_attempts: int | None = None
    expire_after_min: float | None = None


@dataclass(frozen=True)
class PropertyFile:
    """A JSON file in a processing step's output."""

    name: str
    output_name: str
    file_path: str


@dataclass(frozen=True)
class Branch:
    """Where in a condition a step stands: it runs only when the condition's outcome is this one."""

    condition: str
    outcome: bool


@dataclass(frozen=True)
class Step:
    """One step. `arguments` is the definition's JSON, expressions and all; a Condition's has its branches' step *names* in IfSteps and ElseSteps."""

    name: str
    type: StepType
    arguments: Any
    depends_on: tuple[str, ...] = ()
    display_name: str | None = None
    description: str | None = None
    cache: CacheConfig | None = None
    retry_policies: tuple[RetryPolicy, ...] = ()
    property_files: Mapping[str, PropertyFile] = field(default_factory=dict)
    function_arn: Any = None
    sqs_queue_url: Any = None
    output_parameters: Mapping[str, ParameterType] = field(default_factory=dict)
    branch: Branch | None = None


@dataclass(frozen=True)
class Definition:
    """A whole definition; `steps` in document order, branches' steps after their condition."""

    parameters: Mapping[str, Parameter]
    steps: Mapping[str, Step]
    experiment: Mapping[str, Any] | None = None


def parse_definition(text: str) -> Definition:
    """Parse the JSON text of a definition. What the steps refer to and their arguments are checked by `validation.validate`.

    Raises:
        DefinitionError: It is no such definition.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise unparsable(f"Invalid JSON: {error}.") from error
    _members(document, ("Version", "Metadata", "Parameters", "PipelineExperimentConfig", "MlflowConfig", "Steps"))
    version = document.get("Version", VERSION)
    if version != VERSION:
        raise unparsable(f"Unsupported version '{version}'. Supported versions are: [{VERSION}].")
    if document.get("MlflowConfig") is not None:
        raise DefinitionError("MlflowConfig in a pipeline definition is not supported by localcloud")
    experiment = document.get("PipelineExperimentConfig")
    if experiment is not None:
        _members(experiment, ("ExperimentName", "TrialName"))
    parameters: dict[str, Parameter] = {}
    for item in _list(document.get("Parameters") or []):
        parameter = _parameter(item)
        if parameter.name in parameters:
            raise unparsable(f"Duplicate parameter name '{parameter.name}'.")
        parameters[parameter.name] = parameter
    steps: dict[str, Step] = {}
    for step in _steps(document.get("Steps"), None):
        if step.name in steps:
            raise unparsable(
                f"Duplicate step name '{step.name}'. Step names must be unique within a pipeline, those of conditions' branches included."
            )
        steps[step.name] = step
    if not steps:
        raise unparsable("A pipeline needs at least one step.")
    return Definition(parameters, steps, experiment)


def parse_duration(text: Any) -> timedelta:
    """Parse an ISO 8601 duration as SageMaker reads them: any case, the leading P may be missing (``30d``, ``T16m``). A year is 365 days, a month 30.

    Raises:
        DefinitionError: It is none.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    amounts = {name: float(amount) for name, amount in match.groupdict().items() if amount is not None} if match else {}
    if not amounts:
        raise unparsable(f"ExpireAfter '{text}' is not an ISO 8601 duration such as P30D or PT1H.")
    try:
        days = sum(amounts.get(unit, 0) * length for unit, length in _DAYS.items())
        return timedelta(days, hours=amounts.get("hours", 0), minutes=amounts.get("minutes", 0), seconds=amounts.get("seconds", 0))
    except OverflowError:
        return timedelta.max


def _parameter(item: Any) -> Parameter:
    _members(item, ("Name", "Type", "DefaultValue", "EnumValues", "Description"))
    name = item.get("Name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise unparsable(f"Parameter name '{name}' failed to satisfy regular expression pattern: ^{_NAME.pattern}$")
    try:
        kind = ParameterType(item.get("Type", "String"))
    except ValueError:
        raise unparsable(f"Unknown type '{item['Type']}' of parameter '{name}'. Known are: {', '.join(ParameterType)}.") from None
    default = item.get("DefaultValue")
    if default is not None and not kind.accepts(default):
        raise unparsable(f"Default value {json.dumps(default)} of parameter '{name}' is not of type {kind}.")
    allowed = tuple(_list(item.get("EnumValues") or []))
    if allowed and (kind is not ParameterType.STRING or not all(isinstance(value, str) for value in allowed)):
        raise unparsable(f"EnumValues of parameter '{name}' must be Strings of a String parameter.")
    if allowed and default is not None and default not in allowed:
        raise unparsable(f"Default value '{default}' of parameter '{name}' is not one of its EnumValues: [{', '.join(allowed)}].")
    return Parameter(name, kind, default, allowed)


_COMMON_MEMBERS = ("Name", "Type", "Arguments", "DependsOn", "DisplayName", "Description", "CacheConfig", "RetryPolicies")
_OWN_MEMBERS: dict[StepType, tuple[str, ...]] = {
    StepType.PROCESSING: ("PropertyFiles",),
    StepType.LAMBDA: ("FunctionArn", "OutputParameters"),
    StepType.CALLBACK: ("SqsQueueUrl", "OutputParameters"),
}
#: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html, and the SDK for EndpointConfig.
_RETRYABLE = (StepType.PROCESSING, StepType.TRAINING, StepType.MODEL, StepType.REGISTER_MODEL, StepType.ENDPOINT_CONFIG)
_MAX_ATTEMPTS = 20


def _steps(items: Any, branch: Branch | None) -> Iterator[Step]:
    for item in _list(items):
        step = _step(item, branch)
        yield step
        if step.type is StepType.CONDITION:
            for member, outcome in (("IfSteps", True), ("ElseSteps", False)):
                yield from _steps(item["Arguments"].get(member) or [], Branch(step.name, outcome))


def _step(item: Any, branch: Branch | None) -> Step:
    if not isinstance(item, dict):
        raise unparsable("Expecting start of Json Object.")
    name = item.get("Name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise unparsable(f"Step name '{name}' failed to satisfy regular expression pattern: ^{_NAME.pattern}$")
    kind = item.get("Type")
    if kind in REFUSED_TYPES:
        raise DefinitionError(f"The step type {kind} (step '{name}') is not supported by localcloud. Supported are: {', '.join(StepType)}.")
    if kind not in tuple(StepType):
        raise unparsable(f"Unknown step type '{kind}' of step '{name}'.")
    type_ = StepType(kind)
    _members(item, _COMMON_MEMBERS + _OWN_MEMBERS.get(type_, ()))
    arguments = item.get("Arguments", {} if type_ in (StepType.LAMBDA, StepType.CALLBACK, StepType.FAIL) else None)
    if not isinstance(arguments, dict):
        raise unparsable("Expecting start of Json Object.")
    if type_ is StepType.CONDITION:
        _members(arguments, ("Conditions", "IfSteps", "ElseSteps"))
        _list(arguments.get("Conditions"))
        arguments = {"Conditions": arguments["Conditions"]}
    for member in ("DisplayName", "Description"):
        if not isinstance(item.get(member, ""), str):
            raise unparsable(f"Expecting a String for '{member}' of step '{name}'.")
    policies = tuple(_retry_policy(policy, name) for policy in _list(item.get("RetryPolicies") or []))
    if policies and type_ not in _RETRYABLE:
        raise unparsable(f"Retry policies are not supported for step '{name}' of type {type_}.")
    files = [_property_file(file) for file in _list(item.get("PropertyFiles") or [])]
    outputs = [_output_parameter(output, name) for output in _list(item.get("OutputParameters") or [])]
    return Step(
        name=name,
        type=type_,
        arguments=arguments,
        depends_on=tuple(_dependency(entry, name) for entry in _list(item.get("DependsOn") or [])),
        display_name=item.get("DisplayName"),
        description=item.get("Description"),
        cache=_cache_config(item["CacheConfig"]) if item.get("CacheConfig") is not None else None,
        retry_policies=policies,
        property_files={file.name: file for file in files},
        function_arn=item.get("FunctionArn"),
        sqs_queue_url=item.get("SqsQueueUrl"),
        output_parameters=dict(outputs),
        branch=branch,
    )


def _dependency(entry: Any, step: str) -> str:
    if isinstance(entry, dict) and set(entry) == {"Step", "Trigger"}:
        if entry["Trigger"] == "Completed":
            return str(entry["Step"])
        raise DefinitionError(
            f"The trigger '{entry['Trigger']}' in DependsOn of step '{step}' is not supported by localcloud; only Completed is."
        )
    if not isinstance(entry, str):
        raise unparsable(f"DependsOn of step '{step}' must be a list of step names.")
    return entry


def _cache_config(item: Any) -> CacheConfig:
    _members(item, ("Enabled", "ExpireAfter"))
    enabled = item.get("Enabled", False)
    if not isinstance(enabled, bool):
        raise unparsable("Expecting a Boolean for 'Enabled' of CacheConfig.")
    expire_after = item.get("ExpireAfter")
    return CacheConfig(enabled, None if expire_after is None else parse_duration(expire_after))


def _retry_policy(item: Any, step: str) -> RetryPolicy:
    _members(item, ("ExceptionType", "IntervalSeconds", "BackoffRate", "MaxAttempts", "ExpireAfterMin"))
    names = item.get("ExceptionType")
    names = [names] if isinstance(names, str) else _list(names)
    unknown = [name for name in names if name not in tuple(ExceptionType)]
    if unknown or not names:
        raise unparsable(
            f"Unknown ExceptionType '{unknown[0] if unknown else ''}' in a retry policy of step '{step}'. Known are: {', '.join(ExceptionType)}."
        )
    for member, low, high in (
        ("IntervalSeconds", 0, None),
        ("BackoffRate", 0, None),
        ("MaxAttempts", 0, _MAX_ATTEMPTS),
        ("ExpireAfterMin", 0, 14400),
    ):
        value = item.get(member)
        if value is None:
            continue
        if not ParameterType.FLOAT.accepts(value) or value < low or (high is not None and value > high):
            limit = f"between {low} and {high}" if high is not None else f"not less than {low}"
            raise unparsable(f"{member} of a retry policy of step '{step}' must be a number {limit}.")
    return RetryPolicy(
        exception_types=frozenset(ExceptionType(name) for name in names),
        interval_seconds=float(item.get("IntervalSeconds", 1)),
        backoff_rate=float(item.get("BackoffRate", 2.0)),
        max_attempts=item.get("MaxAttempts"),
        expire_after_min=item.get("ExpireAfterMin"),
    )


def _property_file(item: Any) -> PropertyFile:
    _members(item, ("PropertyFileName", "OutputName", "FilePath"))
    values = [item.get(member) for member in ("PropertyFileName", "OutputName", "FilePath")]
    if not all(isinstance(value, str) and value for value in values):
        raise unparsable("A property file needs the Strings PropertyFileName, OutputName and FilePath.")
    return PropertyFile(*values)


def _output_parameter(item: Any, step: str) -> tuple[str, ParameterType]:
    _members(item, ("OutputName", "OutputType"))
    name, kind = item.get("OutputName"), item.get("OutputType", "String")
    if not isinstance(name, str) or kind not in tuple(ParameterType):
        raise unparsable(f"An output parameter of step '{step}' needs an OutputName and an OutputType of: {', '.join(ParameterType)}.")
    return name, ParameterType(kind)


def _members(item: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(item, dict):
        raise unparsable("Expecting start of Json Object.")
    for member in item:
        if member not in allowed:
            raise unparsable(f"Cannot parse object, unknown property '{member}'.")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise unparsable("Expecting start of Json Array.")
    return value
