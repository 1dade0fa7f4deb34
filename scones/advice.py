"""What a person can do about reasons that AWS gives, wherever they stand: in an answer, a stack's event, a step's failure."""

from __future__ import annotations

import re

_QUOTA = re.compile(r"service limit '([^']+)' is (\S+)")
_ADVICE: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"Unrecognized resource types: \[AWS::CodeConnections|code(star-)?connections:CreateConnection|CodeConnections::Connection\)"
        ),
        "Without CodeConnections (this region or account does not have it, or you may not make a connection), upload sources instead: "
        "--set cicd.source=s3, or name a connection that is there: --set cicd.connection_arn=ARN",
    ),
    (
        re.compile(r"NoSuchKey|S3 Error Code: NoSuchKey|specified key does not exist", re.IGNORECASE),
        "A file that the stack refers to is not in the bucket any more. Upload it again: scones aws bootstrap",
    ),
    (
        re.compile(r"the role does not exist|role .* (is invalid or )?cannot be assumed", re.IGNORECASE),
        "A role is gone. Was the platform deleted by hand? scones aws bootstrap makes it again (with another name), scones deploy refresh gives production the "
        "new one. Was it only the role? scones aws diff shows it, scones aws bootstrap --revert-drift makes it again.",
    ),
    (
        re.compile(r"is not authorized to perform|AccessDenied|Access Denied", re.IGNORECASE),
        "A permission is missing. If the role is one of the platform's: scones aws diff shows whether it was changed, "
        "scones aws bootstrap --revert-drift puts it right.",
    ),
    (
        re.compile(r'Could not find endpoint \\*"'),
        "The endpoint was deleted by hand. Make it again with the configuration that it had, which scones deploy history names: `aws sagemaker create-endpoint "
        "--endpoint-name NAME --endpoint-config-name CONFIGURATION`; then `aws cloudformation continue-update-rollback --stack-name STACK`, and deploy again.",
    ),
    (
        re.compile(r"UPDATE_ROLLBACK_FAILED"),
        "Was something deleted by hand? scones aws diff shows it. `aws cloudformation continue-update-rollback --stack-name STACK --resources-to-skip ID` goes "
        "on without it. A part of the platform then comes back with scones aws destroy and scones aws bootstrap, which keep images and models.",
    ),
    (
        re.compile(r"already exists", re.IGNORECASE),
        "Something of that name was made by somebody else, or outlived an earlier stack: look before you delete anything, or choose another project.name. "
        "(Bucket and registry of a platform stack that was deleted by hand are taken over by scones aws bootstrap.)",
    ),
    (
        re.compile(r"HandlerErrorCode: NotFound|does not exist|Could not find", re.IGNORECASE),
        "Something that the stack made was deleted by hand. See what: scones aws diff",
    ),
)


def advice(reason: str) -> str | None:
    """Return what to do about a reason that AWS gave, or None when nothing better is known than the reason itself."""
    quota = _QUOTA.search(reason)
    if quota is not None:
        return (
            f"The account's quota '{quota[1]}' is {quota[2]}. Ask for more: AWS console, Service Quotas, Amazon SageMaker, '{quota[1]}'; "
            "or choose another instance type with --set (scones config show lists them)."
        )
    if "ResourceLimitExceeded" in reason or "LimitExceeded" in reason:
        return "A quota of the account is used up. Ask for more in the AWS console under Service Quotas, or remove what is not needed."
    return next((text for pattern, text in _ADVICE if pattern.search(reason)), None)
