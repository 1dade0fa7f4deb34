"""What every kind of action is to the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from localcloud.codepipeline.artifacts import Artifact
from localcloud.errors import ServiceError
from localcloud.iam.principals import RoleSession

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

#: Name of the sessions in which pipelines act as their roles and their actions'.
SESSION_NAME = "CodePipeline"
#: What an action remembers of what it began; JSON, as it must survive a restart.
State = dict[str, Any]
#: What somebody tells of an action: the answer to an approval, the result of a job.
Answer = Mapping[str, Any]


class ActionFailed(Exception):
    """Indicates that an action has failed.

    Attributes:
        code: One of CodePipeline's error codes, e.g. ``JobFailed`` or ``ConfigurationError``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Override:
    """The revision that an execution was started with for one source action.

    Attributes:
        revision_type: ``COMMIT_ID``, ``S3_OBJECT_VERSION_ID`` or ``S3_OBJECT_KEY``.
        value: The revision.
        branch: The branch that was pushed, when a trigger started the execution.
    """

    revision_type: str
    value: str
    branch: str | None = None


@dataclass(frozen=True)
class Job:
    """One action of one execution, as its kind sees it.

    Attributes:
        cloud: The region.
        clients: boto3 clients by service name, as the action's role.
        role: That role.
        pipeline: The pipeline's name.
        execution_id: The execution.
        stage: The stage's name.
        action: The action's name.
        action_execution_id: This run of the action.
        configuration: The action's configuration, with its variables resolved.
        inputs: Input artifacts by name, in the declaration's order.
        outputs: Output artifacts by name, in the declaration's order: where they must be put.
        encryption: PutObject's members for encryption in the artifact store.
        source_revisions: The revision of each source action by the name of its output artifact.
        overrides: What a source action is to take instead of the newest revision.
    """

    cloud: Cloud
    clients: Callable[[str], Any]
    role: str
    pipeline: str
    execution_id: str
    stage: str
    action: str
    action_execution_id: str
    configuration: Mapping[str, str]
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Artifact]
    encryption: Mapping[str, str]
    source_revisions: Mapping[str, str]
    overrides: tuple[Override, ...] = ()

    def authorize(self, service: str, operation: str, params: dict[str, Any]) -> None:
        """Let what is not done through a client pass.

        Raises:
            ActionFailed: The action's role may not.
        """
        try:
            self.cloud.iam.authorize(RoleSession(self.role, SESSION_NAME), service, operation, params)
        except ServiceError as error:
            raise ActionFailed("PermissionError", error.message) from error

    def read(self, artifact: Artifact) -> bytes:
        """Return an artifact's bytes."""
        body: bytes = self.clients("s3").get_object(Bucket=artifact.bucket, Key=artifact.key)["Body"].read()
        return body

    def write(self, artifact: Artifact, body: bytes) -> None:
        """Put an artifact into the store."""
        self.clients("s3").put_object(Bucket=artifact.bucket, Key=artifact.key, Body=body, ContentType="application/zip", **self.encryption)


@dataclass(frozen=True)
class Revision:
    """What a source action found.

    Attributes:
        identifier: Commit or version.
        summary: Says what it is.
        created: When it was made.
        url: Where people can look at it.
    """

    identifier: str
    summary: str
    created: datetime
    url: str | None = None


@dataclass(frozen=True)
class Started:
    """An action that is under way.

    Attributes:
        state: What `Action.check` needs.
        external_id: What the other service calls it.
        url: Where people can look at it.
        summary: What it is about.
        token: For an approval: what the answer must bring.
        log_stream: ARN of a log stream.
    """

    state: State = field(default_factory=dict)
    external_id: str | None = None
    url: str | None = None
    summary: str | None = None
    token: str | None = None
    log_stream: str | None = None


@dataclass(frozen=True)
class Succeeded:
    """An action that is done.

    Attributes:
        variables: Its output variables.
        summary: What came of it.
        external_id: What the other service calls it, when that was not known at the start.
        revision: A source action's revision.
        url: Where people can look at it.
        log_stream: ARN of a log stream.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    summary: str | None = None
    external_id: str | None = None
    revision: Revision | None = None
    url: str | None = None
    log_stream: str | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of action, as https://docs.aws.amazon.com/codepipeline/latest/userguide/structure-configuration-examples.html lists them.

    Attributes:
        category: E.g. ``Source``.
        provider: E.g. ``S3``.
        required: Configuration that must be there.
        optional: Configuration that may be.
        inputs: Fewest and most input artifacts.
        outputs: Fewest and most output artifacts.
        timeout_minutes: After which the action fails (https://docs.aws.amazon.com/codepipeline/latest/userguide/limits.html).
    """

    category: str
    provider: str
    required: frozenset[str]
    optional: frozenset[str]
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    timeout_minutes: int = 60


class Action(ABC):
    """Does actions of some kinds. Has no state of its own: what one action needs is in its job and in what `start` returned."""

    kinds: ClassVar[tuple[Kind, ...]]

    def validate(self, configuration: Mapping[str, str]) -> str | None:
        """Return what is wrong with a configuration (whose variables are not resolved) beyond missing and unknown keys, or None."""
        return None

    @abstractmethod
    def start(self, job: Job) -> Started | Succeeded:
        """Begin.

        Raises:
            ActionFailed: It cannot be begun, or has failed. botocore's ClientError says the same.
        """

    def check(self, job: Job, state: State, inbox: Sequence[Answer]) -> Started | Succeeded | None:
        """Return how it ended, or None while it goes on (or a new `Started`, when there is news). Called again and again.

        Args:
            job: The action.
            state: Of what `start`, or the last call, returned.
            inbox: What the API was told about the action since it began.

        Raises:
            ActionFailed: It failed.
        """
        return None

    def stop(self, job: Job, state: State) -> None:  # noqa: B027  # most kinds have nothing to end
        """End what goes on: the action timed out or its execution was stopped with *abandon*."""
