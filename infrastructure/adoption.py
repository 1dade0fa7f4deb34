"""Takes what outlived an earlier platform stack into a new one: bucket and model registry stay behind when a stack is deleted by hand.

CloudFormation imports them as they are. They are imported with what makes them out only, so that the update which follows finds everything else that the
template says of them to be new and sets it, whatever they have now. A bucket's policy is a resource of its own, which went with the old stack.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infrastructure.changes import ChangeSet, ChangeSets, Import, in_the_way
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
        find: Takes a boto3 session, the account and a name; returns identifier and tags of what has that name, None when there is none.
    """

    identifier: str
    name: str
    fixed: tuple[str, ...]
    find: Callable[[Any, str, str], tuple[str, Mapping[str, str]] | None]


class Adoption:
    """What is there of a platform whose stack is gone, and how it comes into a new stack.

    Args:
        session: a boto3 session.
        stack: the platform stack.
        project: the project's name; what the project made has it as a tag.
        stage: its stage; a tag, too.
        parameters: the template's parameters.
        role_arn: role that CloudFormation takes for it.
    """

    def __init__(
        self, session: Any, stack: Stack, project: str, stage: str, parameters: Mapping[str, str], *, role_arn: str | None = None
    ) -> None:
        self._session = session
        self._stack = stack
        self._change_sets = ChangeSets(session.client("cloudformation"), stack)
        self._tags = {"project": project, "stage": stage}
        self._parameters = parameters
        self._role_arn = role_arn

    def found(self) -> tuple[Import, ...]:
        """Returns what a new stack would meet under its resources' names. Ask when there is no stack, or what is left of one.

        Raises:
            DeploymentError: something is there that is not this project's.
        """
        template = Template.read(PLATFORM_TEMPLATE)
        place = self._place()
        chosen = {**self._parameters, **place}
        imports = []
        for resource in template.active(chosen).values():
            kind = _KINDS.get(resource.type) if resource.holds_on else None
            if kind is None:
                continue
            name = template.properties(resource, chosen)[kind.name]
            found = kind.find(self._session, place["AWS::AccountId"], name)
            if found is None:
                continue
            identifier, tags = found
            for tag, wanted in self._tags.items():
                if tags.get(tag) != wanted:
                    has = f"its tag {tag} is {tags[tag]}" if tag in tags else f"it has no tag {tag}"
                    ours = " ".join(f"{key}={value}" for key, value in self._tags.items())
                    raise DeploymentError(f"{resource.type} {name} already exists, and is not ours ({ours}): {has}.")
            imports.append(Import(resource.logical_id, resource.type, {kind.identifier: identifier}))
        return tuple(imports)

    def plan(self, imports: tuple[Import, ...]) -> ChangeSet:
        """Returns the change set that takes `imports` into a new stack.

        Raises:
            DeploymentError: a bucket has got another policy meanwhile, which the new stack's could not take the place of.
        """
        for item in imports:
            if item.type == "AWS::S3::Bucket":
                self._check_policy(item.identifier["BucketName"])
        return self._change_sets.prepare_import(self._desired(imports), imports)

    def adopt(self, state: StackState | None) -> bool:
        """Takes what is there into a new stack, when there is no stack (`state`) or what is left of one; returns whether there was anything.

        Raises:
            DeploymentError: CloudFormation could not do it; what was there is as it was.
        """
        if state is not None and not state.is_leftover:
            return False
        if (rest := in_the_way(state)) is not None:
            self._stack.delete(rest)
        imports = self.found()
        if imports:
            self._change_sets.execute(self.plan(imports))
        return bool(imports)

    def _check_policy(self, bucket: str) -> None:
        try:
            self._session.client("s3").get_bucket_policy(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchBucketPolicy":
                raise
            return
        raise DeploymentError(
            f"The bucket {bucket} outlived its stack, and has got a policy that is none of a stack's: CloudFormation would not replace it. Look at it: "
            f"aws s3api get-bucket-policy --bucket {bucket}. Then remove it (aws s3api delete-bucket-policy --bucket {bucket}), and do the same again."
        )

    def _desired(self, imports: tuple[Import, ...]) -> Desired:
        fixed = {item.logical_id: _KINDS[item.type].fixed for item in imports}
        template = Template.read(PLATFORM_TEMPLATE).only(fixed)
        return Desired({"TemplateBody": template.body()}, template.declared(self._parameters), self._role_arn)

    def _place(self) -> dict[str, str]:
        return {
            "AWS::AccountId": self._session.client("sts").get_caller_identity()["Account"],
            "AWS::Region": self._session.client("cloudformation").meta.region_name,
        }


def _bucket(session: Any, account: str, name: str) -> tuple[str, Mapping[str, str]] | None:
    s3 = session.client("s3")
    try:
        # Buckets' names are everybody's: without the account, one that somebody else has made and tagged would do.
        tags = s3.get_bucket_tagging(Bucket=name, ExpectedBucketOwner=account)["TagSet"]
    except ClientError as error:
        code = error.response["Error"]["Code"]
        # Somebody else's, perhaps in another account: that its name is taken is CloudFormation's to say.
        if code in ("NoSuchBucket", "AccessDenied"):
            return None
        if code != "NoSuchTagSet":
            raise
        tags = []
    return name, {tag["Key"]: tag["Value"] for tag in tags}


def _group(session: Any, account: str, name: str) -> tuple[str, Mapping[str, str]] | None:
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
