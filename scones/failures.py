"""What people can do about errors that come from below: AWS's answers, no credentials, no connection."""

from __future__ import annotations

import sys

from scones.errors import ExitCode, SconesError


def explain(error: Exception) -> SconesError | None:
    """Return the error as one line with what to do next, or None when it is a fault of this program and its traceback should be seen."""
    for candidate in (_ours, _botocore):
        explained = candidate(error)
        if explained is not None:
            return explained
    return None


def _ours(error: Exception) -> SconesError | None:
    # Only what was imported can have been raised; importing these here would cost every failing command a second.
    settings_error = _loaded("pipelines.errors", "SettingsError")
    if settings_error is not None and isinstance(error, settings_error):
        return SconesError(str(error), "All settings and where they come from: scones config show", ExitCode.USAGE)
    pipelines_error = _loaded("pipelines.errors", "PipelinesError")
    if pipelines_error is not None and isinstance(error, pipelines_error):
        return SconesError(str(error))
    staging_error = _loaded("staging.errors", "StagingError")
    if staging_error is not None and isinstance(error, staging_error):
        message, hint = str(error).partition("\n")[::2]
        return SconesError(message, hint or None, ExitCode.USAGE)
    for module, name in (("lambdas.deploy_inference_workflow.errors", "DeploymentError"), ("infrastructure.packaging", "PackagingError")):
        kind = _loaded(module, name)
        if kind is not None and isinstance(error, kind):
            return SconesError(str(error))
    return None


def _loaded(module: str, name: str) -> type[Exception] | None:
    return getattr(sys.modules.get(module), name, None)


def _botocore(error: Exception) -> SconesError | None:
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return SconesError(
            "There are no AWS credentials",
            "Sign in (aws sso login, AWS_PROFILE, ...) or leave out --aws to use localcloud.",
            ExitCode.USAGE,
        )
    if isinstance(error, exceptions.NoRegionError):
        return SconesError("There is no AWS region", "Set AWS_REGION or --set aws.region=...", ExitCode.USAGE)
    if isinstance(error, exceptions.EndpointConnectionError | exceptions.ConnectTimeoutError | exceptions.ConnectionClosedError):
        return SconesError(f"AWS does not answer: {error}", "Check the network; for localcloud see: scones up", ExitCode.UNREACHABLE)
    if isinstance(error, exceptions.ClientError):
        details = error.response.get("Error", {})
        code, message = details.get("Code", "Unknown"), details.get("Message", str(error))
        if code in ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"):
            return SconesError(f"AWS refuses the credentials: {message}", "Sign in again (aws sso login).", ExitCode.USAGE)
        return SconesError(f"{error.operation_name} was refused: {code}: {message}")
    if isinstance(error, exceptions.BotoCoreError):
        return SconesError(str(error))
    return None
