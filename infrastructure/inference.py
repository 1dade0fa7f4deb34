"""What the platform hands on to the inference stack, read from the one place where it is written: the deploying function's environment."""

import json
import re
from collections.abc import Mapping

from infrastructure.packaging import PLATFORM_TEMPLATE
from infrastructure.templates import Template

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
