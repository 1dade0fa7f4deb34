"""The documents of pipelines, executions and steps.

One document per thing and transition, each written whole in one transaction: after kill -9 every document is as it was before or after a write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from localcloud.database import Database

Document = dict[str, Any]


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class PipelineStore:
    """The tables.

    Pipelines: by name. Executions: by ARN. Steps: by ``<pipeline>/<execution id>/<step>``. Definitions: by SHA-256, as text. Tokens: by operation and client
    request token.
    """

    def __init__(self, database: Database) -> None:
        self.pipelines = database.table("sagemaker.pipelines")
        self.executions = database.table("sagemaker.pipeline-executions")
        self.steps = database.table("sagemaker.pipeline-steps")
        self.definitions = database.table("sagemaker.pipeline-definitions")
        self.tokens = database.table("sagemaker.pipeline-tokens")

    def keep_definition(self, text: str) -> str:
        """Store a definition's text and return its digest."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in self.definitions:
            self.definitions.put(digest, {"Text": text})
        return digest

    def definition(self, digest: str) -> str:
        """Return a stored definition's text."""
        document = self.definitions.get(digest)
        assert document is not None, "a pipeline and its executions keep their definitions"
        return str(document["Text"])

    def executions_of(self, pipeline: str) -> list[Document]:
        """Return a pipeline's executions, oldest first."""
        marker = f":pipeline/{pipeline}/execution/"
        found = [self.executions.get(key) for key in self.executions if marker in key]
        return sorted((document for document in found if document is not None), key=lambda document: document["CreationTime"])

    def put_step(self, document: Document) -> None:
        """Write a step's document."""
        self.steps.put(f"{document['Pipeline']}/{document['ExecutionId']}/{document['Name']}", document)

    def step(self, pipeline: str, execution_id: str, name: str) -> Document | None:
        """Return a step's document, None before it has started."""
        return self.steps.get(f"{pipeline}/{execution_id}/{name}")

    def steps_of(self, pipeline: str, execution_id: str) -> list[Document]:
        """Return the steps of an execution that have started, in the order in which they did."""
        prefix = f"{pipeline}/{execution_id}/"
        return sorted(self._steps(lambda key: key.startswith(prefix)), key=lambda document: document["Order"])

    def runs_of(self, pipeline: str, step: str) -> list[Document]:
        """Return every run of a step by any execution of the pipeline, newest first."""
        found = self._steps(lambda key: key.startswith(f"{pipeline}/") and key.endswith(f"/{step}"))
        return sorted(found, key=lambda document: document["StartTime"], reverse=True)

    def delete_pipeline(self, name: str) -> None:
        """Delete a pipeline with its executions, their steps, and definitions that nothing else uses."""
        for key in self.steps:
            if key.startswith(f"{name}/"):
                self.steps.delete(key)
        for document in self.executions_of(name):
            self.executions.delete(document["Arn"])
        arn = f":pipeline/{name}"
        for key in self.tokens:
            token = self.tokens.get(key)
            if token is not None and (token["Arn"].endswith(arn) or f"{arn}/execution/" in token["Arn"]):
                self.tokens.delete(key)
        self.pipelines.delete(name)
        used = {document["DefinitionDigest"] for table in (self.pipelines, self.executions) for document in table.values()}
        for digest in self.definitions:
            if digest not in used:
                self.definitions.delete(digest)

    def _steps(self, wanted: Callable[[str], bool]) -> Iterator[Document]:
        for key in self.steps:
            document = self.steps.get(key) if wanted(key) else None
            if document is not None:
                yield document
