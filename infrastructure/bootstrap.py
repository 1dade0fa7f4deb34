"""Brings the platform to an account as a person does it: the changes are shown first, and made when they are agreed to.

`deploy_platform` does the same without showing anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from infrastructure.adoption import Adoption
from infrastructure.changes import Action, ChangeSet, ChangeSets, Import, ResourceChange, additions, in_the_way
from infrastructure.deploy import (
    PlatformOutputs,
    PlatformParameters,
    asset_parameters,
    desired_data,
    desired_platform,
    existing,
    has_bucket,
    platform_data,
    platform_outputs,
)
from infrastructure.packaging import PLATFORM_TEMPLATE, Assets, missing_assets, upload_assets
from infrastructure.templates import Template
from lambdas.deploy_inference_workflow.stacks import Change, Desired, Stack, StackState


@dataclass(frozen=True)
class Plan:
    """What a bootstrap would do.

    Attributes:
        state: The stack as it was found.
        first: The change set that waits to be executed; None when the stack stays as it is, or a leftover is in its way.
        changes: What the first step does to resources.
        later: What the steps after it add where there is no platform yet, once what it refers to is in the bucket.
        uploads: Keys of the files that the bucket lacks.
    """

    state: StackState | None
    first: ChangeSet | None
    changes: tuple[ResourceChange, ...]
    later: tuple[ResourceChange, ...]
    uploads: tuple[str, ...]

    @property
    def is_fresh(self) -> bool:
        """Whether there is no platform yet, so that it takes several steps."""
        return not has_bucket(self.state)

    @property
    def adopts(self) -> bool:
        """Whether the first step takes over what outlived an earlier stack."""
        return any(change.action is Action.IMPORT for change in self.changes)

    @property
    def leftover(self) -> StackState | None:
        """What a failed creation or deletion left, which goes first."""
        return in_the_way(self.state)

    @property
    def changes_nothing(self) -> bool:
        """Whether everything is as the sources say."""
        return self.first is None and not self.is_fresh and not self.uploads


class Bootstrap:
    """Plans and makes the platform stack.

    Args:
        session: a boto3 session.
        stack: the platform stack.
        parameters: what an operator chose.
        assets: what the templates refer to.
        role_arn: role that CloudFormation takes for it; without one, the caller's own rights count, or the role that it took last time.
        revert_drift: put back what was changed or deleted by hand.
    """

    def __init__(
        self,
        session: Any,
        stack: Stack,
        parameters: PlatformParameters,
        assets: Assets,
        *,
        role_arn: str | None = None,
        revert_drift: bool = False,
    ) -> None:
        self._s3 = session.client("s3")
        self._stack = stack
        self._change_sets = ChangeSets(session.client("cloudformation"), stack)
        self._parameters = parameters
        self._assets = assets
        self._role_arn = role_arn
        self._revert_drift = revert_drift
        self._adoption = Adoption(session, stack, parameters.project, parameters.stage, parameters.for_template(), role_arn=role_arn)

    def plan(self) -> Plan:
        """Works out what would change. The change set that it leaves must be executed (`apply`) or discarded (`discard`).

        Raises:
            DeploymentError: the stack is in a state that a person has to get it out of, or CloudFormation cannot plan the change.
        """
        assets = self._assets
        state = self._stack.settle()
        self._stack.check_updatable(state)
        if state is not None and has_bucket(state):
            uploads = missing_assets(self._s3, state.outputs["ArtifactBucketName"], assets)
            change_set = self._change_sets.prepare(self._whole(state), revert_drift=self._revert_drift)
            changes = () if change_set is None else change_set.changes
            return Plan(state, change_set, changes, (), tuple(asset.key for asset in uploads))
        chosen = self._parameters.for_template()
        plan = Plan(state, None, additions(platform_data(), chosen), (), tuple(asset.key for asset in assets))
        imports = self._adoption.found() if state is None or state.is_leftover else ()
        if plan.leftover is not None and imports:
            plan = replace(plan, changes=tuple(map(_imported, imports)))
        if plan.leftover is None:
            first = self._adoption.plan(imports) if imports else self._change_sets.prepare(self._data())
            plan = replace(plan, first=first, changes=plan.changes if first is None else first.changes)
        known = frozenset(change.logical_id for change in plan.changes)
        return replace(plan, later=additions(Template.read(PLATFORM_TEMPLATE), chosen | asset_parameters(assets), known))

    def discard(self, plan: Plan) -> None:
        """Leaves everything as it was before `plan`."""
        if plan.first is not None:
            self._change_sets.discard(plan.first)

    def apply(self, plan: Plan, on_progress: Callable[[str], None] = lambda line: None) -> PlatformOutputs:
        """Does what `plan` says, and waits until it is done.

        Raises:
            DeploymentError: CloudFormation could not do it, and has put back what was there before; the message has its reasons.
        """
        assets = self._assets
        change = Change.UNCHANGED
        if plan.is_fresh:
            self._make_bucket(plan)
            change = Change.CREATED
        uploaded = self._upload(assets, on_progress)
        second = self._change_sets.prepare(self._whole(existing(self._stack.describe(), self._stack.name))) if plan.is_fresh else plan.first
        if second is not None:
            self._change_sets.execute(second)
            change = Change.CREATED if plan.is_fresh else Change.UPDATED
        return platform_outputs(existing(self._stack.describe(), self._stack.name), change, uploaded)

    def _data(self) -> Desired:
        return replace(desired_data(self._parameters), role_arn=self._role_arn)

    def _whole(self, state: StackState) -> Desired:
        bucket = state.outputs["ArtifactBucketName"]
        return replace(desired_platform(self._parameters, self._assets, self._s3, bucket), role_arn=self._role_arn)

    def _make_bucket(self, plan: Plan) -> None:
        if plan.leftover is not None:
            self._adoption.adopt(plan.leftover)
        elif plan.first is not None:
            self._change_sets.execute(plan.first)
        if plan.leftover is not None or plan.adopts:
            rest = self._change_sets.prepare(self._data())
            if rest is not None:
                self._change_sets.execute(rest)

    def _upload(self, assets: Assets, on_progress: Callable[[str], None]) -> tuple[str, ...]:
        bucket = existing(self._stack.describe(), self._stack.name).outputs["ArtifactBucketName"]
        uploaded = upload_assets(self._s3, bucket, assets)
        on_progress(f"{len(uploaded)} of {len(list(assets))} files uploaded to s3://{bucket}/code/")
        return tuple(uploaded)


def _imported(item: Import) -> ResourceChange:
    """What an import will be, before CloudFormation can be asked: what is left of the old stack goes first."""
    (identifier,) = item.identifier.values()
    return ResourceChange(Action.IMPORT, item.logical_id, item.type, identifier)
