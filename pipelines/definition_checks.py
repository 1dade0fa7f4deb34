"""Checks of a rendered definition before anything is created: references, dependencies, cache keys, and each step's request against botocore.

AWS's published JSON schema of definitions rejects step types that the service accepts, so each step's Arguments are validated as the request
they become: references are replaced by samples of the right type, then botocore's own validator and the service model's limits are applied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import botocore
import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape
from botocore.validate import ParamValidator

from pipelines.errors import DefinitionError

StepType = Literal["Processing", "Training", "RegisterModel", "Model", "EndpointConfig", "Endpoint", "Condition", "Fail"]


@dataclass(frozen=True, slots=True)
class _Api:
    """The request a step becomes, the response its properties are read from, and the name that SageMaker makes up."""

    create: str
    describe: str
    generated_name: str | None = None
    cache_key: tuple[str, ...] = ()


# Cache keys: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-caching.html, "Caching by step type".
_APIS: dict[str, _Api] = {
    "Processing": _Api(
        "CreateProcessingJob", "DescribeProcessingJob", "ProcessingJobName", ("AppSpecification", "Environment", "ProcessingInputs")
    ),
    "Training": _Api(
        "CreateTrainingJob",
        "DescribeTrainingJob",
        "TrainingJobName",
        ("AlgorithmSpecification", "CheckpointConfig", "Environment", "HyperParameters", "InputDataConfig"),
    ),
    "RegisterModel": _Api("CreateModelPackage", "DescribeModelPackage"),
    "Model": _Api("CreateModel", "DescribeModel", "ModelName"),
    "EndpointConfig": _Api("CreateEndpointConfig", "DescribeEndpointConfig"),
    "Endpoint": _Api("CreateEndpoint", "DescribeEndpoint"),
}
_EXECUTION_VARIABLES = frozenset(
    {
        "StartDateTime",
        "CurrentDateTime",
        "PipelineName",
        "PipelineArn",
        "PipelineExecutionId",
        "PipelineExecutionArn",
        "TrainingJobName",
        "ProcessingJobName",
    }
)
_PARAMETER_SAMPLES: dict[str, object] = {"Integer": 1, "Float": 1.0, "Boolean": True}
_PATH_TOKEN = re.compile(r"\.?(?P<name>[A-Za-z][A-Za-z0-9]*)|\['(?P<key>[^']+)'\]|\[(?P<index>\d+)\]")
# How a placeholder looks when it was made into text; see `pipelines.lint`.
_BAKED = re.compile(r"\{'(Get|Std:Join|Std:JsonGet)':|<sagemaker\.|\bParameter(String|Integer|Float|Boolean)?\(name=")


class _Sample(str):
    """Stands for text that is known only at run time; limits on text do not apply to it."""

    __slots__ = ()


@dataclass
class _Step:
    name: str
    type: str
    document: Mapping[str, Any]
    parent: str | None
    needs: set[str] = field(default_factory=set)


def definition_problems(text: str) -> list[str]:
    """What is wrong with a pipeline definition (JSON text), one line for each thing; empty when nothing is."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        return [f"the definition is not JSON: {error}"]
    return list(_Checker(document).problems())


def check_definition(text: str) -> None:
    """Raise DefinitionError with the first problem of a definition."""
    problems = definition_problems(text)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DefinitionError(f"the pipeline definition is wrong: {problems[0]}{more}")


@cache
def _service_model() -> ServiceModel:
    return botocore.session.get_session().get_service_model("sagemaker")


class _Checker:
    """One pass over one definition."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.parameters: dict[str, Mapping[str, Any]] = {item["Name"]: item for item in document.get("Parameters", ())}
        self.flat = list(_flatten(document.get("Steps", ()), None))
        self.steps = {step.name: step for step in self.flat}
        self.used_parameters: set[str] = set()

    def problems(self) -> Iterator[str]:
        names = [step.name for step in self.flat]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"step {name} is defined more than once"
        for step in self.flat:
            yield from self._step_problems(step)
        for name in self.parameters:
            if name not in self.used_parameters:
                yield f"parameter {name} is declared but never used"
        yield from self._cycle_problems()

    def _step_problems(self, step: _Step) -> Iterator[str]:
        where = f"step {step.name}"
        for text in _texts(step.document):
            if _BAKED.search(text):
                yield f"{where}: a pipeline variable was made into text: {text[:80]!r}"
        arguments = step.document.get("Arguments", {})
        found: list[str] = []
        own = (
            {name: value for name, value in arguments.items() if name not in ("IfSteps", "ElseSteps")}
            if step.type == "Condition"
            else arguments
        )
        resolved = self._resolve(own, step, found)
        for name in step.document.get("DependsOn", ()):
            step.needs.add(name)
            if name not in self.steps:
                found.append(f"DependsOn names step {name}, which does not exist")
        if step.type in _APIS:
            found += _request_problems(step.type, resolved)
            found += self._property_file_problems(step)
            if step.document.get("CacheConfig", {}).get("Enabled"):
                found += self._cache_key_problems(step)
        elif step.type not in ("Condition", "Fail"):
            found.append(f"type {step.type} is not one this project uses: {', '.join([*_APIS, 'Condition', 'Fail'])}")
        yield from (f"{where}: {problem}" for problem in found)

    def _property_file_problems(self, step: _Step) -> Iterator[str]:
        outputs = _output_names(step)
        for file in step.document.get("PropertyFiles", ()):
            if file["OutputName"] not in outputs:
                yield f"property file {file['PropertyFileName']} is in output {file['OutputName']}, which the step does not have"

    def _cache_key_problems(self, step: _Step) -> Iterator[str]:
        for name in _APIS[step.type].cache_key:
            for reference in _references(step.document["Arguments"].get(name)):
                if reference.startswith("Execution."):
                    yield f"{name} holds {reference}, so the step could never be found in the cache"

    def _cycle_problems(self) -> Iterator[str]:
        waiting = {
            step.name: {need for need in step.needs | ({step.parent} if step.parent else set()) if need in self.steps} for step in self.flat
        }
        while ready := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
            for name in ready:
                del waiting[name]
        if waiting:
            yield f"steps wait for each other: {', '.join(waiting)}"

    # References, replaced by samples

    def _resolve(self, value: object, step: _Step, found: list[str]) -> Any:
        """The value with every reference replaced by a sample of its type; problems of references go to `found`."""
        if isinstance(value, list):
            return [self._resolve(item, step, found) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self._sample(value["Get"], step, found)
        if set(value) == {"Std:Join"}:
            parts = [self._resolve(part, step, found) for part in value["Std:Join"]["Values"]]
            joined = str(value["Std:Join"]["On"]).join(str(part) for part in parts)
            return _Sample(joined) if any(not isinstance(part, str) or isinstance(part, _Sample) for part in parts) else joined
        if set(value) == {"Std:JsonGet"}:
            self._check_json_get(value["Std:JsonGet"], step, found)
            return _Sample("json")
        return {key: self._resolve(item, step, found) for key, item in value.items()}

    def _sample(self, reference: str, step: _Step, found: list[str]) -> Any:
        kind, _, rest = reference.partition(".")
        if kind == "Parameters":
            self.used_parameters.add(rest)
            if rest not in self.parameters:
                found.append(f"parameter {rest} is used but not declared; declared are {', '.join(self.parameters)}")
                return _Sample(rest)
            declared = self.parameters[rest]
            return declared.get("DefaultValue", _PARAMETER_SAMPLES.get(declared["Type"], _Sample(rest)))
        if kind == "Execution":
            if rest not in _EXECUTION_VARIABLES:
                found.append(f"{reference} is not an execution variable")
            return _Sample(rest)
        if kind == "Steps":
            return self._step_sample(rest, step, found)
        found.append(f"{reference} refers to neither Parameters, Execution nor Steps")
        return _Sample(reference)

    def _step_sample(self, rest: str, step: _Step, found: list[str]) -> Any:
        name, _, path = rest.partition(".")
        step.needs.add(name)
        source = self.steps.get(name)
        if source is None:
            found.append(f"Steps.{rest} refers to step {name}, which does not exist")
            return _Sample(name)
        if source.type not in _APIS:
            if (source.type, path) != ("Condition", "Outcome"):
                found.append(f"Steps.{rest}: a step of type {source.type} has no property {path}")
            return _Sample(name)
        shape: Shape | None = _service_model().operation_model(_APIS[source.type].describe).output_shape
        position = 0
        while shape is not None and position < len(path):
            token = _PATH_TOKEN.match(path, position)
            shape = _member(shape, token) if token else None
            if token and token["key"] and token["key"] not in _output_names(source):
                found.append(f"Steps.{rest}: step {name} has no output {token['key']}; it has {', '.join(sorted(_output_names(source)))}")
            position = token.end() if token else len(path)
        if shape is None or isinstance(shape, StructureShape | ListShape | MapShape):
            found.append(f"Steps.{rest} is not a value of step {name} ({_APIS[source.type].describe})")
            return _Sample(name)
        return {"integer": 1, "long": 1, "float": 1.0, "double": 1.0, "boolean": True}.get(shape.type_name, _Sample(rest))

    def _check_json_get(self, arguments: Mapping[str, Any], step: _Step, found: list[str]) -> None:
        reference = str(arguments["PropertyFile"]["Get"])
        match = re.fullmatch(r"Steps\.([^.]+)\.PropertyFiles\.(.+)", reference)
        if match is None:
            found.append(f"Std:JsonGet reads {reference}, which is not a property file")
            return
        name, file = match.groups()
        step.needs.add(name)
        declared = (
            {item["PropertyFileName"] for item in self.steps[name].document.get("PropertyFiles", ())} if name in self.steps else set()
        )
        if file not in declared:
            found.append(f"{reference} does not exist")


def _flatten(steps: Any, parent: str | None) -> Iterator[_Step]:
    for document in steps:
        yield _Step(document["Name"], document["Type"], document, parent)
        arguments = document.get("Arguments", {})
        for branch in ("IfSteps", "ElseSteps"):
            yield from _flatten(arguments.get(branch, ()), document["Name"])


def _output_names(step: _Step) -> set[str]:
    outputs = step.document.get("Arguments", {}).get("ProcessingOutputConfig", {}).get("Outputs", ())
    return {output["OutputName"] for output in outputs}


def _member(shape: Shape, token: re.Match[str]) -> Shape | None:
    if token["name"] and isinstance(shape, StructureShape):
        return shape.members.get(token["name"])
    if isinstance(shape, ListShape) and not token["name"]:
        return shape.member
    if isinstance(shape, MapShape) and token["key"]:
        return shape.value
    return None


def _texts(value: object) -> Iterator[str]:
    """Every text in a step, but not in the steps inside it: those are looked at by themselves."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in ("IfSteps", "ElseSteps"):
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if set(value) == {"Get"}:
            yield value["Get"]
        else:
            for item in value.values():
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _request_problems(step_type: str, arguments: dict[str, Any]) -> Iterator[str]:
    """What botocore and the service model's limits say about the request that the step becomes."""
    api = _APIS[step_type]
    shape = _service_model().operation_model(api.create).input_shape
    if shape is None:  # no operation of these is without input
        return
    request = {api.generated_name: _Sample("name"), **arguments} if api.generated_name else arguments
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        yield f"{api.create}: {' '.join(report.generate_report().split())}"
    else:
        yield from (f"{api.create}: {problem}" for problem in _limit_problems(request, shape, ""))


def _limit_problems(value: object, shape: Shape, path: str) -> Iterator[str]:
    """Limits that botocore leaves to the service: enumerations, patterns, maximum lengths and numbers."""
    if isinstance(value, dict) and isinstance(shape, StructureShape):
        for name, item in value.items():
            yield from _limit_problems(item, shape.members[name], f"{path}.{name}" if path else name)
    elif isinstance(value, dict) and isinstance(shape, MapShape):
        for name, item in value.items():
            yield from _limit_problems(item, shape.value, f"{path}.{name}")
    elif isinstance(value, list) and isinstance(shape, ListShape):
        for index, item in enumerate(value):
            yield from _limit_problems(item, shape.member, f"{path}[{index}]")
    elif isinstance(value, str) and not isinstance(value, _Sample):
        limits = shape.metadata
        if "enum" in limits and value not in limits["enum"]:
            yield f"{path}: {value!r} is not one of the {len(limits['enum'])} values that botocore {botocore.__version__} knows"
        elif len(value) > limits.get("max", len(value)):
            yield f"{path}: {len(value)} characters, at most {limits['max']} are allowed"
        elif "pattern" in limits and not _matches(limits["pattern"], value):
            yield f"{path}: {value!r} does not match {limits['pattern']}"
    elif isinstance(value, int | float) and value > shape.metadata.get("max", value):
        yield f"{path}: {value} is above {shape.metadata['max']}"


def _matches(pattern: str, value: str) -> bool:
    """Whether the text matches a pattern of the service model; patterns in a dialect that Python does not know are left to the service."""
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        return True
