"""The configuration of a function: AWS's defaults, what is checked, what is refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from localcloud.awslambda.code import Code
from localcloud.awslambda.functions import LATEST, new_revision, now
from localcloud.errors import ServiceError, not_supported
from localcloud.iam.needs import Need
from localcloud.iam.principals import RoleSession
from localcloud.iam.trust import can_assume

if TYPE_CHECKING:
    from localcloud.cloud import Cloud
    from localcloud.database import Document

_INVALID = "InvalidParameterValueException"
#: Members that are kept and shown as given. MemorySize, EphemeralStorage and Architectures say nothing about this machine; TracingConfig sends no traces.
_RECORDED = (
    "Description", "Handler", "Timeout", "MemorySize", "Role", "Runtime", "DeadLetterConfig", "KMSKeyArn", "TracingConfig", "EphemeralStorage",
)  # fmt: skip
#: Members that change what a function is on AWS and are not played here.
_REFUSED = (
    "FileSystemConfigs", "ImageConfig", "CodeSigningConfigArn", "CapacityProviderConfig", "DurableConfig", "TenancyConfig", "AcceleratorConfig",
    "RuntimeConfig", "PublishTo",
)  # fmt: skip
#: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
_RESERVED_VARIABLES = {
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
}  # fmt: skip
#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_TIMEOUT_SECONDS = 900
MAX_MEMORY_MB = 10_240
_MAX_ENVIRONMENT_BYTES = 4096
_MAX_LAYERS = 5
#: What Lambda does for a function with active tracing.
_TRACING = ("PutTraceSegments", "PutTelemetryRecords")
_PYTHON = re.compile(r"python3\.\d+")


class Configurator:
    """Turns requests into configurations."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._layers = cloud.db.table("lambda.layers")

    def create(self, params: dict[str, Any], code: Code, arn: str) -> dict[str, Any]:
        """Return the FunctionConfiguration of a new function.

        Raises:
            ServiceError: Something is missing, wrong or not supported.
        """
        if params.get("PackageType", "Zip") != "Zip":
            raise not_supported("PackageType Image", _INVALID)
        for name in ("Runtime", "Handler"):
            if not params.get(name):
                message = "Runtime and Handler are mandatory parameters for functions created with deployment packages."
                raise ServiceError(_INVALID, message)
        name = arn.rpartition(":")[2]
        configuration = {
            "FunctionName": name,
            "FunctionArn": arn,
            "Description": "",
            "Timeout": 3,
            "MemorySize": 128,
            "Version": LATEST,
            "PackageType": "Zip",
            "Architectures": ["x86_64"],
            "EphemeralStorage": {"Size": 512},
            "TracingConfig": {"Mode": "PassThrough"},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"},
            "State": "Active",
            "LastUpdateStatus": "Successful",
        }
        return self.with_code(self.update(configuration, params), code, params.get("Architectures"))

    def update(self, configuration: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        """Return a configuration with a request's changes.

        Raises:
            ServiceError: Something is wrong or not supported.
        """
        self._refuse(params)
        for name, most in (("Timeout", MAX_TIMEOUT_SECONDS), ("MemorySize", MAX_MEMORY_MB)):
            if params.get(name, 0) > most:
                where = name[:1].lower() + name[1:]
                reason = (
                    f"Value '{params[name]}' at '{where}' failed to satisfy constraint: Member must have value less than or equal to {most}"
                )
                raise ServiceError("ValidationException", f"1 validation error detected: {reason}")
        changed = configuration | {name: params[name] for name in _RECORDED if name in params}
        if "Runtime" in params and not _PYTHON.fullmatch(params["Runtime"]):
            raise not_supported(f"The runtime {params['Runtime']} (functions run on this machine's Python: use python3.x)", _INVALID)
        if "Role" in params and not can_assume(self._cloud, params["Role"], "lambda.amazonaws.com", configuration["FunctionArn"]):
            raise ServiceError(_INVALID, "The role defined for the function cannot be assumed by Lambda.")
        if "Environment" in params:
            changed["Environment"] = {"Variables": _checked_variables(params["Environment"].get("Variables", {}))}
        if "Layers" in params:
            changed["Layers"] = [self._layer(arn) for arn in params["Layers"]]
            if len(changed["Layers"]) > _MAX_LAYERS:
                raise ServiceError(_INVALID, f"Cannot reference more than {_MAX_LAYERS} layers.")
        if "LoggingConfig" in params:
            changed["LoggingConfig"] = _logging_config(configuration, params["LoggingConfig"])
        if "DeadLetterConfig" in params:
            self._check_dead_letter(params["DeadLetterConfig"].get("TargetArn", ""), changed)
        if changed.get("TracingConfig", {}).get("Mode") == "Active" and {"TracingConfig", "Role"} & set(params):
            self._check_permissions(changed, "XRAY", *(Need(f"xray:{call}", "*") for call in _TRACING))
        return changed | {"RevisionId": new_revision(), "LastModified": now()}

    def with_code(self, configuration: dict[str, Any], code: Code, architectures: list[str] | None) -> dict[str, Any]:
        """Return a configuration with other code."""
        changed = configuration | {
            "CodeSha256": code.sha256_base64,
            "CodeSize": code.size,
            "RevisionId": new_revision(),
            "LastModified": now(),
        }
        return changed | ({"Architectures": architectures} if architectures else {})

    def _refuse(self, params: dict[str, Any]) -> None:
        for name in _REFUSED:
            if params.get(name):
                raise not_supported(f"{name} of a function", _INVALID)
        if params.get("VpcConfig", {}).get("SubnetIds"):
            raise not_supported("VpcConfig of a function", _INVALID)
        if params.get("SnapStart", {}).get("ApplyOn", "None") != "None":
            raise not_supported("SnapStart", _INVALID)

    def _layer(self, arn: str) -> dict[str, Any]:
        layer: Document | None = self._layers.get(arn)
        if layer is None:
            if f":{self._cloud.settings.account_id}:layer:" in arn:
                raise ServiceError(_INVALID, f"Layer version {arn} does not exist.")
            raise not_supported(
                f"A layer of another account ({arn}): publish its content here with PublishLayerVersion, or put it into the zip. It",
                _INVALID,
            )
        return {"Arn": arn, "CodeSize": layer["CodeSize"], "_Code": layer["code"]}

    def _check_dead_letter(self, arn: str, configuration: dict[str, Any]) -> None:
        if arn and arn.split(":")[2:3] not in (["sqs"], ["sns"]):
            raise ServiceError(_INVALID, f"The provided target Arn is invalid: {arn}. A dead-letter queue is an SQS queue or an SNS topic.")
        if arn:
            queue = ":sqs:" in arn
            self._check_permissions(configuration, "SQS" if queue else "SNS", Need("sqs:SendMessage" if queue else "sns:Publish", arn))

    def _check_permissions(self, configuration: dict[str, Any], service: str, *needs: Need) -> None:
        """Refuse a function whose role lacks what its configuration makes Lambda do with it."""
        session = RoleSession(configuration["Role"], configuration["FunctionName"])
        # Every one of them, so that what a role needs is known at once.
        refused = [need for need in needs if not self._cloud.iam.decide(session, need).allowed]
        if refused:
            call = refused[0].action.partition(":")[2]
            raise ServiceError(_INVALID, f"The provided execution role does not have permissions to call {call} on {service}")


def public(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as AWS shows it."""
    shown = dict(configuration)
    if "Layers" in shown:
        shown["Layers"] = [{name: value for name, value in layer.items() if not name.startswith("_")} for layer in shown["Layers"]]
    if not shown.get("DeadLetterConfig", {}).get("TargetArn"):
        shown.pop("DeadLetterConfig", None)
    return shown


def _checked_variables(variables: dict[str, str]) -> dict[str, str]:
    prefix = "Lambda was unable to configure your environment variables because the environment variables you have provided"
    reserved = sorted(set(variables) & _RESERVED_VARIABLES)
    if reserved:
        keys = ", ".join(reserved)
        message = (
            f"{prefix} contains reserved keys that are currently not supported for modification. Reserved keys used in this request: {keys}"
        )
        raise ServiceError(_INVALID, message)
    text = json.dumps(variables, separators=(",", ":"))
    if len(text.encode()) > _MAX_ENVIRONMENT_BYTES:
        raise ServiceError(_INVALID, f"{prefix} exceeded the 4KB limit. String measured: {text}")
    return variables


def _logging_config(configuration: dict[str, Any], requested: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = configuration["LoggingConfig"] | requested
    if merged["LogFormat"] == "Text":
        if "ApplicationLogLevel" in requested or "SystemLogLevel" in requested:
            message = "To use ApplicationLogLevel or SystemLogLevel in LoggingConfig, the LogFormat must be JSON."
            raise ServiceError(_INVALID, message)
        return {name: merged[name] for name in ("LogFormat", "LogGroup")}
    return {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"} | merged
