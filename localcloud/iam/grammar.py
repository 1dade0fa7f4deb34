"""How the requests of a service name resources, for all operations that need no more than that to be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from localcloud.iam.needs import Need, Params, Place, pass_role, tag_keys


@dataclass(frozen=True)
class Grammar:
    """How a service's requests name resources.

    Attributes:
        prefix: Of its actions.
        members: Request member → the resource that it names, as the end of an ARN; ``{}`` is the member's value, a whole ARN stands for itself.
        without: Operations that need a permission for no resource although they may name one.
        passes: Operations that hand a role to a service: member with the role → that service.
        tagging: Action that is needed, too, by a create request with tags.
        renamed: Operation → action, where they differ.
        keys: Request member → the condition key that has its value.
        lower: Names are written in lower case in ARNs.
        region: Whether ARNs have a region.
    """

    prefix: str
    members: Mapping[str, str]
    without: frozenset[str] = frozenset()
    passes: Mapping[str, str] = field(default_factory=dict)
    tagging: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    lower: bool = False
    region: bool = True


def needs_by_grammar(place: Place, grammar: Grammar, operation: str, params: Params) -> list[Need]:
    """Return what a request needs, by the resources that it names."""
    action = f"{grammar.prefix}:{grammar.renamed.get(operation, operation)}"
    keys = tag_keys(params) | {key: (str(params[member]),) for member, key in grammar.keys.items() if params.get(member)}
    resources = ["*"] if operation in grammar.without else _resources(place, grammar, operation, params)
    found = [Need(action, resource, keys) for resource in resources]
    if grammar.tagging and operation.startswith("Create") and tag_keys(params):
        found += [Need(f"{grammar.prefix}:{grammar.tagging}", resource, keys) for resource in resources]
    for member, receiver in grammar.passes.items():
        if params.get(member) and operation.startswith(("Create", "Update", "Execute", "Delete", "Start")):
            found.append(pass_role(str(params[member]), receiver))
    return found


def _resources(place: Place, grammar: Grammar, operation: str, params: Params) -> list[str]:
    named = [(member, params[member]) for member in grammar.members if params.get(member)]
    # A version or alias of a function is a resource of its own.
    qualifier = f":{params['Qualifier']}" if params.get("Qualifier") and grammar.prefix == "lambda" else ""
    return [
        arn + qualifier
        for member, value in named
        for one in (value if isinstance(value, list) else [value])
        for arn in [_arn(place, grammar, member, str(one))]
    ] or [place.arn(grammar.prefix, "*", region=grammar.region)]


def _arn(place: Place, grammar: Grammar, member: str, value: str) -> str:
    if value.startswith("arn:"):
        return value
    value = value.removeprefix("/") if grammar.prefix == "ssm" else value
    if value.startswith(("http://", "https://")):  # a queue's URL
        value = value.rpartition("/")[2]
    if grammar.prefix == "codebuild":
        value = value.partition(":")[0]  # a build's id begins with its project
    name = value.lower() if grammar.lower and "package" not in grammar.members[member] else value
    return place.arn(grammar.prefix, grammar.members[member].format(name), region=grammar.region)


#: By botocore's name of the service.
GRAMMARS: Mapping[str, Grammar] = {
    "sagemaker": Grammar(
        "sagemaker",
        {
            "ProcessingJobName": "processing-job/{}",
            "TrainingJobName": "training-job/{}",
            "ModelName": "model/{}",
            "EndpointName": "endpoint/{}",
            "EndpointConfigName": "endpoint-config/{}",
            "ModelPackageName": "model-package/{}",
            "ModelPackageArn": "model-package/{}",
            "ModelPackageGroupName": "model-package-group/{}",
            "PipelineName": "pipeline/{}",
            "PipelineExecutionArn": "{}",
            "ResourceArn": "{}",
        },
        # The reference lists no resource type for them.
        without=frozenset(
            (
                "ListEndpoints",
                "ListEndpointConfigs",
                "ListModels",
                "ListModelPackageGroups",
                "ListPipelines",
                "ListProcessingJobs",
                "ListTrainingJobs",
            )
        ),
        passes={"RoleArn": "sagemaker.amazonaws.com", "ExecutionRoleArn": "sagemaker.amazonaws.com"},
        tagging="AddTags",
        keys={"ModelApprovalStatus": "sagemaker:modelapprovalstatus"},
        lower=True,
    ),
    "sagemaker-runtime": Grammar("sagemaker", {"EndpointName": "endpoint/{}"}, lower=True),
    "lambda": Grammar(
        "lambda",
        {"FunctionName": "function:{}", "Resource": "{}", "LayerName": "layer:{}", "Arn": "{}"},
        without=frozenset(("GetAccountSettings", "ListFunctions", "ListLayers", "ListLayerVersions")),
        passes={"Role": "lambda.amazonaws.com"},
        tagging="TagResource",
        renamed={"Invoke": "InvokeFunction", "GetLayerVersionByArn": "GetLayerVersion"},
    ),
    "events": Grammar(
        "events",
        {"Rule": "rule/{}", "ResourceARN": "{}", "EventBusName": "event-bus/{}", "Name": "rule/{}"},
        without=frozenset(
            ("ListRules", "ListEventBuses", "ListRuleNamesByTarget", "PutPermission", "RemovePermission", "TestEventPattern")
        ),
        tagging="TagResource",
    ),
    "stepfunctions": Grammar(
        "states",
        {"executionArn": "execution:{}", "resourceArn": "{}"},
        without=frozenset(("ListStateMachines", "ValidateStateMachineDefinition")),
    ),
    "cloudformation": Grammar(
        "cloudformation",
        {"StackName": "stack/{}/*"},
        without=frozenset(("ListStacks", "ListExports", "ListImports", "ValidateTemplate", "DescribeStackDriftDetectionStatus")),
    ),
    "cloudwatch": Grammar(
        "cloudwatch",
        {
            "AlarmName": "alarm:{}",
            "AlarmNames": "alarm:{}",
            "DashboardName": "dashboard/{}",
            "DashboardNames": "dashboard/{}",
            "ResourceARN": "{}",
        },
        without=frozenset(
            ("GetMetricData", "GetMetricStatistics", "ListMetrics", "ListDashboards", "PutMetricData", "DescribeAlarmsForMetric")
        ),
        tagging="TagResource",
    ),
    "codebuild": Grammar(
        "codebuild",
        {"projectName": "project/{}", "name": "project/{}", "names": "project/{}", "id": "project/{}", "ids": "project/{}"},
        without=frozenset(("ListBuilds", "ListProjects")),
        passes={"serviceRole": "codebuild.amazonaws.com", "serviceRoleOverride": "codebuild.amazonaws.com"},
    ),
    **{
        # The old name and the new one; an ARN has that with which it was made.
        name: Grammar(name, {"ConnectionArn": "{}", "ResourceArn": "{}"}, without=frozenset(("CreateConnection", "ListConnections")))
        for name in ("codeconnections", "codestar-connections")
    },
    "codepipeline": Grammar(
        "codepipeline",
        {"pipelineName": "{}", "name": "{}", "resourceArn": "{}"},
        without=frozenset(("ListPipelines", "PutJobFailureResult", "PutJobSuccessResult")),
    ),
    "sqs": Grammar(
        "sqs",
        {"QueueUrl": "{}", "QueueName": "{}"},
        without=frozenset(("ListQueues",)),
        renamed={
            "SendMessageBatch": "SendMessage",
            "DeleteMessageBatch": "DeleteMessage",
            "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
        },
        tagging="TagQueue",
    ),
    "sns": Grammar(
        "sns",
        {"TopicArn": "{}", "TargetArn": "{}", "ResourceArn": "{}", "Name": "{}", "SubscriptionArn": "{}"},
        without=frozenset(("ListTopics", "ListSubscriptions")),
        renamed={"PublishBatch": "Publish"},
        tagging="TagResource",
    ),
    "logs": Grammar(
        "logs",
        # AWS's own error messages name groups so, with an empty stream.
        {"logGroupName": "log-group:{}:log-stream:", "logGroupIdentifier": "log-group:{}:log-stream:", "resourceArn": "{}"},
        tagging="TagResource",
    ),
    "ssm": Grammar(
        "ssm", {"Name": "parameter/{}", "Names": "parameter/{}", "Path": "parameter/{}"}, without=frozenset(("DescribeParameters",))
    ),
    "kms": Grammar("kms", {"KeyId": "key/{}"}, without=frozenset(("ListKeys", "ListAliases", "CreateKey"))),
    "secretsmanager": Grammar(
        "secretsmanager", {"SecretId": "secret:{}-??????", "Name": "secret:{}-??????"}, without=frozenset(("ListSecrets",))
    ),
    "ecr": Grammar("ecr", {"repositoryName": "repository/{}", "resourceArn": "{}"}, without=frozenset(("GetAuthorizationToken",))),
    "iam": Grammar(
        "iam",
        {"RoleName": "role/{}", "PolicyArn": "{}", "PolicyName": "policy/{}", "UserName": "user/{}", "GroupName": "group/{}"},
        without=frozenset(("ListRoles", "ListPolicies", "ListUsers", "ListGroups")),
        tagging="TagRole",
        region=False,
    ),
    "sts": Grammar(
        "sts",
        {"RoleArn": "{}"},
        without=frozenset(("GetSessionToken",)),
        keys={"ExternalId": "sts:externalid", "RoleSessionName": "sts:rolesessionname"},
        region=False,
    ),
}
