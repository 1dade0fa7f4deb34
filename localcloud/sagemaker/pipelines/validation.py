"""What CreatePipeline and UpdatePipeline check: references lead somewhere, and every step's arguments fit the operation that the step will call.

Literals are held against the operation's input shape; an expression against the type that it has when it is evaluated. AWS's published JSON schema of
definitions is older than its service and rejects valid ones, so botocore's model is the measure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from botocore.model import Shape
from moto.core.utils import get_service_model

from localcloud.sagemaker.pipelines import conditions
from localcloud.sagemaker.pipelines.definition import Definition, DefinitionError, ParameterType, Step, StepType, unparsable
from localcloud.sagemaker.pipelines.expressions import (
    ExecutionReference,
    ExpressionError,
    ParameterReference,
    Path,
    PropertyFileReference,
    Reference,
    StepReference,
    format_path,
    is_expression,
    parse_reference,
    references,
)
from localcloud.sagemaker.pipelines.graph import dependencies


@dataclass(frozen=True)
class StepOperation:
    """What a step type calls.

    Attributes:
        create: The operation whose input the step's Arguments are.
        describe: The operation whose output the step's properties are.
        name_member: The member that names what is made. In a definition it is optional: Pipelines makes up the name, or uses it as a prefix.
        refused_members: Members that AWS does not take in a definition.
    """

    create: str
    describe: str
    name_member: str
    refused_members: tuple[str, ...] = ()


OPERATIONS: dict[StepType, StepOperation] = {
    StepType.PROCESSING: StepOperation("CreateProcessingJob", "DescribeProcessingJob", "ProcessingJobName"),
    StepType.TRAINING: StepOperation("CreateTrainingJob", "DescribeTrainingJob", "TrainingJobName"),
    StepType.MODEL: StepOperation("CreateModel", "DescribeModel", "ModelName"),
    StepType.REGISTER_MODEL: StepOperation(
        "CreateModelPackage", "DescribeModelPackage", "ModelPackageName", ("CertifyForMarketplace", "ModelPackageName", "ClientToken")
    ),
    StepType.ENDPOINT_CONFIG: StepOperation("CreateEndpointConfig", "DescribeEndpointConfig", "EndpointConfigName"),
    # The SDK's first version of EndpointStep: any field of CreateEndpoint but DeploymentConfig, which Pipelines rejects.
    StepType.ENDPOINT: StepOperation("CreateEndpoint", "DescribeEndpoint", "EndpointName", ("DeploymentConfig",)),
}

#: Types of values in shapes, by botocore's type name.
_TYPE_NAMES: dict[str, str] = {
    "string": "String",
    "timestamp": "String",
    "integer": "Integer",
    "long": "Integer",
    "float": "Float",
    "double": "Float",
    "boolean": "Boolean",
}
#: An expression whose type shows only when it is evaluated.
_ANY = "Any"


def validate(definition: Definition) -> None:
    """Check a parsed definition.

    Raises:
        DefinitionError: The first thing wrong with it.
    """
    try:
        dependencies(definition)
        for step in definition.steps.values():
            _check_fail_steps(definition, step)
            for reference in references([step.arguments, step.function_arn, step.sqs_queue_url]):
                _check_reference(definition, step, reference)
            _check_property_files(step)
            _check_arguments(definition, step)
        for reference in references(dict(definition.experiment or {})):
            if not isinstance(reference, ExecutionReference | ParameterReference):
                raise unparsable("PipelineExperimentConfig may refer to parameters and execution variables only.")
            _check_reference(definition, None, reference)
    except ExpressionError as error:
        raise unparsable(str(error)) from error


def _check_fail_steps(definition: Definition, step: Step) -> None:
    for name in (*step.depends_on, *(r.step for r in references(step.arguments) if isinstance(r, StepReference))):
        if definition.steps[name].type is StepType.FAIL:
            raise unparsable(f"{step.name} can not depends on {name}")


def _check_reference(definition: Definition, step: Step | None, reference: Reference) -> None:
    if isinstance(reference, ParameterReference):
        if reference.name not in definition.parameters:
            raise unparsable(f"Unknown property reference [Parameters.{reference.name}].")
    elif isinstance(reference, PropertyFileReference):
        owner = definition.steps[reference.step]
        if reference.name not in owner.property_files:
            raise unparsable(f"Property file '{reference.name}' is not defined in step '{reference.step}'.")
    elif isinstance(reference, StepReference):
        _property_type(definition, reference)
    elif step is not None:
        needed = {"TrainingJobName": StepType.TRAINING, "ProcessingJobName": StepType.PROCESSING}.get(reference.variable)
        if needed is not None and step.type is not needed:
            raise unparsable(f"Execution.{reference.variable} can only be used in a {needed} step, not in '{step.name}'.")


def _check_property_files(step: Step) -> None:
    if not step.property_files:
        return
    config = step.arguments.get("ProcessingOutputConfig")
    outputs = config.get("Outputs", []) if isinstance(config, dict) else []
    names = [output.get("OutputName") for output in outputs if isinstance(output, dict)]
    for file in step.property_files.values():
        if file.output_name not in names:
            raise unparsable(
                f"Processing output name '{file.output_name}' defined in property file '{file.name}' not found in processing step '{step.name}'."
            )


def _check_arguments(definition: Definition, step: Step) -> None:
    arguments: Mapping[str, Any] = step.arguments
    if step.type is StepType.CONDITION:
        if not arguments["Conditions"]:
            raise unparsable(f"Condition step '{step.name}' needs at least one condition.")
        for condition in arguments["Conditions"]:
            conditions.check(condition)
            for operand in conditions.operands(condition):
                _check_scalar(definition, operand, step)
    elif step.type is StepType.FAIL:
        unknown = sorted(set(arguments) - {"ErrorMessage"})
        if unknown:
            raise unparsable(f"Unknown Argument member '{unknown[0]}'.")
        _check_string(definition, arguments.get("ErrorMessage", ""), "ErrorMessage")
    elif step.type is StepType.LAMBDA:
        _check_string(definition, step.function_arn, "FunctionArn")
    elif step.type is StepType.CALLBACK:
        _check_string(definition, step.sqs_queue_url, "SqsQueueUrl")
    else:
        operation = OPERATIONS[step.type]
        for member in operation.refused_members:
            if member in arguments:
                raise unparsable(f"Unknown Argument member '{member}'.")
        shape = get_service_model("sagemaker").operation_model(operation.create).input_shape
        _check_value(definition, arguments, shape, optional=(operation.name_member,))


def _check_scalar(definition: Definition, value: Any, step: Step) -> None:
    if is_expression(value):
        if _expression_type(definition, value) not in ("String", "Integer", "Float", "Boolean", _ANY):
            raise unparsable(f"A condition of step '{step.name}' compares [{value.get('Get')}], which is no single value.")
    elif not isinstance(value, str | int | float | bool):
        raise unparsable(f"A condition of step '{step.name}' compares texts, numbers and booleans only.")


def _check_string(definition: Definition, value: Any, member: str) -> None:
    if is_expression(value):
        _check_assignable(definition, value, "String")
    elif not isinstance(value, str):
        raise unparsable(f"Expecting a String for '{member}'.")


def _check_value(definition: Definition, value: Any, shape: Shape, optional: tuple[str, ...] = ()) -> None:
    kind = shape.type_name
    # A map may hold the key "Get" like any other; its values are where expressions stand.
    if kind != "map" and is_expression(value):
        _check_assignable(definition, value, _TYPE_NAMES.get(kind, kind))
    elif kind == "structure":
        if not isinstance(value, dict):
            raise unparsable("Expecting start of Json Object.")
        members: Mapping[str, Shape] = shape.members
        for member, item in value.items():
            if member not in members:
                raise unparsable(f"Unknown Argument member '{member}'.")
            _check_value(definition, item, members[member])
        for member in shape.required_members:
            if member not in value and member not in optional:
                raise unparsable(f"Model Validation failed: Missing required key '{member}' in {shape.name}.")
    elif kind == "list":
        if not isinstance(value, list):
            raise unparsable("Expecting start of Json Array.")
        _check_length(value, shape, "list")
        for item in value:
            _check_value(definition, item, shape.member)
    elif kind == "map":
        if not isinstance(value, dict):
            raise unparsable("Expecting start of Json Object.")
        _check_length(value, shape, "map")
        for key, item in value.items():
            _check_leaf(key, shape.key)
            _check_value(definition, item, shape.value)
    else:
        _check_leaf(value, shape)


def _check_leaf(value: Any, shape: Shape) -> None:
    expected = _TYPE_NAMES.get(shape.type_name)
    if expected is None:
        return
    if not ParameterType(expected).accepts(value):
        raise unparsable(f"Expecting a {expected} for {shape.name}, found {'null' if value is None else repr(value)}.")
    if isinstance(value, str):
        allowed = getattr(shape, "enum", None)
        if allowed and value not in allowed:
            raise unparsable(
                f"Model Validation failed: Value '{value}' for '{shape.name}' failed to satisfy enum value set: [{', '.join(allowed)}]"
            )
        _check_length(value, shape, "string")
        pattern = _compile(shape.metadata.get("pattern", ""))
        if pattern is not None and not pattern.fullmatch(value):
            raise unparsable(
                f"Model Validation failed: Value '{value}' for '{shape.name}' failed to satisfy regular expression pattern: {shape.metadata['pattern']}"
            )
    elif not isinstance(value, bool):
        _check_bounds(value, shape, f"{shape.type_name} {value}", "")


def _check_length(value: Any, shape: Shape, kind: str) -> None:
    what = f"string '{value}'" if kind == "string" else kind
    _check_bounds(len(value), shape, what, f" with length={len(value)}")


def _check_bounds(measure: float, shape: Shape, what: str, measured: str) -> None:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if high is not None and measure > high:
        raise unparsable(f"Model Validation failed: {what}{measured} cannot be greater than max={float(high)} defined for {shape.name}.")
    if low is not None and measure < low:
        raise unparsable(f"Model Validation failed: {what}{measured} cannot be less than min={float(low)} defined for {shape.name}.")


def _check_assignable(definition: Definition, expression: Mapping[str, Any], target: str) -> None:
    found = _expression_type(definition, expression)
    if found in (target, _ANY) or (target == "Float" and found == "Integer"):
        return
    # AWS puts no "Unable to parse" before this one.
    raise DefinitionError(f"Cannot assign property reference [{expression.get('Get', 'Std:Join')}] to argument of type [{target}].")


def _expression_type(definition: Definition, expression: Mapping[str, Any]) -> str:
    if "Std:Join" in expression:
        return "String"
    if "Std:JsonGet" in expression:
        return _ANY
    reference = parse_reference(expression["Get"])
    if isinstance(reference, ParameterReference):
        parameter = definition.parameters.get(reference.name)
        if parameter is None:
            raise unparsable(f"Unknown property reference [{expression['Get']}].")
        return parameter.type.value
    if isinstance(reference, ExecutionReference):
        return "String"
    if isinstance(reference, PropertyFileReference):
        raise unparsable(f"Property file [{expression['Get']}] can only be used in Std:JsonGet.")
    return _property_type(definition, reference)


def _property_type(definition: Definition, reference: StepReference) -> str:
    """Return the type of a step's property.

    Raises:
        DefinitionError: The step has no such property.
    """
    step = definition.steps[reference.step]
    unknown = unparsable(f"Unknown property reference [Steps.{reference.step}.{format_path(reference.path)}].")
    if step.type in (StepType.LAMBDA, StepType.CALLBACK):
        if len(reference.path) == 2 and reference.path[0] == "OutputParameters" and reference.path[1] in step.output_parameters:
            return step.output_parameters[str(reference.path[1])].value
        raise unknown
    if step.type is StepType.CONDITION:
        if reference.path == ("Outcome",):
            return "Boolean"
        raise unknown
    if step.type is StepType.FAIL:
        raise unknown
    shape = get_service_model("sagemaker").operation_model(OPERATIONS[step.type].describe).output_shape
    found = _shape_at(shape, reference.path)
    if found is None:
        raise unknown
    return str(_TYPE_NAMES.get(found.type_name, found.type_name))


def _shape_at(shape: Shape, path: Path) -> Shape | None:
    for item in path:
        kind = shape.type_name
        if kind == "structure" and item in shape.members:
            shape = shape.members[item]
        elif kind == "list":
            shape = shape.member
        elif kind == "map" and isinstance(item, str):
            shape = shape.value
        else:
            return None
    return shape


@lru_cache(maxsize=512)
def _compile(pattern: str) -> re.Pattern[str] | None:
    # The models' patterns are Java's; the few that Python cannot read (\p{...} classes) are not checked.
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None
