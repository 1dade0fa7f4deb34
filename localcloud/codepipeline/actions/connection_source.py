"""Source: CodeStarSourceConnection. The files of one commit of a repository behind a connection.

https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-CodestarConnectionSource.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode

from localcloud.codeconnections.repositories import RepositoryError
from localcloud.codepipeline.actions.action import Action, ActionFailed, Job, Kind, Revision, Started, Succeeded
from localcloud.errors import ServiceError

if TYPE_CHECKING:
    from localcloud.codeconnections.service import CodeConnectionsService

PROVIDER = "CodeStarSourceConnection"


class ConnectionSource(Action):
    """Takes a branch's newest commit, or the one that was pushed or asked for, as a zip."""

    kinds: ClassVar[tuple[Kind, ...]] = (
        Kind(
            "Source",
            PROVIDER,
            required=frozenset(("ConnectionArn", "FullRepositoryId", "BranchName")),
            optional=frozenset(("OutputArtifactFormat", "DetectChanges")),
            inputs=(0, 0),
            outputs=(1, 1),
        ),
    )

    def validate(self, configuration: Mapping[str, str]) -> str | None:
        """A full clone would need git's own credentials in the build."""
        if configuration.get("OutputArtifactFormat", "CODE_ZIP") != "CODE_ZIP":
            return f"OutputArtifactFormat {configuration['OutputArtifactFormat']} is not supported by localcloud"
        return None

    def start(self, job: Job) -> Started | Succeeded:
        """Put the commit's files into the artifact store."""
        connections: CodeConnectionsService = job.cloud.services["codeconnections"]  # type: ignore[assignment]
        arn, repository, branch = (job.configuration[name] for name in ("ConnectionArn", "FullRepositoryId", "BranchName"))
        job.authorize(arn.split(":")[2], "UseConnection", {"ConnectionArn": arn})
        try:
            provider = connections.provider(arn)
            if not connections.reaches(arn, repository):
                raise ActionFailed(
                    "ConfigurationError",
                    f"[{provider}] Unable to use Connection: {arn}. It is not available for the repository {repository}: complete the connection's "
                    "handshake (on localcloud: POST /_localcloud/connections/authorize), then retry.",
                )
        except ServiceError as error:
            raise ActionFailed("ConfigurationError", f"Unable to use Connection: {arn}. {error.message}") from error
        revision = f"refs/heads/{branch}"
        for override in job.overrides:
            revision, branch = override.value, override.branch or branch
        try:
            commit = connections.repositories.commit(repository, revision)
            archive = connections.repositories.archive(repository, commit.identifier)
        except RepositoryError as error:
            if revision.startswith("refs/heads/"):
                message = f"[{provider}] No Branch [{branch}] found for FullRepositoryName [{repository}]"
            else:
                message = f"[{provider}] No Commit [{revision}] found for FullRepositoryName [{repository}]"
            raise ActionFailed("ConfigurationError", message) from error
        job.write(next(iter(job.outputs.values())), archive)
        variables = {
            "AuthorDate": commit.author_date.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "BranchName": branch,
            "CommitId": commit.identifier,
            "CommitMessage": commit.message,
            "ConnectionArn": arn,
            "FullRepositoryName": repository,
        }
        place = urlencode({"connectionArn": arn, "referenceType": "COMMIT", "FullRepositoryId": repository, "Commit": commit.identifier})
        region = job.cloud.settings.region
        found = Revision(
            commit.identifier,
            json.dumps({"ProviderType": provider, "CommitMessage": commit.message}, ensure_ascii=False),
            commit.author_date,
            f"https://{region}.console.aws.amazon.com/codesuite/settings/connections/redirect?{place}",
        )
        return Succeeded(variables, found.summary, commit.identifier, found, found.url)
