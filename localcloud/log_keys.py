"""Keys of log groups: AssociateKmsKey and DisassociateKmsKey, which moto lacks, and that a key must let CloudWatch Logs use it.

Held by tests/integration/test_infrastructure_hardened.py.
"""

from __future__ import annotations

from moto.core.exceptions import JsonRESTError
from moto.kms.models import KmsBackend, kms_backends
from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException, ValidationException
from moto.logs.responses import LogsResponse

from localcloud.iam.keys import logs_may_use

_create_log_group = LogsResponse.create_log_group


def add_log_keys() -> None:
    """Let CloudWatch Logs answer the operations; doing it again does nothing."""
    operations = {"create_log_group": _create, "associate_kms_key": _associate, "disassociate_kms_key": _disassociate}
    for name, operation in operations.items():
        setattr(LogsResponse, name, operation)


def _create(response: LogsResponse) -> str:
    if response._get_param("kmsKeyId"):
        _check_key(response)
    return _create_log_group(response)


def _associate(response: LogsResponse) -> str:
    group = response._get_param("logGroupName")
    if response._get_param("resourceIdentifier") is None and group not in response.logs_backend.groups:
        raise ResourceNotFoundException
    return _set_key(response, _check_key(response))


def _check_key(response: LogsResponse) -> str:
    key, account, region = str(response._get_param("kmsKeyId") or ""), response.current_account, response.region
    keys: KmsBackend = kms_backends[account][region]
    if keys.get_key_id(key) not in keys.keys:
        raise InvalidParameterException("The specified KMS Key Id could not be found.")
    group = f"arn:aws:logs:{region}:{account}:log-group:{response._get_param('logGroupName')}"
    if not logs_may_use(account, region, group, key):
        text = f"The specified KMS key does not exist or is not allowed to be used with LogGroup '{group}'"
        raise JsonRESTError("AccessDeniedException", text)
    return key


def _disassociate(response: LogsResponse) -> str:
    return _set_key(response, None)


def _set_key(response: LogsResponse, key: str | None) -> str:
    if response._get_param("resourceIdentifier"):
        raise ValidationException("resourceIdentifier is not supported by localcloud; name the log group with logGroupName")
    group = response.logs_backend.groups.get(response._get_param("logGroupName"))
    if group is None:
        raise ResourceNotFoundException
    group.kms_key_id = key
    return ""
