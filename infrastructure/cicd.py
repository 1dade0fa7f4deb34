"""The delivery stack: CodePipeline and CodeBuild, on top of the platform. Its changes are shown first, and made when they are agreed to."""

from dataclasses import dataclass, fields
from typing import Any

from infrastructure.buckets import empty_bucket
from infrastructure.changes import ChangeSet, ChangeSets, ResourceChange, additions, in_the_way
from infrastructure.packaging import ROOT
from infrastructure.templates import Template, template_body
from lambdas.deploy_inference_workflow.stacks import Change, Desired, Stack, StackState

CICD_TEMPLATE = ROOT / "infrastructure" / "cicd.yaml"
CAPABILITIES = ("CAPABILITY_IAM",)


@dataclass(frozen=True)
class CicdParameters:
    """The parameters of `cicd.yaml`; each is described there."""

    project: str
    stage: str
    source: str
    repository: str
    branch: str
    connection_arn: str
    connection_provider: str
    git_hub_oidc_provider_arn: str
    test_command: str
    build_image: str
    test_compute_type: str
    artifact_bucket_name: str
    pipeline_role_arn: str
    model_package_group_name: str
    pipeline_name: str
    notification_topic_arn: str
    permissions_boundary_arn: str
    encryption_key_arn: str
    log_retention_in_days: int

    @property
    def stack_name(self) -> str:
        """The delivery stack's name, and that of its pipeline."""
        return f"{self.project}-cicd"

    def for_template(self) -> dict[str, str]:
        """Returns the parameters by their names in the template: `test_command` is `TestCommand`."""
        return {"".join(map(str.capitalize, field.name.split("_"))): str(getattr(self, field.name)) for field in fields(self)}


def desired_cicd(parameters: CicdParameters) -> Desired:
    """Returns what the delivery stack shall be."""
    return Desired(
        {"TemplateBody": template_body(CICD_TEMPLATE)},
        parameters.for_template(),
        capabilities=CAPABILITIES,
        tags={"project": parameters.project, "stage": parameters.stage},
    )


@dataclass(frozen=True)
class DeliveryPlan:
    """What a deployment of the delivery stack would do.

    Attributes:
        state: The stack as it was found.
        change_set: What waits to be executed; None when nothing would change, or when what a failed creation or deletion left is in the way.
        changes: What happens to resources.
    """

    state: StackState | None
    change_set: ChangeSet | None
    changes: tuple[ResourceChange, ...]

    @property
    def leftover(self) -> StackState | None:
        """What a failed creation or deletion left, which goes first."""
        return in_the_way(self.state)

    @property
    def changes_nothing(self) -> bool:
        """Whether the stack is as the sources say."""
        return self.change_set is None and self.leftover is None


class DeliveryStack:
    """Plans and makes the delivery stack.

    Args:
        session: a boto3 session.
        stack: the delivery stack.
        parameters: what the settings and the platform say.
    """

    def __init__(self, session: Any, stack: Stack, parameters: CicdParameters) -> None:
        self._session = session
        self._stack = stack
        self._change_sets = ChangeSets(session.client("cloudformation"), stack)
        self._parameters = parameters

    def plan(self) -> DeliveryPlan:
        """Works out what would change. The change set that it leaves must be executed (`apply`) or discarded (`discard`).

        Raises:
            DeploymentError: the stack is in a state that a person has to get it out of, or CloudFormation cannot plan the change.
        """
        state = self._stack.settle()
        self._stack.check_updatable(state)
        plan = DeliveryPlan(state, None, additions(Template.read(CICD_TEMPLATE), self._parameters.for_template()))
        if plan.leftover is not None:
            return plan
        change_set = self._change_sets.prepare(desired_cicd(self._parameters))
        return DeliveryPlan(state, change_set, () if change_set is None else change_set.changes)

    def discard(self, plan: DeliveryPlan) -> None:
        """Leaves everything as it was before `plan`."""
        if plan.change_set is not None:
            self._change_sets.discard(plan.change_set)

    def apply(self, plan: DeliveryPlan) -> Change:
        """Does what `plan` says, and waits until it is done.

        Raises:
            DeploymentError: CloudFormation could not do it, and has put back what was there before; the message has its reasons.
        """
        change_set = plan.change_set
        if plan.leftover is not None:
            self._delete(plan.leftover)
            change_set = self._change_sets.prepare(desired_cicd(self._parameters))
        if change_set is None:
            return Change.UNCHANGED
        self._change_sets.execute(change_set)
        return Change.CREATED if change_set.creates_stack else Change.UPDATED

    def _delete(self, leftover: StackState) -> None:
        """Deletes what is left of a stack, and what its bucket holds: sources and artifacts, which are made again from the repository."""
        pages = self._session.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=leftover.stack_id)
        for item in (item for page in pages for item in page["StackResourceSummaries"]):
            # What CloudFormation tried to delete is the stack's own; a namesake that kept it from being made is not.
            if item["ResourceType"] == "AWS::S3::Bucket" and item["ResourceStatus"] == "DELETE_FAILED":
                empty_bucket(self._session.client("s3"), item["PhysicalResourceId"])
        self._stack.delete(leftover)
