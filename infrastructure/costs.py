"""What the system costs a month, roughly: from the resources of its templates, the settings, and assumptions about its use.

The prices are a small table by hand, so that an estimate needs no account and no network. Whoever needs more: AWS Pricing Calculator.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infrastructure.templates import Template

#: Of which day and region the prices are. Other regions cost up to half as much again; the free tier is not taken off.
PRICES_OF = "October 2025, us-east-1, in USD, without free tier, discounts and tax"
PRICE_LISTS = "https://aws.amazon.com/sagemaker/pricing/ and the pricing pages of the other services"
HOURS = 730

# Of an hour, for hosting, training and processing alike (https://aws.amazon.com/sagemaker/pricing/).
INSTANCE_HOUR: Mapping[str, float] = {
    "ml.t2.medium": 0.056,
    "ml.c5.large": 0.102,
    "ml.c5.xlarge": 0.204,
    "ml.c5.2xlarge": 0.408,
    "ml.c6i.large": 0.102,
    "ml.c6i.xlarge": 0.204,
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m5.4xlarge": 0.922,
    "ml.g4dn.xlarge": 0.736,
    "ml.g5.xlarge": 1.408,
}
SERVERLESS_GB_SECOND = 0.00002
ENDPOINT_DATA_GB = 0.016
LAMBDA_ARM_GB_SECOND = 0.0000133334
LAMBDA_REQUEST = 0.0000002
STATE_TRANSITION = 0.000025
S3_GB_MONTH = 0.023
LOG_GB = 0.50
METRIC_ALARM = 0.10
DASHBOARD = 3.00
CUSTOMER_KEY = 1.00
# Recorded (https://aws.amazon.com/xray/pricing/).
TRACE = 5.00 / 1e6
# Of an action of a V2 pipeline, manual approvals excepted (https://aws.amazon.com/codepipeline/pricing/).
CODEPIPELINE_MINUTE = 0.002
# Of Linux on x86 (https://aws.amazon.com/codebuild/pricing/).
CODEBUILD_MINUTE = {"BUILD_GENERAL1_SMALL": 0.005, "BUILD_GENERAL1_MEDIUM": 0.01, "BUILD_GENERAL1_LARGE": 0.02}
#: What managed spot capacity usually takes off; nobody guarantees it.
SPOT_SHARE = 0.4

_FREE = frozenset(
    {
        "AWS::Budgets::Budget",
        "AWS::CloudFormation::CustomResource",
        "AWS::CodeConnections::Connection",
        "AWS::CodeStarConnections::Connection",
        "AWS::Events::EventBusPolicy",
        # AWS's own events cost nothing; only those of one's own do.
        "AWS::Events::Rule",
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::OIDCProvider",
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::Lambda::Alias",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::Permission",
        "AWS::Lambda::Version",
        "AWS::Logs::ResourcePolicy",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::Subscription",
        "AWS::SNS::TopicPolicy",
        "AWS::SQS::QueuePolicy",
        "AWS::SageMaker::Endpoint",  # its configuration says what it costs
        "AWS::SageMaker::Model",
        "AWS::SageMaker::ModelPackageGroup",
        "AWS::SageMaker::Pipeline",
        "AWS::StepFunctions::StateMachineAlias",
        "AWS::StepFunctions::StateMachineVersion",
    }
)
#: Billed by the message, of which there are few.
_CENTS = frozenset({"AWS::SNS::Topic", "AWS::SQS::Queue"})


Properties = Mapping[str, Any]


@dataclass(frozen=True)
class Usage:
    """What is assumed about a month. The defaults are a small team's."""

    photos: int = 10_000
    photo_kilobytes: float = 300
    # Of the model, on a serverless endpoint; cold starts are not billed.
    inference_seconds: float = 0.15
    runs: int = 4
    processing_minutes: float = 15
    training_minutes: float = 15
    stored_gigabytes: float = 10
    commits: int = 40
    build_minutes: float = 8


@dataclass(frozen=True)
class Serving:
    """How an endpoint serves: on instances, or serverless with this memory."""

    instance_type: str | None
    instance_count: int
    memory_gigabytes: float


@dataclass(frozen=True)
class Job:
    """The machines of one kind of job of a run."""

    instance_type: str
    instance_count: int = 1
    spot: bool = False


@dataclass(frozen=True)
class CostLine:
    """One line of an estimate.

    Attributes:
        what: What is billed.
        assumption: How the figure comes about.
        monthly: USD a month; None where this table has no price.
        standing: Whether it is billed whether or not anything is used.
    """

    what: str
    assumption: str
    monthly: float | None
    standing: bool


@dataclass(frozen=True)
class Estimate:
    """An estimate for a month."""

    lines: tuple[CostLine, ...]

    @property
    def standing(self) -> float:
        """USD a month when nothing is used."""
        return sum(line.monthly or 0.0 for line in self.lines if line.standing)

    @property
    def total(self) -> float:
        """USD a month with the use that is assumed."""
        return sum(line.monthly or 0.0 for line in self.lines)

    @property
    def unknown(self) -> tuple[CostLine, ...]:
        """What is billed, and has no price here."""
        return tuple(line for line in self.lines if line.monthly is None)


def estimate_stacks(stacks: Iterable[tuple[Template, Mapping[str, str]]], usage: Usage) -> Estimate:
    """Returns what the resources cost that stacks of these templates with these parameters have."""
    groups: dict[str, list[Properties]] = {}
    names: dict[str, list[str]] = {}
    for template, parameters in stacks:
        for resource in template.active(parameters).values():
            groups.setdefault(resource.type, []).append(template.properties(resource, parameters))
            names.setdefault(resource.type, []).append(resource.logical_id)
    lines: list[CostLine] = []
    for kind, resources in groups.items():
        price = _PRICED.get(kind)
        if price is not None:
            lines += price(resources, usage)
        elif not is_free(kind) and kind not in _CENTS:
            lines.append(CostLine(", ".join(names[kind]), f"{kind}: see its pricing page", None, True))
    if groups.keys() & _CENTS:
        lines.append(CostLine("queues and topics", "by the message; a million cost about 0.50", 0.0, False))
    return Estimate(tuple(lines))


def estimate_beside(*, encryption_key: bool, tracking_server: bool, usage: Usage) -> Iterator[CostLine]:
    """Yields what is billed and is no resource of a stack: what an operator brings along, and the traces of executions."""
    yield CostLine("traces (X-Ray)", f"one a photo, {TRACE * 1e6:.2f} a million", usage.photos * TRACE, False)
    if encryption_key:
        yield CostLine("the encryption key", f"{CUSTOMER_KEY:.2f} a key; its requests are cents", CUSTOMER_KEY, True)
    if tracking_server:
        yield CostLine("the MLflow tracking server", "by the hour, day and night: see SageMaker's pricing page", None, True)


def is_free(resource_type: str) -> bool:
    """Whether nothing is billed for a resource of this type itself."""
    return resource_type in _FREE or resource_type.startswith("Custom::")


def estimate_endpoint(name: str, serving: Serving, requests: int, usage: Usage) -> CostLine:
    """Returns what an endpoint costs that serves so many photos a month."""
    if serving.instance_type is not None:
        hour = INSTANCE_HOUR.get(serving.instance_type)
        monthly = None if hour is None else hour * serving.instance_count * HOURS
        price = "no price here" if hour is None else f"{hour:g} an hour"
        return CostLine(name, f"{serving.instance_count} x {serving.instance_type}, day and night, {price}", monthly, True)
    seconds = requests * usage.inference_seconds
    gigabytes = requests * usage.photo_kilobytes / 1e6
    monthly = seconds * serving.memory_gigabytes * SERVERLESS_GB_SECOND + gigabytes * ENDPOINT_DATA_GB
    assumption = f"serverless, {serving.memory_gigabytes:g} GB: {requests:,} photos of {usage.inference_seconds:g} s and {usage.photo_kilobytes:g} kB"
    return CostLine(name, assumption, monthly, False)


def estimate_runs(processing: Job, training: Job, usage: Usage) -> CostLine:
    """Returns what the pipeline's runs cost."""
    rates = [INSTANCE_HOUR.get(job.instance_type) for job in (processing, training)]
    text = (
        f"{usage.runs} runs of {usage.processing_minutes:g} min {processing.instance_type} and {usage.training_minutes:g} min "
        f"{training.instance_count} x {training.instance_type}{' spot' if training.spot else ''}; less when steps come from the cache"
    )
    if rates[0] is None or rates[1] is None:
        return CostLine("pipeline runs", f"{text}; no price here", None, False)
    share = SPOT_SHARE if training.spot else 1.0
    hours = (usage.processing_minutes * rates[0] + usage.training_minutes * rates[1] * training.instance_count * share) / 60
    return CostLine("pipeline runs", text, usage.runs * hours, False)


Price = Callable[[Sequence[Properties], Usage], Iterable[CostLine]]


def _endpoint_configs(configs: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    for config in configs:
        for variant in config.get("ProductionVariants", ()):
            serverless = variant.get("ServerlessConfig")
            serving = (
                Serving(str(variant["InstanceType"]), int(variant["InitialInstanceCount"]), 0.0)
                if serverless is None
                else Serving(None, 0, int(serverless["MemorySizeInMB"]) / 1024)
            )
            yield estimate_endpoint("production endpoint", serving, usage.photos, usage)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _alarms(alarms: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    yield CostLine(_count(len(alarms), "alarm"), f"{METRIC_ALARM:.2f} each", len(alarms) * METRIC_ALARM, True)


def _dashboards(dashboards: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    yield CostLine(_count(len(dashboards), "dashboard"), "an account's first three are free", len(dashboards) * DASHBOARD, True)


def _functions(functions: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    # Those of the workflow run once for a photo, half a second at most; the others run a few times a month.
    gigabytes = sum(int(function.get("MemorySize", 128)) for function in functions) / 1024
    monthly = usage.photos * (gigabytes * 0.5 * LAMBDA_ARM_GB_SECOND + len(functions) * LAMBDA_REQUEST)
    yield CostLine(_count(len(functions), "function"), f"{usage.photos:,} photos, half a second in each at most", monthly, False)


def _state_machines(machines: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    transitions = 6
    monthly = usage.photos * transitions * STATE_TRANSITION * len(machines)
    yield CostLine("workflow", f"{usage.photos:,} photos, about {transitions} transitions each", monthly, False)


def _buckets(buckets: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    monthly = usage.stored_gigabytes * S3_GB_MONTH
    yield CostLine("images, artifacts, code in S3", f"{usage.stored_gigabytes:g} GB, old versions included", monthly, True)


def _logs(groups: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    gigabytes = usage.photos * 10 / 1e6
    yield CostLine("logs", f"about 10 kB a photo, {gigabytes:.2g} GB", gigabytes * LOG_GB, False)


def _pipelines(pipelines: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    minutes = usage.commits * 2 * usage.build_minutes
    yield CostLine("CodePipeline", f"{usage.commits} pushes, {minutes:g} minutes of actions", minutes * CODEPIPELINE_MINUTE, False)


def _builds(projects: Sequence[Properties], usage: Usage) -> Iterable[CostLine]:
    # Nearly all of the time is the tests', which have the largest machine.
    minutes = usage.commits * usage.build_minutes
    machines = {str(project.get("Environment", {}).get("ComputeType")) for project in projects}
    machine = max(machines, key=lambda name: CODEBUILD_MINUTE.get(name, 0.0))
    rate = CODEBUILD_MINUTE.get(machine)
    yield CostLine(
        "CodeBuild", f"{usage.commits} pushes, {minutes:g} minutes of {machine}", None if rate is None else minutes * rate, False
    )


_PRICED: Mapping[str, Price] = {
    "AWS::CloudWatch::Alarm": _alarms,
    "AWS::CloudWatch::Dashboard": _dashboards,
    "AWS::CodeBuild::Project": _builds,
    "AWS::CodePipeline::Pipeline": _pipelines,
    "AWS::Lambda::Function": _functions,
    "AWS::Logs::LogGroup": _logs,
    "AWS::S3::Bucket": _buckets,
    "AWS::SageMaker::EndpointConfig": _endpoint_configs,
    "AWS::StepFunctions::StateMachine": _state_machines,
}
