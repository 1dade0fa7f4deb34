"""Takes the system out of an account: what runs goes, what holds data stays unless it is told to go too.

Each step looks at what is there and goes on from there, so that a removal which broke off is done by doing it again. A stack that holds
data is not deleted but brought down to that part of itself: it stays the owner of the data, and the next bootstrap adds the rest again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.buckets import empty_bucket
from infrastructure.templates import Template
from lambdas.deploy_inference_workflow.errors import DeploymentError, DeploymentInProgressError
from lambdas.deploy_inference_workflow.retirement import Hosting
from lambdas.deploy_inference_workflow.retirement import is_gone as _is_gone
from lambdas.deploy_inference_workflow.stacks import Desired, Stack, StackState

#: Marks a stack whose data shall go; CloudFormation takes a new DeletionPolicy only together with another change.
_MARK = {"data": "to-be-deleted"}
_GROUP = "AWS::SageMaker::ModelPackageGroup"
_POLL_SECONDS = 0.1
_LAST_POLL_SECONDS = 10.0

Json = Any


@dataclass(frozen=True)
class Names:
    """What the project's things are called."""

    project: str
    platform_stack: str
    pipeline: str
    model_package_group: str
    staging_endpoint: str

    @property
    def inference_stack(self) -> str:
        """The stack of production."""
        return f"{self.project}-inference"

    @property
    def stacks(self) -> tuple[str, ...]:
        """All stacks, in the order in which they go: what changes others first, what others stand on last."""
        return f"{self.project}-cicd", self.inference_stack, self.platform_stack


@dataclass(frozen=True)
class StackInventory:
    """A stack, and what of it holds data (`kept`); `buckets` are its S3 buckets by logical id."""

    name: str
    state: StackState
    template: Template
    resources: Mapping[str, str]
    kept: frozenset[str]
    buckets: Mapping[str, str]

    @property
    def goes(self) -> tuple[str, ...]:
        """Logical ids of what goes in any case."""
        return tuple(sorted(self.resources.keys() - self.kept))

    @property
    def holds_only_data(self) -> bool:
        """Whether a removal has brought the stack down to its data already."""
        return bool(self.kept) and not self.goes


@dataclass(frozen=True)
class Contents:
    """What a bucket holds, old versions and delete markers included."""

    bucket: str
    versions: int
    size: int


@dataclass(frozen=True)
class Inventory:
    """What is in the account."""

    names: Names
    stacks: tuple[StackInventory, ...]
    staging_endpoint: str | None
    endpoint_configs: tuple[str, ...]
    models: tuple[str, ...]
    pipeline: str | None
    running: tuple[str, ...]
    contents: tuple[Contents, ...]
    model_versions: tuple[str, ...]
    log_groups: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left at all."""
        return not (self.stacks or self.has_staging or self.pipeline or self.log_groups)

    @property
    def has_staging(self) -> bool:
        """Whether runs left something on the staging endpoint."""
        return self.staging_endpoint is not None or bool(self.endpoint_configs or self.models)

    @property
    def holds_only_data(self) -> bool:
        """Whether only what is kept is left."""
        return not self.has_staging and all(stack.holds_only_data for stack in self.stacks)


@dataclass
class Removal:
    """Removes the system.

    Args:
        session: a boto3 session.
        names: what things are called.
        seconds: for everything together.
        say: is told, in short lines, what is being done.
    """

    session: Any
    names: Names
    seconds: float
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.seconds

    def inventory(self) -> Inventory:
        """Looks at what is there. Changes nothing."""
        stacks = tuple(stack for stack in map(self._stack_inventory, self.names.stacks) if stack is not None)
        executions = self._executions()
        configs, models = self._staging(executions.keys())
        kept = {bucket for stack in stacks for name, bucket in stack.buckets.items() if name in stack.kept}
        groups = [f"/aws/sagemaker/Endpoints/{endpoint}" for endpoint in (self.names.staging_endpoint, f"{self.names.project}-production")]
        return Inventory(
            self.names,
            stacks,
            self.names.staging_endpoint if self._endpoint_status() is not None else None,
            configs,
            models,
            self.names.pipeline if self._has_pipeline() else None,
            tuple(arn for arn, status in executions.items() if status in ("Executing", "Stopping")),
            tuple(self._contents(bucket) for bucket in sorted(kept)),
            tuple(self._model_versions()) if any(_GROUP in stack.resources.values() for stack in stacks) else (),
            tuple(group for group in groups if self._log_group_exists(group)),
        )

    def run(self, inventory: Inventory, *, delete_data: bool) -> None:
        """Removes what is in the inventory; what holds data only with `delete_data`.

        Raises:
            DeploymentError: something cannot be removed. What went is gone; doing it again goes on from there.
        """
        self.check(inventory, delete_data=delete_data)
        by_name = {stack.name: stack for stack in inventory.stacks}
        cicd, inference, platform = (by_name.get(name) for name in self.names.stacks)
        for stack in (cicd, inference):
            if stack is not None:
                self._remove_stack(stack, delete_data, self._role(inventory, stack))
        self._remove_staging(inventory)
        # A decision that was on its way may have begun to deploy production again.
        again = self._stack_inventory(self.names.inference_stack)
        if again is not None and not again.holds_only_data:
            self._remove_stack(again, delete_data, self._role(inventory, again))
        if delete_data:
            self._remove_history(inventory)
        if platform is not None:
            self._remove_stack(platform, delete_data, None)

    def check(self, inventory: Inventory, *, delete_data: bool) -> None:
        """Refuses, before anything is gone, what could not be done to its end: `run` does it, and who only plans a removal.

        Raises:
            DeploymentError: a stack that would go is protected against deletion; the role that takes production away is gone; or a stack that stays is in a
                state that a person has to get it out of.
        """
        _check_protection(inventory, delete_data=delete_data)
        self._check_role(inventory)
        for found in inventory.stacks:
            if found.kept:
                self._stack(found.name).check_updatable(found.state)

    def _check_role(self, inventory: Inventory) -> None:
        for stack in inventory.stacks:
            if stack.name == self.names.inference_stack and stack.state.role_arn and self._role(inventory, stack) is None:
                raise DeploymentError(
                    f"The stack {self.names.platform_stack} is gone, and with it the role that takes the stack {stack.name} away; nothing was removed. "
                    "Bring it back (scones aws bootstrap), then do the same again."
                )

    def _role(self, inventory: Inventory, stack: StackInventory) -> str | None:
        """The role with which a stack is deleted: for production the platform's, as it is now; else the one that it was last changed with."""
        platform = next((found for found in inventory.stacks if found.name == self.names.platform_stack), None)
        if stack.name == self.names.inference_stack and platform is not None and "DeploymentRoleArn" in platform.state.outputs:
            return platform.state.outputs["DeploymentRoleArn"]
        role = stack.state.role_arn
        if role is not None:
            try:
                self.session.client("iam").get_role(RoleName=role.rpartition("/")[2])
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchEntity":
                    raise
                return None
        return role

    # --- stacks -----------------------------------------------------------------------------------------------------------------------------

    def _stack_inventory(self, name: str) -> StackInventory | None:
        state = self._stack(name).settle()
        if state is None:
            return None
        template = self._template(state)
        resources: dict[str, str] = {}
        buckets: dict[str, str] = {}
        for page in self.session.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=state.stack_id):
            for item in page["StackResourceSummaries"]:
                # What could not be made is perhaps a namesake's.
                if item["ResourceStatus"] in ("CREATE_FAILED", "DELETE_COMPLETE") or not item.get("PhysicalResourceId"):
                    continue
                resources[item["LogicalResourceId"]] = item["ResourceType"]
                if item["ResourceType"] == "AWS::S3::Bucket":
                    buckets[item["LogicalResourceId"]] = item["PhysicalResourceId"]
        kept = frozenset(template.what_holds_data().resources) & resources.keys() if template is not None else frozenset()
        return StackInventory(name, state, template or Template({"Resources": {}}), resources, kept, buckets)

    def _template(self, state: StackState) -> Template | None:
        if state.status == "REVIEW_IN_PROGRESS":
            return None
        body = self.session.client("cloudformation").get_template(StackName=state.stack_id)["TemplateBody"]
        return Template.parse(body) if isinstance(body, str) else Template(body)

    def _remove_stack(self, found: StackInventory, delete_data: bool, role_arn: str | None) -> None:
        stack = self._stack(found.name)
        state = stack.settle()
        if state is None:
            return
        if found.kept and not state.is_leftover and (delete_data or not found.holds_only_data):
            stack.check_updatable(state)
            self.say(f"stack {found.name}: everything goes but {', '.join(sorted(found.kept))}")
            stack.apply(lambda now: None if now is None else self._data_only(found, now, retained=not delete_data))
        if found.kept and not delete_data:
            return
        for bucket in found.buckets.values():
            self.say(f"bucket {bucket}: {empty_bucket(self.session.client('s3'), bucket)} objects and versions deleted")
        if delete_data and _GROUP in found.resources.values():
            for arn in list(self._model_versions()):
                self.session.client("sagemaker").delete_model_package(ModelPackageName=arn)
        state = stack.settle()
        if state is not None:
            self.say(f"stack {found.name}: deleting it")
            stack.delete(state, role_arn)

    def _data_only(self, found: StackInventory, state: StackState, *, retained: bool) -> Desired:
        part = found.template.what_holds_data(retained=retained)
        response = self.session.client("cloudformation").describe_stacks(StackName=state.stack_id)["Stacks"][0]
        tags = {tag["Key"]: tag["Value"] for tag in response.get("Tags", ())}
        return Desired(
            {"TemplateBody": part.body()},
            part.declared(state.parameters),
            tags=tags if retained else tags | _MARK,
        )

    # --- what runs left ---------------------------------------------------------------------------------------------------------------------

    def _remove_staging(self, inventory: Inventory) -> None:
        sagemaker = self.session.client("sagemaker")
        if inventory.staging_endpoint is not None:
            self.say(f"endpoint {inventory.staging_endpoint}: deleting it")
            self._delete_endpoint()
        for config in inventory.endpoint_configs:
            _unless_gone(sagemaker.delete_endpoint_config, EndpointConfigName=config)
        for model in inventory.models:
            _unless_gone(sagemaker.delete_model, ModelName=model)
        if inventory.endpoint_configs or inventory.models:
            self.say(
                f"{len(inventory.endpoint_configs)} endpoint configurations and {len(inventory.models)} models of runs and earlier deployments deleted"
            )

    def _delete_endpoint(self) -> None:
        sagemaker, name = self.session.client("sagemaker"), self.names.staging_endpoint
        asked = False
        pause = _POLL_SECONDS
        while (status := self._endpoint_status()) is not None:
            if not asked and status not in ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"):
                _unless_gone(sagemaker.delete_endpoint, EndpointName=name)
                asked = True
                continue
            if time.monotonic() + pause > self._deadline:
                raise DeploymentInProgressError(f"The endpoint {name} is still {status}. Do the same again later.")
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_POLL_SECONDS)

    def _endpoint_status(self) -> str | None:
        try:
            return str(self.session.client("sagemaker").describe_endpoint(EndpointName=self.names.staging_endpoint)["EndpointStatus"])
        except ClientError as error:
            if _is_gone(error):
                return None
            raise

    def _staging(self, executions: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Configurations of the staging endpoint, those that production had before, and the models in them; and models of executions that got no further.

        Other pipelines of the account name their models `pipelines-...` too, so that a name is no sign of whose it is.
        """
        sagemaker, endpoint = self.session.client("sagemaker"), self.names.staging_endpoint
        pages = sagemaker.get_paginator("list_endpoint_configs").paginate(NameContains=f"{endpoint}-")
        configs = [item["EndpointConfigName"] for page in pages for item in page["EndpointConfigs"]]
        configs = [name for name in configs if name.startswith(f"{endpoint}-")]
        models: set[str] = set()
        for name in configs:
            described = sagemaker.describe_endpoint_config(EndpointConfigName=name)
            models |= {variant["ModelName"] for variant in described["ProductionVariants"] if variant.get("ModelName")}
        hosting = Hosting(sagemaker, self.names.project)
        # What the stack has now goes with the stack.
        used = hosting.in_use()
        before = [config for config in hosting.configs() if config.package is not None and config.name not in used.configs]
        models |= {model for config in before for model in config.models} - used.models
        ids = {arn.rpartition("/")[2] for arn in executions} | {name.removeprefix(f"{endpoint}-") for name in configs}
        pages = sagemaker.get_paginator("list_models").paginate(NameContains="pipelines-")
        for name in (item["ModelName"] for page in pages for item in page["Models"]):
            if any(name.startswith(f"pipelines-{identifier}-") for identifier in ids):
                models.add(name)
        return tuple(sorted([*configs, *(config.name for config in before)])), tuple(sorted(models))

    # --- data and history -------------------------------------------------------------------------------------------------------------------

    def _remove_history(self, inventory: Inventory) -> None:
        if inventory.pipeline is not None:
            self.say(f"pipeline {inventory.pipeline}: deleting it with its history")
            _unless_gone(self.session.client("sagemaker").delete_pipeline, PipelineName=inventory.pipeline)
        for group in inventory.log_groups:
            _unless_gone(self.session.client("logs").delete_log_group, logGroupName=group)

    def _executions(self) -> dict[str, str]:
        """The pipeline's executions and their status."""
        try:
            pages = self.session.client("sagemaker").get_paginator("list_pipeline_executions").paginate(PipelineName=self.names.pipeline)
            return {
                item["PipelineExecutionArn"]: item["PipelineExecutionStatus"]
                for page in pages
                for item in page["PipelineExecutionSummaries"]
            }
        except ClientError as error:
            if _is_gone(error):
                return {}
            raise

    def _has_pipeline(self) -> bool:
        try:
            self.session.client("sagemaker").describe_pipeline(PipelineName=self.names.pipeline)
        except ClientError as error:
            if _is_gone(error):
                return False
            raise
        return True

    def _model_versions(self) -> Iterator[str]:
        pages = (
            self.session.client("sagemaker")
            .get_paginator("list_model_packages")
            .paginate(ModelPackageGroupName=self.names.model_package_group)
        )
        try:
            for page in pages:
                yield from (item["ModelPackageArn"] for item in page["ModelPackageSummaryList"])
        except ClientError as error:
            if not _is_gone(error):
                raise

    def _log_group_exists(self, name: str) -> bool:
        groups = self.session.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        return any(group["logGroupName"] == name for group in groups)

    def _contents(self, bucket: str) -> Contents:
        versions = size = 0
        try:
            for page in self.session.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
                versions += len(page.get("Versions", ())) + len(page.get("DeleteMarkers", ()))
                size += sum(item["Size"] for item in page.get("Versions", ()))
        except ClientError as error:
            if not _is_gone(error):
                raise
        return Contents(bucket, versions, size)

    def _stack(self, name: str) -> Stack:
        return Stack(
            self.session.client("cloudformation"),
            name,
            lambda: self._deadline - time.monotonic(),
            on_status=_once(lambda status: self.say(f"stack {name}: {status}")),
        )


def _check_protection(inventory: Inventory, *, delete_data: bool) -> None:
    for stack in inventory.stacks:
        if stack.state.protected and (delete_data or not stack.kept):
            raise DeploymentError(
                f"The stack {stack.name} is protected against deletion; nothing was removed. End that first: "
                f"aws cloudformation update-termination-protection --no-enable-termination-protection --stack-name {stack.name}"
            )


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    last = ""

    def changed(status: str) -> None:
        nonlocal last
        if status != last:
            last = status
            say(status)

    return changed


def _unless_gone(request: Callable[..., Json], **arguments: str) -> None:
    try:
        request(**arguments)
    except ClientError as error:
        if not _is_gone(error):
            raise
