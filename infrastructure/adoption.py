"""Takes what outlived an earlier platform stack into a new one: bucket and model registry stay behind when a stack is deleted by hand.

CloudFormation imports them as they are. They are imported with what makes them out only, so that the update which follows finds everything else of the
template to be new and sets it, whatever they have now.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.changes import ChangeSet, ChangeSets, Import
from infrastructure.packaging import PLATFORM_TEMPLATE
from infrastructure.templates import Template
from lambdas.deploy_inference_workflow.errors import DeploymentError
from lambdas.deploy_inference_workflow.stacks import Desired, Stack, StackState

Json = Any


@dataclass(frozen=True)
class _Kind:
    """A resource type that outlives its stack.

    Attributes:
        identifier: The schema's primary identifier, by which CloudFormation imports.
        name: The property that names it.
        fixed: Properties that cannot be set later: a change of them makes a new resource.
        find: Returns identifier and tags of the one that a name belongs to, None when there is none.
    """

    identifier: str
    name: str
    fixed: tuple[str, ...]
    find: Callable[[Any, str], tuple[str, Mapping[str, str]] | None]


class Adoption:
    """What is there of a platform whose stack is gone, and how it comes into a new stack.

    Args:
        session: a boto3 session.
        stack: the platform stack.
        project: the project's name: what it made has it as a tag.
        parameters: the template's parameters.
        role_arn: role that CloudFormation takes for it.
    """

    def __init__(self, session: Any, stack: Stack, project: str, parameters: Mapping[str, str], *, role_arn: str | None = None) -> None:
        self._session = session
        self._stack = stack
        self._change_sets = ChangeSets(session.client("cloudformation"), stack)
        self._project = project
        self._parameters = parameters
        self._role_arn = role_arn

    def found(self) -> tuple[Import, ...]:
        """Returns what a new stack would meet under its resources' names. Ask when there is no stack.

        Raises:
            DeploymentError: something is there that is not this project's.
        """
        template = Template.read(PLATFORM_TEMPLATE)
        chosen = {**self._parameters, **self._place()}
        imports = []
        for resource in template.active(chosen).values():
            kind = _KINDS.get(resource.type) if resource.holds_on else None
            if kind is None:
                continue
            name = template.properties(resource, chosen)[kind.name]
            found = kind.find(self._session, name)
            if found is None:
                continue
            identifier, tags = found
            if tags.get("project") != self._project:
                raise DeploymentError(
                    f"{resource.type} {name} already exists, and is not of this project: it lacks the tag project={self._project}."
                )
            imports.append(Import(resource.logical_id, resource.type, {kind.identifier: identifier}))
        return tuple(imports)

    def plan(self, imports: tuple[Import, ...]) -> ChangeSet:
        """Returns the change set that takes `imports` into a new stack."""
        return self._change_sets.prepare_import(self._desired(imports), imports)

    def adopt(self, state: StackState | None) -> bool:
        """Takes what is there into a new stack, when there is no stack (`state`) or what is left of one; returns whether there was anything.

        Raises:
            DeploymentError: CloudFormation could not do it; what was there is as it was.
        """
        if state is not None and not state.is_leftover:
            return False
        if state is not None and state.status != "REVIEW_IN_PROGRESS":
            self._stack.delete(state)
        imports = self.found()
        if imports:
            self._change_sets.execute(self.plan(imports))
        return bool(imports)

    def _desired(self, imports: tuple[Import, ...]) -> Desired:
        fixed = {item.logical_id: _KINDS[item.type].fixed for item in imports}
        template = Template.read(PLATFORM_TEMPLATE).only(fixed)
        parameters = {name: value for name, value in self._parameters.items() if name in template.parameters}
        return Desired({"TemplateBody": template.body()}, parameters, self._role_arn)

    def _place(self) -> dict[str, str]:
        return {
            "AWS::AccountId": self._session.client("sts").get_caller_identity()["Account"],
            "AWS::Region": self._session.client("cloudformation").meta.region_name,
        }


def _bucket(session: Any, name: str) -> tuple[str, Mapping[str, str]] | None:
    s3 = session.client("s3")
    try:
        tags = s3.get_bucket_tagging(Bucket=name)["TagSet"]
    except ClientError as error:
        code = error.response["Error"]["Code"]
        # Somebody else's, perhaps in another account: that its name is taken is CloudFormation's to say.
        if code in ("NoSuchBucket", "AccessDenied"):
            return None
        if code != "NoSuchTagSet":
            raise
        tags = []
    return name, {tag["Key"]: tag["Value"] for tag in tags}


def _group(session: Any, name: str) -> tuple[str, Mapping[str, str]] | None:
    sagemaker = session.client("sagemaker")
    try:
        arn = sagemaker.describe_model_package_group(ModelPackageGroupName=name)["ModelPackageGroupArn"]
    except ClientError as error:
        if "does not exist" in error.response["Error"].get("Message", ""):
            return None
        raise
    pages = sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
    return arn, {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}


#: By resource type. Identifiers: the primaryIdentifier in the types' schemas.
_KINDS: Mapping[str, _Kind] = {
    "AWS::S3::Bucket": _Kind("BucketName", "BucketName", ("BucketName",), _bucket),
    "AWS::SageMaker::ModelPackageGroup": _Kind(
        "ModelPackageGroupArn", "ModelPackageGroupName", ("ModelPackageGroupName", "ModelPackageGroupDescription"), _group
    ),
}
