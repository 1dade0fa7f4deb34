"""What people can do about errors that come from below: AWS's answers, no credentials, no connection."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Mapping

from scones.advice import advice
from scones.errors import ExitCode, SconesError

#: What a disk or a machine refuses, whatever the program does.
_REFUSED_BY_THE_MACHINE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)


def explain(error: Exception) -> SconesError | None:
    """Return the error as one line with what to do next, or None when it is a fault of this program and its traceback should be seen."""
    for candidate in (_ours, _machine, _botocore):
        explained = candidate(error)
        if explained is not None:
            return explained
    return None


def _ours(error: Exception) -> SconesError | None:
    # Only what was imported can have been raised; importing these here would cost every failing command a second.
    settings_error = _loaded("pipelines.errors", "SettingsError")
    if settings_error is not None and isinstance(error, settings_error):
        return SconesError(str(error), "All settings and where they come from: scones config show", ExitCode.USAGE)
    input_error = _loaded("pipelines.errors", "InputDataError")
    if input_error is not None and isinstance(error, input_error):
        return SconesError(str(error), exit_code=ExitCode.USAGE)
    pipelines_error = _loaded("pipelines.errors", "PipelinesError")
    if pipelines_error is not None and isinstance(error, pipelines_error):
        return SconesError(str(error), advice(str(error)) if "stack" not in str(error) else None)
    staging_error = _loaded("staging.errors", "StagingError")
    if staging_error is not None and isinstance(error, staging_error):
        message, hint = str(error).partition("\n")[::2]
        return SconesError(message, hint or None, ExitCode.USAGE)
    for module, name in (("lambdas.deploy_inference_workflow.errors", "DeploymentError"), ("infrastructure.packaging", "PackagingError")):
        kind = _loaded(module, name)
        if kind is not None and isinstance(error, kind):
            return SconesError(str(error), advice(str(error)))
    return None


def _machine(error: Exception) -> SconesError | None:
    if not isinstance(error, OSError) or error.errno not in _REFUSED_BY_THE_MACHINE:
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SconesError(
            f"The disk is full{f': {error.filename} cannot be written' if error.filename else ''}",
            "Free some space, or keep the state on another disk with --state-dir; then try again.",
        )
    return SconesError(
        f"{error.filename or 'A file'}: {error.strerror}",
        "Local state needs a folder that can be written; name another with --state-dir.",
        ExitCode.USAGE,
    )


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
    if isinstance(error, exceptions.SSOError | exceptions.TokenRetrievalError | exceptions.LoginError):
        return SconesError(f"The sign-in to AWS has expired: {error}", _SIGN_IN, ExitCode.USAGE)
    if isinstance(error, exceptions.ProfileNotFound):
        return SconesError(f"{error}", "The profiles there are: aws configure list-profiles", ExitCode.USAGE)
    if isinstance(error, exceptions.CredentialRetrievalError):
        return SconesError(f"The AWS credentials cannot be got: {error}", _SIGN_IN, ExitCode.USAGE)
    if isinstance(error, exceptions.NoRegionError):
        return SconesError("There is no AWS region", "Set AWS_REGION or --set aws.region=...", ExitCode.USAGE)
    if isinstance(error, exceptions.InvalidRegionError | exceptions.UnknownRegionError | exceptions.UnknownEndpointError):
        return SconesError(f"There is no such AWS region or service: {error}", _REGION, ExitCode.USAGE)
    if isinstance(error, exceptions.EndpointConnectionError) and ".amazonaws." in str(error):
        return SconesError(
            f"AWS does not answer: {error}",
            f"Check the network, and whether that service is in the region. {_REGION}",
            ExitCode.UNREACHABLE,
        )
    if isinstance(error, exceptions.ConnectionError | exceptions.ConnectTimeoutError | exceptions.ReadTimeoutError):
        local = re.search(r"http://127\.0\.0\.1:\d+", str(error))
        if local is not None:
            return SconesError(
                f"localcloud at {local[0]} has ended or does not answer",
                "Start it again and go on: scones up --detach, then scones status",
                ExitCode.UNREACHABLE,
            )
        return SconesError(f"AWS does not answer: {error}", "Check the network; for localcloud see: scones up", ExitCode.UNREACHABLE)
    if isinstance(error, exceptions.ClientError):
        return _refusal(error.operation_name, error.response.get("Error", {}), str(error))
    if isinstance(error, exceptions.BotoCoreError):
        return SconesError(str(error))
    return None


_SIGN_IN = "Sign in again (aws sso login, or new keys)."
_REGION = "The region is that of AWS_REGION, the profile or aws.region: scones config show"
_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_CLOCK = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
_PERMISSION = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "403"})
_NOT_SIGNED_UP = frozenset({"OptInRequired", "SubscriptionRequiredException", "NotSignedUp"})
_QUOTA = frozenset({"LimitExceeded", "LimitExceededException", "ResourceLimitExceeded", "ServiceQuotaExceededException", "TooManyBuckets"})
_BUSY = frozenset({"RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException"})


def _refusal(operation: str, details: Mapping[str, str], text: str) -> SconesError:
    """An error answer of AWS, by its code."""
    code, message = details.get("Code", "Unknown"), details.get("Message") or text
    refused = f"{operation} was refused: {code}: {message}"
    if code in _CLOCK or (code in _CREDENTIALS and "Signature expired" in message):
        return SconesError(refused, "This machine's clock and AWS's differ. Set it right (NTP).", ExitCode.USAGE)
    if code in _CREDENTIALS:
        return SconesError(
            f"AWS refuses the credentials: {message}",
            f"{_SIGN_IN} In a region that must be switched on first, so are they refused too.",
            ExitCode.USAGE,
        )
    if code in _PERMISSION:
        return SconesError(
            refused, "Who is signed in may not do that (aws sts get-caller-identity says who it is). Ask who runs the account."
        )
    if code in _NOT_SIGNED_UP:
        return SconesError(refused, "The account is not signed up for this service in this region. Open it in the AWS console once.")
    if code in _QUOTA:
        return SconesError(refused, advice(f"{code}: {message}") or "A quota of the account is used up: AWS console, Service Quotas.")
    if code in _BUSY:
        return SconesError(refused, "AWS is asked too often at the moment. Try again in a minute.")
    return SconesError(refused, advice(message))
