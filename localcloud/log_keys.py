"""AssociateKmsKey and DisassociateKmsKey of CloudWatch Logs, which moto lacks: a log group's key is recorded, and shown by DescribeLogGroups.

Held by tests/integration/test_infrastructure_hardened.py.
"""

from __future__ import annotations

from moto.kms.models import KmsBackend, kms_backends
from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException, ValidationException
from moto.logs.responses import LogsResponse


def add_log_keys() -> None:
    """Let CloudWatch Logs answer the two operations; doing it again does nothing."""
    for name, operation in (("associate_kms_key", _associate), ("disassociate_kms_key", _disassociate)):
        setattr(LogsResponse, name, operation)


def _associate(response: LogsResponse) -> str:
    key = str(response._get_param("kmsKeyId") or "")
    keys: KmsBackend = kms_backends[response.current_account][response.region]
    if keys.get_key_id(key) not in keys.keys:
        raise InvalidParameterException("The specified KMS Key Id could not be found.")
    return _set_key(response, key)


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
