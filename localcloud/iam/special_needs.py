"""Operations that need more than the names in their requests say, or something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from localcloud.iam.grammar import GRAMMARS, needs_by_grammar
from localcloud.iam.needs import Need, ObjectData, Params, Place, pass_role, tag_keys


def _create_model(place: Place, params: Params) -> list[Need]:
    found = [Need("sagemaker:CreateModel", place.arn("sagemaker", f"model/{str(params['ModelName']).lower()}"), tag_keys(params))]
    # Of a package, the action is asked for on that, too (https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-deploy-xaccount.html).
    containers = [*(params.get("Containers") or []), params.get("PrimaryContainer") or {}]
    packages = [str(container["ModelPackageName"]) for container in containers if container.get("ModelPackageName")]
    for package in packages:
        arn = package if package.startswith("arn:") else place.arn("sagemaker", f"model-package/{package}")
        found.append(Need("sagemaker:CreateModel", arn, found[0].keys))
    if params.get("Tags"):
        found.append(Need("sagemaker:AddTags", found[0].resource, found[0].keys))
    if params.get("ExecutionRoleArn"):
        found.append(pass_role(str(params["ExecutionRoleArn"]), "sagemaker.amazonaws.com"))
    return found


def _with_code(operation: str) -> Callable[[Place, Params], list[Need]]:
    """An operation that takes code from S3: Lambda reads it for who asks."""

    def found(place: Place, params: Params) -> list[Need]:
        found_needs = needs_by_grammar(place, GRAMMARS["lambda"], operation, params)
        code = params.get("Code") or params.get("Content") or params
        if code.get("S3Bucket"):
            version = code.get("S3ObjectVersion")
            read = "s3:GetObjectVersion" if version else "s3:GetObject"
            found_needs.append(Need(read, f"arn:aws:s3:::{code['S3Bucket']}/{code['S3Key']}", data=ObjectData("read", version=version)))
        return found_needs

    return found


def _invoke(place: Place, params: Params) -> list[Need]:
    name, qualifier = str(params["FunctionName"]), params.get("Qualifier")
    arn = name if name.startswith("arn:") else place.arn("lambda", f"function:{name}")
    unqualified = ":".join(arn.split(":")[:7])
    return [Need("lambda:InvokeFunction", f"{arn}:{qualifier}" if qualifier else arn, {"lambda:functionarn": (unqualified,)})]


_OF_MACHINES = (
    "CreateStateMachine",
    "CreateStateMachineAlias",
    "DeleteStateMachine",
    "DeleteStateMachineAlias",
    "DeleteStateMachineVersion",
    "DescribeStateMachine",
    "DescribeStateMachineAlias",
    "ListExecutions",
    "ListStateMachineAliases",
    "ListStateMachineVersions",
    "PublishStateMachineVersion",
    "StartExecution",
    "StartSyncExecution",
    "UpdateStateMachine",
    "UpdateStateMachineAlias",
)


def _machine(operation: str) -> Callable[[Place, Params], list[Need]]:
    """An operation on a state machine, whatever version or alias of it is named.

    The state machine is the resource, the version or alias a condition key (https://docs.aws.amazon.com/step-functions/latest/dg/auth-version-alias.html).
    """

    def found(place: Place, params: Params) -> list[Need]:
        routes = params.get("routingConfiguration") or [{}]
        members = ("stateMachineArn", "stateMachineAliasArn", "stateMachineVersionArn")
        arn = next((str(params[member]) for member in members if params.get(member)), routes[0].get("stateMachineVersionArn"))
        arn = arn or place.arn("states", f"stateMachine:{params['name']}")
        plain, qualifier = ":".join(arn.split(":")[:7]), arn.split(":")[7:]
        keys = {"states:statemachinequalifier": tuple(qualifier)} if qualifier and operation.startswith("Start") else {}
        found_needs = [Need(f"states:{operation}", plain, keys)]
        if params.get("publish"):
            found_needs.append(Need("states:PublishStateMachineVersion", plain))
        if params.get("tags"):
            found_needs.append(Need("states:TagResource", plain, tag_keys(params)))
        if params.get("roleArn"):
            found_needs.append(pass_role(str(params["roleArn"]), "states.amazonaws.com"))
        return found_needs

    return found


def _put_events(place: Place, params: Params) -> list[Need]:
    needs_of: list[Need] = []
    for entry in params.get("Entries", []):
        bus = str(entry.get("EventBusName") or "default")
        arn = bus if bus.startswith("arn:") else place.arn("events", f"event-bus/{bus}")
        keys = {"events:source": (str(entry.get("Source", "")),), "events:detail-type": (str(entry.get("DetailType", "")),)}
        needs_of.append(Need("events:PutEvents", arn, keys))
    return needs_of


def _bus(action: str) -> Callable[[Place, Params], list[Need]]:
    return lambda place, params: [Need(action, place.arn("events", f"event-bus/{params.get('Name') or 'default'}"))]


def _rule(action: str) -> Callable[[Place, Params], list[Need]]:
    def found(place: Place, params: Params) -> list[Need]:
        bus = str(params.get("EventBusName") or "default").rpartition("/")[2]
        name = str(params.get("Rule") or params.get("Name"))
        rule = place.arn("events", f"rule/{name}" if bus == "default" else f"rule/{bus}/{name}")
        result = [Need(action, rule, tag_keys(params))]
        if params.get("Tags"):
            result.append(Need("events:TagResource", rule, tag_keys(params)))
        roles = [params.get("RoleArn"), *(target.get("RoleArn") for target in params.get("Targets") or [])]
        return result + [pass_role(str(role), "events.amazonaws.com") for role in roles if role]

    return found


def _layer_version(action: str) -> Callable[[Place, Params], list[Need]]:
    def found(place: Place, params: Params) -> list[Need]:
        name = str(params["LayerName"])
        layer = name if name.startswith("arn:") else place.arn("lambda", f"layer:{name}")
        return [Need(action, f"{layer}:{params['VersionNumber']}")]

    return found


def _list_model_packages(place: Place, params: Params) -> list[Need]:
    group = str(params.get("ModelPackageGroupName") or "*").rpartition("/")[2]
    return [Need("sagemaker:ListModelPackages", place.arn("sagemaker", f"model-package/{group}/*"))]


def _stage(action: str) -> Callable[[Place, Params], list[Need]]:
    def found(place: Place, params: Params) -> list[Need]:
        names = [str(params[member]) for member in ("pipelineName", "stageName", "actionName") if params.get(member)]
        return [Need(action, place.arn("codepipeline", "/".join(names)))]

    return found


def _put_metric_data(place: Place, params: Params) -> list[Need]:
    return [Need("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": (str(params["Namespace"]),)})]


def _dashboards(action: str) -> Callable[[Place, Params], list[Need]]:
    def found(place: Place, params: Params) -> list[Need]:
        names = [params["DashboardName"]] if params.get("DashboardName") else params["DashboardNames"]
        return [Need(action, place.arn("cloudwatch", f"dashboard/{name}", region=False)) for name in names]

    return found


def _log_events(action: str) -> Callable[[Place, Params], list[Need]]:
    def found(place: Place, params: Params) -> list[Need]:
        group = params.get("logGroupName") or str(params.get("logGroupIdentifier", "")).rpartition(":log-group:")[2] or "*"
        return [Need(action, place.arn("logs", f"log-group:{group}:log-stream:{params.get('logStreamName') or ''}"))]

    return found


def _describe_log_groups(place: Place, params: Params) -> list[Need]:
    return [Need("logs:DescribeLogGroups", place.arn("logs", "log-group::log-stream:"))]


def _put_policy(action: str, member: str) -> Callable[[Place, Params], list[Need]]:
    """A role's, user's or group's inline policy: the resource is that of whose it is, not the policy."""
    kind = {"RoleName": "role", "UserName": "user", "GroupName": "group"}[member]

    def found(place: Place, params: Params) -> list[Need]:
        keys = {"iam:policyarn": (str(params["PolicyArn"]),)} if params.get("PolicyArn") else {}
        return [Need(action, place.arn("iam", f"{kind}/{params[member]}", region=False), keys)]

    return found


def _create_role(place: Place, params: Params) -> list[Need]:
    path = str(params.get("Path") or "/")
    role = place.arn("iam", f"role{path}{params['RoleName']}", region=False)
    keys = {"iam:permissionsboundary": (str(params["PermissionsBoundary"]),)} if params.get("PermissionsBoundary") else {}
    tags = tag_keys(params)
    return [Need("iam:CreateRole", role, keys | tags)] + ([Need("iam:TagRole", role, tags)] if tags else [])


def _change_set(action: str) -> Callable[[Place, Params], list[Need]]:
    def found(place: Place, params: Params) -> list[Need]:
        name, change_set = str(params.get("StackName") or ""), str(params["ChangeSetName"])
        if not name and change_set.startswith("arn:"):
            stack = place.arn("cloudformation", "stack/*/*")
        else:
            stack = name if name.startswith("arn:") else place.arn("cloudformation", f"stack/{name}/*")
        return _stack_needs(action, stack, params, {"cloudformation:changesetname": (change_set,)})

    return found


def _stack(action: str) -> Callable[[Place, Params], list[Need]]:
    def found(place: Place, params: Params) -> list[Need]:
        name = str(params["StackName"])
        return _stack_needs(action, name if name.startswith("arn:") else place.arn("cloudformation", f"stack/{name}/*"), params, {})

    return found


def _stack_needs(action: str, stack: str, params: Params, keys: Mapping[str, tuple[str, ...]]) -> list[Need]:
    tags = tag_keys(params)
    found = {**keys, **tags}
    for member, key in (("RoleARN", "rolearn"), ("TemplateURL", "templateurl")):
        if params.get(member):
            found[f"cloudformation:{key}"] = (str(params[member]),)
    result = [Need(action, stack, found)]
    if tags:
        result.append(Need("cloudformation:TagResource", stack, tags))
    if params.get("RoleARN"):
        result.append(pass_role(str(params["RoleARN"]), "cloudformation.amazonaws.com"))
    return result


def _stack_or_all(action: str) -> Callable[[Place, Params], list[Need]]:
    def found(place: Place, params: Params) -> list[Need]:
        name = str(params.get("StackName") or "")
        if not name:
            return [Need(action, "*" if action.endswith("GetTemplateSummary") else place.arn("cloudformation", "stack/*/*"))]
        return [Need(action, name if name.startswith("arn:") else place.arn("cloudformation", f"stack/{name}/*"))]

    return found


def _describe_alarms(place: Place, params: Params) -> list[Need]:
    names = params.get("AlarmNames") or ["*"]
    return [Need("cloudwatch:DescribeAlarms", place.arn("cloudwatch", f"alarm:{name}")) for name in names]


_Special = Callable[[Place, Params], list[Need]]


def _inline_and_attached() -> dict[tuple[str, str], _Special]:
    found: dict[tuple[str, str], _Special] = {}
    for kind, member in (("Role", "RoleName"), ("User", "UserName"), ("Group", "GroupName")):
        for verb in ("Put", "Get", "Delete"):
            found["iam", f"{verb}{kind}Policy"] = _put_policy(f"iam:{verb}{kind}Policy", member)
        for verb in ("Attach", "Detach"):
            found["iam", f"{verb}{kind}Policy"] = _put_policy(f"iam:{verb}{kind}Policy", member)
    return found


#: By service and operation.
SPECIAL: Mapping[tuple[str, str], _Special] = {
    ("sagemaker", "CreateModel"): _create_model,
    ("sagemaker", "ListModelPackages"): _list_model_packages,
    **{("lambda", name): _layer_version(f"lambda:{name}") for name in ("GetLayerVersion", "DeleteLayerVersion")},
    **{
        ("codepipeline", name): _stage(f"codepipeline:{name}")
        for name in ("DisableStageTransition", "EnableStageTransition", "PutApprovalResult", "RetryStageExecution")
    },
    ("lambda", "Invoke"): _invoke,
    **{("lambda", name): _with_code(name) for name in ("CreateFunction", "UpdateFunctionCode", "PublishLayerVersion")},
    **{("stepfunctions", name): _machine(name) for name in _OF_MACHINES},
    ("events", "PutEvents"): _put_events,
    ("cloudwatch", "PutMetricData"): _put_metric_data,
    ("cloudwatch", "DescribeAlarms"): _describe_alarms,
    ("logs", "DescribeLogGroups"): _describe_log_groups,
    ("iam", "CreateRole"): _create_role,
    ("cloudformation", "DescribeStacks"): _stack_or_all("cloudformation:DescribeStacks"),
    ("cloudformation", "GetTemplateSummary"): _stack_or_all("cloudformation:GetTemplateSummary"),
    **{("cloudwatch", name): _dashboards(f"cloudwatch:{name}") for name in ("GetDashboard", "PutDashboard", "DeleteDashboards")},
    **{("events", name): _bus(f"events:{name}") for name in ("CreateEventBus", "DeleteEventBus", "DescribeEventBus")},
    **{
        ("events", name): _rule(f"events:{name}")
        for name in (
            "PutRule",
            "DeleteRule",
            "DescribeRule",
            "EnableRule",
            "DisableRule",
            "PutTargets",
            "RemoveTargets",
            "ListTargetsByRule",
        )
    },
    **{("logs", name): _log_events(f"logs:{name}") for name in ("CreateLogStream", "DeleteLogStream", "PutLogEvents", "GetLogEvents")},
    **{
        ("cloudformation", name): _stack(f"cloudformation:{name}")
        for name in ("CreateStack", "UpdateStack", "DeleteStack", "ContinueUpdateRollback", "RollbackStack")
    },
    **{
        ("cloudformation", name): _change_set(f"cloudformation:{name}")
        for name in ("CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet", "DeleteChangeSet")
    },
    **_inline_and_attached(),
}
