"""KMS keys behind what other services keep: whose they are, and what their use needs.

What a role does to an encrypted object, queue, topic or endpoint, the service does to the key in the role's name; what one of AWS's services does, in that
service's. Sources: https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html and the pages named below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moto.kms.models import Key, kms_backends
from moto.s3.models import FakeBucket, s3_backends

from localcloud.iam.needs import Need, ObjectData
from localcloud.iam.trust import ServiceCall, allows
from localcloud.messaging import key_of_mailbox

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_OF_AWS = "alias/aws/"
#: Of S3's algorithms, those that use a key of KMS (aws:kms and aws:kms:dsse).
_BY_KMS = "aws:kms"
#: What each use of an object's bytes needs (https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html: parts are read before they are put together).
_OF_OBJECTS = {"read": "kms:Decrypt", "write": "kms:GenerateDataKey", "part": "kms:Decrypt"}
#: Who sends makes a data key, and reads one that is there (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html,
#: https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html).
_SENDING = ("kms:GenerateDataKey", "kms:Decrypt")
_OF_MAILBOXES = {"sqs:SendMessage": _SENDING, "sns:Publish": _SENDING, "sqs:ReceiveMessage": ("kms:Decrypt",)}
#: The part of a data key's encryption context that says what it is for.
_CONTEXTS = {"s3": "aws:s3:arn", "sqs": "aws:sqs:arn", "sns": "aws:sns:topicArn", "logs": "aws:logs:arn"}
#: What the logs' service does with a log group's key (https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html); what it asks of the
#: key itself, DescribeKey, has no encryption context and is left out, as the documented policy has it under one.
_OF_LOGS = ("kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey")
#: Only with the grant can SageMaker make disks (https://docs.aws.amazon.com/sagemaker/latest/dg/api-permissions-reference.html).
_OF_ENDPOINTS = frozenset(("sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint"))


def key_arn(account: str, region: str, identifier: str) -> str:
    """Return the ARN of the key that an id, ARN or alias means; what means none is taken for a key's id, or stays as it is."""
    backend = kms_backends[account][region]
    name = backend.get_alias_name(identifier)
    if name.startswith(_OF_AWS):
        return f"arn:aws:kms:{region}:{account}:{name}"
    if name.startswith("alias/"):
        name = backend.get_key_id_from_alias(name) or name
    key = backend.keys.get(backend.get_key_id(name))
    if key is not None:
        return str(key.arn)
    return identifier if identifier.startswith("arn:") else f"arn:aws:kms:{region}:{account}:key/{name}"


def customer_key(account: str, region: str, identifier: str | None) -> str | None:
    """Return the ARN of the key that an id, ARN or alias means, or None when it is none of the account's own: AWS's keys are for everybody in the account."""
    if not identifier:
        return None
    arn = key_arn(account, region, identifier)
    if f":{_OF_AWS}" in arn:
        return None
    key = _key(account, region, arn)
    return None if key is not None and any(alias.startswith(_OF_AWS) for alias in list(key.aliases)) else arn


def _key(account: str, region: str, arn: str) -> Key | None:
    return kms_backends[account][region].keys.get(arn.rpartition("key/")[2])


def applied_encryption(bucket: FakeBucket, algorithm: str | None, key: str | None) -> tuple[str | None, str | None]:
    """Return the algorithm and the key with which S3 encrypts what is written: those of the request, or the bucket's when it names none."""
    if algorithm:
        return algorithm, key
    default = ((bucket.encryption or {}).get("Rule") or {}).get("ApplyServerSideEncryptionByDefault") or {}
    return default.get("SSEAlgorithm"), default.get("KMSMasterKeyID")


def service_may_use(account: str, region: str, call: ServiceCall, identifier: str | None, *, told: bool = True) -> bool:
    """Tell whether one of AWS's services may send to a queue or topic as far as its key goes: the key's policy must let it; there may be no key.

    Args:
        account: The region's account.
        region: The region.
        call: What it does to the queue or topic.
        identifier: Its key, however it is named; None for none.
        told: Whether KMS is told for which resource the service does it.
    """
    return _service_may(account, region, call, identifier, _OF_MAILBOXES[call.action], told=told)


def logs_may_use(account: str, region: str, group_arn: str, identifier: str) -> bool:
    """Tell whether a key's policy lets CloudWatch Logs encrypt a log group."""
    call = ServiceCall(f"logs.{region}.amazonaws.com", "logs:PutLogEvents", group_arn, group_arn, account)
    return _service_may(account, region, call, identifier, _OF_LOGS)


def _service_may(
    account: str, region: str, call: ServiceCall, identifier: str | None, actions: tuple[str, ...], *, told: bool = True
) -> bool:
    if not identifier:
        return True
    arn = customer_key(account, region, identifier)
    if arn is None:
        # The policies of AWS's keys let roles use them through the service, and no other service.
        return False
    key = _key(account, region, arn)
    source = (call.source_arn, call.source_account) if told else (None, None)
    context = _context(call.resource)
    return all(
        allows(None if key is None else str(key.policy), ServiceCall(call.principal, action, arn, *source), context) for action in actions
    )


def _context(resource: str) -> dict[str, str]:
    name = _CONTEXTS[resource.split(":")[2]]
    return {f"kms:encryptioncontext:{name.lower()}": resource, "kms:encryptioncontextkeys": name}


class KeyNeeds:
    """What the use of keys needs, besides the actions on what they encrypt."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._place = (cloud.settings.account_id, cloud.settings.region)

    def behind(self, need: Need) -> Iterator[Need]:
        """Yield what an allowed action needs of the keys of KMS, too; nothing where none of the account's own is used."""
        if need.data is not None:
            yield from self._of_object(need.resource, need.data)
        elif need.action in _OF_MAILBOXES:
            arn = customer_key(*self._place, key_of_mailbox(self._cloud, need.resource))
            if arn is not None:
                yield from (self._need(action, arn, _context(need.resource), need.resource) for action in _OF_MAILBOXES[need.action])
        elif need.action in _OF_ENDPOINTS and ":endpoint-config/" in need.resource:
            arn = customer_key(*self._place, self._cloud.services["sagemaker"].key_of(need.resource))
            if arn is not None:
                yield self._need("kms:CreateGrant", arn, {"kms:grantisforawsresource": "true"}, need.resource)

    def _need(self, action: str, key: str, keys: dict[str, str], resource: str) -> Need:
        account, region = self._place
        found = keys | {
            "kms:viaservice": f"{resource.split(':')[2]}.{region}.amazonaws.com",
            "kms:calleraccount": account,
            "aws:viaawsservice": "true",
        }
        return Need(action, key, {name: (value,) for name, value in found.items()})

    def _of_object(self, resource: str, data: ObjectData) -> Iterator[Need]:
        name, _, key = resource.split(":", 5)[5].partition("/")
        bucket = s3_backends[self._place[0]]["aws"].buckets.get(name)
        if bucket is None:
            return
        algorithm, identifier, by_bucket = _encryption(bucket, key, data)
        if not (algorithm or "").startswith(_BY_KMS):
            return
        arn = customer_key(*self._place, identifier)
        if arn is not None:
            # With a bucket key, S3 asks KMS for the bucket and not for each object (https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html).
            context = _context(resource.partition("/")[0] if str(by_bucket).lower() == "true" else resource)
            yield self._need(_OF_OBJECTS[data.does], arn, context, resource)


def _encryption(bucket: FakeBucket, key: str, data: ObjectData) -> tuple[str | None, str | None, Any]:
    """The algorithm, the key and whether it is a bucket key: of what is there to be read, or of what will be there."""
    if data.does == "read":
        versions: list[Any] = bucket.keys.getlist(key) or []
        kept = next((one for one in reversed(versions) if data.version in (None, str(one.version_id))), None)
        # A marker of a deletion has none.
        return getattr(kept, "encryption", None), getattr(kept, "kms_key_id", None), getattr(kept, "bucket_key_enabled", None)
    by_bucket: Any = ((bucket.encryption or {}).get("Rule") or {}).get("BucketKeyEnabled") if data.bucket_key is None else data.bucket_key
    if data.does == "part":
        upload = bucket.multiparts.get(str(data.upload))
        return getattr(upload, "sse_encryption", None), getattr(upload, "kms_key_id", None), by_bucket
    return *applied_encryption(bucket, data.encryption, data.key), by_bucket
