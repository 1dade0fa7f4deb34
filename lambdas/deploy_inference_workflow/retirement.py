"""What deployments and pipeline executions leave behind, taken away after a while: versions of the functions, models and endpoint configurations.

Kept are what serves, the last few before it, whatever any endpoint of the account uses, and everything that does not carry the project's tag.
Nothing is found by its name alone: CloudFormation makes up the names of models and endpoint configurations.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

# Tags of the project's models and endpoint configurations; the last two are on production's only (infrastructure/inference.yaml).
PROJECT_TAG = "project"
ENDPOINT_TAG = "endpoint"
PACKAGE_TAG = "model-package"
# An execution of the pipeline makes the configuration before its endpoint uses it.
STAGING_REST = timedelta(hours=1)

_VERSION = "AWS::Lambda::Version"


class OutOfTimeError(Exception):
    """Indicates that the function's time is nearly over; the next deployment goes on."""


@dataclass(frozen=True)
class EndpointConfig:
    """An endpoint configuration of the project; `package` is the model version that it serves in production, None for staging's."""

    name: str
    created_at: datetime
    models: tuple[str, ...]
    package: str | None


@dataclass(frozen=True)
class InUse:
    """What the account's endpoints use or are about to: names of endpoint configurations, and of the models in them."""

    configs: frozenset[str]
    models: frozenset[str]


class Hosting:
    """Reads what is hosted. `client` is a boto3 SageMaker client; `check_time` raises when there is no time to go on."""

    def __init__(self, client: Any, project: str, check_time: Callable[[], None] = lambda: None) -> None:
        self._client = client
        self._project = project
        self._check_time = check_time

    def configs(self) -> list[EndpointConfig]:
        """Returns the project's endpoint configurations, newest first: production's, and staging's by tag and name."""
        found = []
        pages = self._client.get_paginator("list_endpoint_configs").paginate(SortBy="CreationTime", SortOrder="Descending")
        for item in (item for page in pages for item in page["EndpointConfigs"]):
            name = item["EndpointConfigName"]
            tags = self.tags(item["EndpointConfigArn"])
            production = tags.get(ENDPOINT_TAG) == f"{self._project}-production"
            if tags.get(PROJECT_TAG) == self._project and (production or name.startswith(f"{self._project}-")):
                package = tags.get(PACKAGE_TAG, "") if production else None
                found.append(EndpointConfig(name, item["CreationTime"], self._models(name), package))
        return found

    def in_use(self) -> InUse:
        """Returns what the account's endpoints use, also those of others: they may have been made with one of ours."""
        configs: set[str] = set()
        pages = self._client.get_paginator("list_endpoints").paginate()
        for item in (item for page in pages for item in page["Endpoints"]):
            self._check_time()
            described = _unless_gone(self._client.describe_endpoint, EndpointName=item["EndpointName"])
            for holder in (described, (described or {}).get("PendingDeploymentSummary")):
                # Endpoints of inference components have none.
                if holder and holder.get("EndpointConfigName"):
                    configs.add(holder["EndpointConfigName"])
        return InUse(frozenset(configs), frozenset(model for config in configs for model in self._models(config)))

    def tags(self, arn: str) -> dict[str, str]:
        """Returns a resource's tags."""
        self._check_time()
        return {tag["Key"]: tag["Value"] for tag in (_unless_gone(self._client.list_tags, ResourceArn=arn) or {}).get("Tags", [])}

    def is_ours(self, model: str) -> bool:
        """Whether a model exists and carries the project's tag."""
        described = _unless_gone(self._client.describe_model, ModelName=model)
        return described is not None and self.tags(described["ModelArn"]).get(PROJECT_TAG) == self._project

    def _models(self, config: str) -> tuple[str, ...]:
        self._check_time()
        described = _unless_gone(self._client.describe_endpoint_config, EndpointConfigName=config) or {}
        variants = [*described.get("ProductionVariants", ()), *described.get("ShadowProductionVariants", ())]
        return tuple(dict.fromkeys(variant["ModelName"] for variant in variants if variant.get("ModelName")))


@dataclass
class Retired:
    """What was taken away: names, or ARNs of functions' versions; `failures` says what could not be."""

    configs: list[str]
    models: list[str]
    functions: list[str]
    failures: list[str]

    @classmethod
    def nothing(cls) -> "Retired":
        """Returns what a look at the account begins with."""
        return cls([], [], [], [])


@dataclass(frozen=True)
class Retirement:
    """Takes away what is no longer kept.

    Args:
        sagemaker, functions, cloudformation: boto3 clients; `functions` is Lambda's.
        project: whose things.
        stack_name: the inference stack.
        kept: how many versions of each before the one that serves stay.
        check_time: raises OutOfTimeError when there is no time to go on.
        now: returns the time.
    """

    sagemaker: Any
    functions: Any
    cloudformation: Any
    project: str
    stack_name: str
    kept: int
    check_time: Callable[[], None] = lambda: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self) -> Retired:
        """Takes away what is no longer kept. What cannot be taken away is in `failures`, and does not keep the rest from going.

        Raises:
            ClientError: what there is cannot be read; nothing more is taken away then.
            OutOfTimeError: there is no time to go on.
        """
        retired = Retired.nothing()
        self._retire_functions(retired)
        hosting = Hosting(self.sagemaker, self.project, self.check_time)
        # In this order: what an endpoint begins to use meanwhile is among the newest, which stay.
        configs = hosting.configs()
        used = hosting.in_use()
        gone = [*self._production(configs, used), *self._staging(configs, used)]
        models = {model for config in gone for model in config.models}
        models -= used.models
        models -= {model for config in configs if config not in gone for model in config.models}
        for config in gone:
            if self._delete(retired, config.name, self.sagemaker.delete_endpoint_config, EndpointConfigName=config.name):
                retired.configs.append(config.name)
        for model in sorted(models):
            if hosting.is_ours(model) and self._delete(retired, model, self.sagemaker.delete_model, ModelName=model):
                retired.models.append(model)
        return retired

    def _production(self, configs: list[EndpointConfig], used: InUse) -> Iterator[EndpointConfig]:
        """What production used before the last ones. Without one that serves nobody knows what was before it, and all stay."""
        production = [config for config in configs if config.package is not None]
        serving = next((number for number, config in enumerate(production) if config.name in used.configs), len(production))
        before = [config for config in production[serving + 1 :] if config.name not in used.configs]
        yield from before[self.kept :]

    def _staging(self, configs: list[EndpointConfig], used: InUse) -> Iterator[EndpointConfig]:
        """What executions made before the last ones."""
        unused = [config for config in configs if config.package is None and config.name not in used.configs]
        for config in unused[self.kept :]:
            if self.now() - config.created_at > STAGING_REST:
                yield config

    def _retire_functions(self, retired: Retired) -> None:
        """Versions of the functions before those that the stack has: of a function whose version the stack does not know, all stay."""
        resources = self.cloudformation.describe_stack_resources(StackName=self.stack_name)["StackResources"]
        for resource in resources:
            if resource["ResourceType"] != _VERSION or not resource.get("PhysicalResourceId"):
                continue
            function, _, serving = resource["PhysicalResourceId"].rpartition(":")
            if not serving.isdigit():
                continue
            older = [number for number in self._versions(function) if number < int(serving)]
            for number in sorted(older, reverse=True)[self.kept :]:
                # By its own ARN: the role may delete what has a number, and no function.
                version = f"{function}:{number}"
                if self._delete(retired, version, self.functions.delete_function, FunctionName=version):
                    retired.functions.append(version)

    def _versions(self, function: str) -> Iterable[int]:
        self.check_time()
        pages = self.functions.get_paginator("list_versions_by_function").paginate(FunctionName=function)
        return [int(item["Version"]) for page in pages for item in page["Versions"] if item["Version"].isdigit()]

    def _delete(self, retired: Retired, what: str, request: Callable[..., Any], **arguments: str) -> bool:
        self.check_time()
        try:
            request(**arguments)
        except ClientError as error:
            if is_gone(error):
                return False
            retired.failures.append(f"{what}: {error}")
            return False
        return True


def _unless_gone(request: Callable[..., Any], **arguments: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = request(**arguments)
    except ClientError as error:
        if is_gone(error):
            return None
        raise
    return answer


def is_gone(error: ClientError) -> bool:
    """Whether AWS says that something is not there; SageMaker says it of most things in the words of its messages only."""
    details = error.response["Error"]
    if details["Code"] in ("ResourceNotFound", "ResourceNotFoundException", "NoSuchBucket", "404"):
        return True
    message = details.get("Message", "")
    return details["Code"] == "ValidationException" and any(text in message for text in ("Could not find", "does not exist", "not found"))
