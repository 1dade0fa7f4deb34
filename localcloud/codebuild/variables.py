"""The environment variables of a build.

Source: https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html. A variable of the StartBuild request wins over one of the project, and that
over one of the buildspec.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from localcloud.codebuild.buildspec import Environment
from localcloud.codebuild.errors import PhaseFailure

_PARAMETERS_OF_A_REQUEST = 10


@dataclass(frozen=True)
class Variables:
    """Variables with their values.

    Attributes:
        values: By name.
        secrets: Values that the log must not show.
    """

    values: Mapping[str, str]
    secrets: frozenset[str]


def resolve(clients: Callable[[str], Any], environment: Environment, given: Iterable[Mapping[str, str]]) -> Variables:
    """Return the values of a build's variables.

    Args:
        clients: boto3 clients by service name, for parameters and secrets.
        environment: The buildspec's variables.
        given: Those of project and request, as CodeBuild's API writes them; later ones win.

    Raises:
        PhaseFailure: A parameter or secret cannot be read.
    """
    plain = dict(environment.variables)
    parameters = dict(environment.parameter_store)
    secrets = dict(environment.secrets_manager)
    by_type = {"PLAINTEXT": plain, "PARAMETER_STORE": parameters, "SECRETS_MANAGER": secrets}
    for variable in given:
        for kind in by_type.values():
            kind.pop(variable["name"], None)
        by_type[variable.get("type") or "PLAINTEXT"][variable["name"]] = variable["value"]
    hidden = _parameters(clients, parameters) | {name: _secret(clients, reference) for name, reference in secrets.items()}
    return Variables(plain | hidden, frozenset(value for value in hidden.values() if value))


def _parameters(clients: Callable[[str], Any], wanted: Mapping[str, str]) -> dict[str, str]:
    names = sorted(set(wanted.values()))
    found: dict[str, str] = {}
    for at in range(0, len(names), _PARAMETERS_OF_A_REQUEST):
        request = names[at : at + _PARAMETERS_OF_A_REQUEST]
        try:
            answer = clients("ssm").get_parameters(Names=request, WithDecryption=True)
        except ClientError as error:
            raise PhaseFailure("Decrypted Variables Error", _text(error)) from error
        for parameter in answer["Parameters"]:
            found |= {parameter["Name"]: parameter["Value"], parameter["ARN"]: parameter["Value"]}
        if answer["InvalidParameters"]:
            raise PhaseFailure("Decrypted Variables Error", f"parameter does not exist: {answer['InvalidParameters'][0]}")
    return {name: found[parameter] for name, parameter in wanted.items()}


def _secret(clients: Callable[[str], Any], reference: str) -> str:
    """Return the value of ``secret-id:json-key:version-stage:version-id``; all but the first may be left out."""
    parts = reference.split(":")
    # An ARN has six colons of its own.
    length = 7 if reference.startswith("arn:") else 1
    identifier, (key, stage, version) = ":".join(parts[:length]), [*parts[length:], "", "", ""][:3]
    request = {"SecretId": identifier} | ({"VersionStage": stage} if stage else {}) | ({"VersionId": version} if version else {})
    try:
        text: str = clients("secretsmanager").get_secret_value(**request)["SecretString"]
    except ClientError as error:
        raise PhaseFailure("Secrets Manager Error", _text(error)) from error
    if not key:
        return text
    try:
        content: Any = json.loads(text)
        value = content[key]
    except (ValueError, TypeError, LookupError) as error:
        raise PhaseFailure("Secrets Manager Error", f"the secret {identifier} has no key {key}") from error
    return value if isinstance(value, str) else json.dumps(value)


def _text(error: ClientError) -> str:
    details = error.response["Error"]
    return f"{details['Code']}: {details['Message']}"
