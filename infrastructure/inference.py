"""What the platform hands on to the inference stack, read from the one place where it is written: the deploying function's environment."""

import json
import re
from collections.abc import Mapping

from infrastructure.packaging import INFERENCE_TEMPLATE, PLATFORM_TEMPLATE
from infrastructure.templates import Template, template_body
from lambdas.deploy_inference_workflow.errors import DeploymentError
from lambdas.deploy_inference_workflow.stacks import Desired, StackState

DEPLOY_FUNCTION = "DeployFunction"
_WHOLE = re.compile(r"\$\{(\w+)\}")


def inference_parameters(platform_parameters: Mapping[str, str]) -> dict[str, str | None]:
    """Returns the parameters that the deploying function gives to `inference.yaml`.

    Args:
        platform_parameters: parameters of `platform.yaml`; those that are not in it have their defaults.

    Returns:
        By name. None where only CloudFormation knows the value: the names of what it made.
    """
    template = Template.read(PLATFORM_TEMPLATE)
    known = template.defaults | dict(platform_parameters)
    expression = template.resources[DEPLOY_FUNCTION].properties["Environment"]["Variables"]["STACK_PARAMETERS"]["Fn::Sub"]
    written: dict[str, str] = json.loads(expression[0] if isinstance(expression, list) else expression)
    values: dict[str, str | None] = {}
    for name, value in written.items():
        match = _WHOLE.fullmatch(value)
        values[name] = value if "${" not in value else known.get(match[1]) if match is not None else None
    return values


def desired_inference(
    platform_parameters: Mapping[str, str], state: StackState, deployed: Mapping[str, str]
) -> tuple[Desired, frozenset[str]]:
    """Returns what the sources would make of an inference stack, with the model version that it serves.

    Args:
        platform_parameters: of `platform.yaml`, the keys of its code included.
        state: the inference stack as it is.
        deployed: what the platform that is deployed gives to the inference stack now; of it what only CloudFormation knows is taken.

    Returns:
        What the stack would be, and which of its parameters keep their values.

    Raises:
        DeploymentError: the template needs a value that only the next platform has.
    """
    handed_on = inference_parameters(platform_parameters)
    made = {name: deployed[name] for name, value in handed_on.items() if value is None and name in deployed}
    known = made | {name: value for name, value in handed_on.items() if value is not None}
    template = Template.read(INFERENCE_TEMPLATE)
    previous = frozenset(template.document["Parameters"]) - known.keys()
    missing = sorted(previous - state.parameters.keys() - template.defaults.keys())
    if missing:
        raise DeploymentError(f"inference.yaml takes {', '.join(missing)} now, which the platform that is deployed does not give yet")
    return Desired({"TemplateBody": template_body(INFERENCE_TEMPLATE)}, known), previous & state.parameters.keys()
