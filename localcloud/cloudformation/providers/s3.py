"""AWS::S3."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from localcloud.cloudformation.provider import Context, NameRule, Properties, Provider, TagStyle
from localcloud.cloudformation.providers.policies import policy_text
from localcloud.cloudformation.schema import BOOLEAN, INTEGER, JSON, STRING, STRINGS, TAG_LIST, ListOf, Object, one_of

Json = Any

_STATUS = one_of("Enabled", "Suspended")
_STORAGE_CLASS = one_of("DEEP_ARCHIVE", "GLACIER", "Glacier", "GLACIER_IR", "INTELLIGENT_TIERING", "ONEZONE_IA", "STANDARD_IA")
_TAG_FILTERS = ListOf(Object({"Key": STRING, "Value": STRING}, required=("Key", "Value")))
_EVENT_FILTER = Object(
    {"S3Key": Object({"Rules": ListOf(Object({"Name": STRING, "Value": STRING}, ("Name", "Value")))}, ("Rules",))}, ("S3Key",)
)


def _notifications(target: str) -> ListOf:
    return ListOf(Object({"Event": STRING, "Filter": _EVENT_FILTER, target: STRING}, required=("Event", target)))


_LIFECYCLE_RULE = Object(
    {
        "AbortIncompleteMultipartUpload": Object({"DaysAfterInitiation": INTEGER}, required=("DaysAfterInitiation",)),
        "ExpirationDate": STRING,
        "ExpirationInDays": INTEGER,
        "ExpiredObjectDeleteMarker": BOOLEAN,
        "Id": STRING,
        "NoncurrentVersionExpiration": Object(
            {"NewerNoncurrentVersions": INTEGER, "NoncurrentDays": INTEGER}, required=("NoncurrentDays",)
        ),
        "NoncurrentVersionTransitions": ListOf(
            Object(
                {"NewerNoncurrentVersions": INTEGER, "StorageClass": _STORAGE_CLASS, "TransitionInDays": INTEGER},
                required=("StorageClass", "TransitionInDays"),
            )
        ),
        "ObjectSizeGreaterThan": STRING,
        "ObjectSizeLessThan": STRING,
        "Prefix": STRING,
        "Status": one_of("Enabled", "Disabled"),
        "TagFilters": _TAG_FILTERS,
        "Transitions": ListOf(
            Object({"StorageClass": _STORAGE_CLASS, "TransitionDate": STRING, "TransitionInDays": INTEGER}, required=("StorageClass",))
        ),
    },
    required=("Status",),
)


class Bucket(Provider):
    """AWS::S3::Bucket."""

    type: ClassVar[str] = "AWS::S3::Bucket"
    schema: ClassVar[Object] = Object(
        {
            "BucketEncryption": Object(
                {
                    "ServerSideEncryptionConfiguration": ListOf(
                        Object(
                            {
                                "BucketKeyEnabled": BOOLEAN,
                                "ServerSideEncryptionByDefault": Object(
                                    {"KMSMasterKeyID": STRING, "SSEAlgorithm": one_of("aws:kms", "AES256", "aws:kms:dsse")},
                                    required=("SSEAlgorithm",),
                                ),
                            }
                        )
                    )
                },
                required=("ServerSideEncryptionConfiguration",),
            ),
            "BucketName": STRING,
            "CorsConfiguration": Object(
                {
                    "CorsRules": ListOf(
                        Object(
                            {
                                "AllowedHeaders": STRINGS,
                                "AllowedMethods": STRINGS,
                                "AllowedOrigins": STRINGS,
                                "ExposedHeaders": STRINGS,
                                "Id": STRING,
                                "MaxAge": INTEGER,
                            },
                            required=("AllowedMethods", "AllowedOrigins"),
                        )
                    )
                },
                required=("CorsRules",),
            ),
            "LifecycleConfiguration": Object({"Rules": ListOf(_LIFECYCLE_RULE)}, required=("Rules",)),
            "NotificationConfiguration": Object(
                {
                    "EventBridgeConfiguration": Object({"EventBridgeEnabled": BOOLEAN}, required=("EventBridgeEnabled",)),
                    "LambdaConfigurations": _notifications("Function"),
                    "QueueConfigurations": _notifications("Queue"),
                    "TopicConfigurations": _notifications("Topic"),
                }
            ),
            "ObjectLockEnabled": BOOLEAN,
            "OwnershipControls": Object(
                {"Rules": ListOf(Object({"ObjectOwnership": one_of("ObjectWriter", "BucketOwnerPreferred", "BucketOwnerEnforced")}))},
                required=("Rules",),
            ),
            "PublicAccessBlockConfiguration": Object(
                {"BlockPublicAcls": BOOLEAN, "BlockPublicPolicy": BOOLEAN, "IgnorePublicAcls": BOOLEAN, "RestrictPublicBuckets": BOOLEAN}
            ),
            "Tags": TAG_LIST,
            "VersioningConfiguration": Object({"Status": _STATUS}, required=("Status",)),
        }
    )
    # On AWS object lock can be switched on for an existing bucket; here the bucket is made anew.
    replaced_by: ClassVar[frozenset[str]] = frozenset(("BucketName",))
    attributes: ClassVar[frozenset[str]] = frozenset(("Arn", "DomainName", "DualStackDomainName", "RegionalDomainName", "WebsiteURL"))
    name: ClassVar[NameRule] = NameRule("BucketName", 63, lower=True)
    imported_by: ClassVar[str | None] = "BucketName"
    tags: ClassVar[TagStyle | None] = TagStyle.LIST

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether there is a bucket of this name."""
        try:
            context.clients("s3").head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Create the bucket."""
        request: dict[str, Json] = {"Bucket": name}
        if context.place.region != "us-east-1":
            request["CreateBucketConfiguration"] = {"LocationConstraint": context.place.region}
        if properties.get("ObjectLockEnabled"):
            request["ObjectLockEnabledForBucket"] = True
        context.clients("s3").create_bucket(**request)
        return name

    def settle(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Apply the configurations."""
        self.update(context, physical_id, {}, properties)

    def replaces(self, old: Properties, new: Properties) -> bool:
        """Object lock can only be chosen when a bucket is made."""
        return bool(old.get("ObjectLockEnabled")) != bool(new.get("ObjectLockEnabled"))

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Apply or remove what differs."""
        client = context.clients("s3")
        for name, (put, remove) in _CONFIGURATIONS.items():
            if old.get(name) == new.get(name):
                continue
            if name in new:
                put(client, physical_id, new[name])
            else:
                remove(client, physical_id)

    def attributes_of(self, context: Context, physical_id: str, properties: Properties) -> dict[str, Json]:
        """Return the ARN and the host names."""
        region = context.place.region
        return {
            "Arn": f"arn:{context.place.partition}:s3:::{physical_id}",
            "DomainName": f"{physical_id}.s3.amazonaws.com",
            "DualStackDomainName": f"{physical_id}.s3.dualstack.{region}.amazonaws.com",
            "RegionalDomainName": f"{physical_id}.s3.{region}.amazonaws.com",
            "WebsiteURL": f"http://{physical_id}.s3-website-{region}.amazonaws.com",
        }

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Delete the bucket; one with objects in it cannot be."""
        context.clients("s3").delete_bucket(Bucket=physical_id)


def _put_tags(client: Any, bucket: str, value: Json) -> None:
    client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": value})


def _put_encryption(client: Any, bucket: str, value: Json) -> None:
    rules = [encryption_rule(rule) for rule in value["ServerSideEncryptionConfiguration"]]
    client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def encryption_rule(rule: Json) -> dict[str, Json]:
    """Return a template's rule for encryption in the API's words."""
    return {"ApplyServerSideEncryptionByDefault" if key == "ServerSideEncryptionByDefault" else key: item for key, item in rule.items()}


def _put_cors(client: Any, bucket: str, value: Json) -> None:
    names = {"ExposedHeaders": "ExposeHeaders", "Id": "ID", "MaxAge": "MaxAgeSeconds"}
    rules = [{names.get(key, key): item for key, item in rule.items()} for rule in value["CorsRules"]]
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})


def _put_lifecycle(client: Any, bucket: str, value: Json) -> None:
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [lifecycle_rule(rule) for rule in value["Rules"]]}
    )


def lifecycle_rule(rule: Json) -> dict[str, Json]:
    """Return a template's lifecycle rule in the API's words."""
    result: dict[str, Json] = {"Status": rule["Status"]}
    if "Id" in rule:
        result["ID"] = rule["Id"]
    for key in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
        if key in rule:
            result[key] = rule[key]
    expiration = {
        api: rule[name]
        for name, api in (
            ("ExpirationInDays", "Days"),
            ("ExpirationDate", "Date"),
            ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"),
        )
        if name in rule
    }
    if expiration:
        result["Expiration"] = expiration
    names = {"TransitionInDays": "Days", "TransitionDate": "Date"}
    if "Transitions" in rule:
        result["Transitions"] = [{names.get(key, key): _class(item) for key, item in one.items()} for one in rule["Transitions"]]
    names = {"TransitionInDays": "NoncurrentDays"}
    if "NoncurrentVersionTransitions" in rule:
        result["NoncurrentVersionTransitions"] = [
            {names.get(key, key): _class(item) for key, item in one.items()} for one in rule["NoncurrentVersionTransitions"]
        ]
    return result | {"Filter": _lifecycle_filter(rule)}


def lifecycle_shown(rule: Json) -> dict[str, Json]:
    """Return a lifecycle rule of the API as a template writes it."""
    shown: dict[str, Json] = {"Id": rule["ID"]} if "ID" in rule else {}
    shown |= {key: rule[key] for key in ("Status", "AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration") if key in rule}
    names = {"Days": "ExpirationInDays", "Date": "ExpirationDate"}
    shown |= {names.get(key, key): _day(value) for key, value in rule.get("Expiration", {}).items()}
    for section, names in (
        ("Transitions", {"Days": "TransitionInDays", "Date": "TransitionDate"}),
        ("NoncurrentVersionTransitions", {"NoncurrentDays": "TransitionInDays"}),
    ):
        if rule.get(section):
            shown[section] = [{names.get(key, key): _day(value) for key, value in one.items()} for one in rule[section]]
    terms = rule.get("Filter", {}).get("And") or rule.get("Filter") or {}
    prefix = terms.get("Prefix") or rule.get("Prefix")
    shown |= {"Prefix": prefix} if prefix else {}
    shown |= {key: str(terms[key]) for key in ("ObjectSizeGreaterThan", "ObjectSizeLessThan") if key in terms}
    tags = terms.get("Tags") or ([terms["Tag"]] if "Tag" in terms else [])
    return shown | ({"TagFilters": tags} if tags else {})


def _day(value: Json) -> Json:
    return value.isoformat() if isinstance(value, datetime) else value


def _class(value: Json) -> Json:
    return "GLACIER" if value == "Glacier" else value


def _lifecycle_filter(rule: Json) -> dict[str, Json]:
    terms: dict[str, Json] = {"Prefix": rule["Prefix"]} if "Prefix" in rule else {}
    terms |= {key: int(rule[key]) for key in ("ObjectSizeGreaterThan", "ObjectSizeLessThan") if key in rule}
    tags = rule.get("TagFilters") or []
    if len(terms) + len(tags) > 1:
        return {"And": terms | ({"Tags": tags} if tags else {})}
    if tags:
        return {"Tag": tags[0]}
    return terms or {"Prefix": ""}


def _put_notifications(client: Any, bucket: str, value: Json) -> None:
    configuration: dict[str, Json] = {}
    if (value.get("EventBridgeConfiguration") or {}).get("EventBridgeEnabled"):
        configuration["EventBridgeConfiguration"] = {}
    for section, target, api, api_target in (
        ("LambdaConfigurations", "Function", "LambdaFunctionConfigurations", "LambdaFunctionArn"),
        ("QueueConfigurations", "Queue", "QueueConfigurations", "QueueArn"),
        ("TopicConfigurations", "Topic", "TopicConfigurations", "TopicArn"),
    ):
        if section in value:
            configuration[api] = [
                {api_target: item[target], "Events": [item["Event"]]}
                | ({"Filter": {"Key": {"FilterRules": item["Filter"]["S3Key"]["Rules"]}}} if "Filter" in item else {})
                for item in value[section]
            ]
    client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)


def _put_versioning(client: Any, bucket: str, value: Json) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=value)


def _put_ownership(client: Any, bucket: str, value: Json) -> None:
    client.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=value)


def _put_public_access_block(client: Any, bucket: str, value: Json) -> None:
    client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=value)


def _nothing(client: Any, bucket: str) -> None:
    return None


#: Property → how it is put and how it is taken away, in the order in which they are applied.
_CONFIGURATIONS: dict[str, tuple[Callable[[Any, str, Json], None], Callable[[Any, str], None]]] = {
    "VersioningConfiguration": (_put_versioning, lambda client, bucket: _put_versioning(client, bucket, {"Status": "Suspended"})),
    "OwnershipControls": (_put_ownership, lambda client, bucket: client.delete_bucket_ownership_controls(Bucket=bucket)),
    "PublicAccessBlockConfiguration": (_put_public_access_block, lambda client, bucket: client.delete_public_access_block(Bucket=bucket)),
    "BucketEncryption": (_put_encryption, lambda client, bucket: client.delete_bucket_encryption(Bucket=bucket)),
    "CorsConfiguration": (_put_cors, lambda client, bucket: client.delete_bucket_cors(Bucket=bucket)),
    "LifecycleConfiguration": (_put_lifecycle, lambda client, bucket: client.delete_bucket_lifecycle(Bucket=bucket)),
    "NotificationConfiguration": (_put_notifications, lambda client, bucket: _put_notifications(client, bucket, {})),
    "Tags": (_put_tags, lambda client, bucket: client.delete_bucket_tagging(Bucket=bucket)),
    "ObjectLockEnabled": (lambda client, bucket, value: None, _nothing),
}


class BucketPolicy(Provider):
    """AWS::S3::BucketPolicy."""

    type: ClassVar[str] = "AWS::S3::BucketPolicy"
    schema: ClassVar[Object] = Object({"Bucket": STRING, "PolicyDocument": JSON}, required=("Bucket", "PolicyDocument"))
    replaced_by: ClassVar[frozenset[str]] = frozenset(("Bucket",))
    name: ClassVar[NameRule] = NameRule("Bucket")

    def exists(self, context: Context, name: str, properties: Properties) -> bool:
        """Return whether the bucket has a policy already."""
        try:
            context.clients("s3").get_bucket_policy(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucketPolicy":
                return False
            raise
        return True

    def create(self, context: Context, name: str, properties: Properties) -> str:
        """Put the policy."""
        context.clients("s3").put_bucket_policy(Bucket=name, Policy=policy_text(properties["PolicyDocument"]))
        return name

    def update(self, context: Context, physical_id: str, old: Properties, new: Properties) -> None:
        """Put the new policy."""
        self.create(context, physical_id, new)

    def delete(self, context: Context, physical_id: str, properties: Properties) -> None:
        """Take the policy away."""
        context.clients("s3").delete_bucket_policy(Bucket=physical_id)
