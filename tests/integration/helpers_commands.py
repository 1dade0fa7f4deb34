"""The command line in this process, on the region of a test module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from conftest import Region

from scones.cli import cli
from scones.errors import SconesError
from scones.failures import explain
from scones.sessions import Session


@dataclass(frozen=True)
class Answer:
    """What a command wrote and how it ended: `error` is what `scones` would make a line and an exit code of."""

    stdout: str
    stderr: str
    error: BaseException | None

    @property
    def document(self) -> Any:
        """What it wrote with --json."""
        assert self.error is None, self.error
        return json.loads(self.stdout)


@pytest.fixture(scope="module", autouse=True)
def commands_environment(region: Region) -> Iterator[None]:
    """Have `--aws` reach the module's region: an endpoint URL makes the commands the ones that are typed on AWS."""
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", region.endpoint_url)
    patch.delenv("SCONES_STAGE", raising=False)
    made: dict[tuple[Any, ...], Any] = {}

    def shared(session: Session) -> None:
        boto3.Session.__init__(session)
        session._made = made

    # Each command is a process of its own when it is typed; here they share their clients, which take long to make.
    patch.setattr(Session, "__init__", shared)
    yield
    patch.undo()


def scones(*arguments: str, typed: str | None = None) -> Answer:
    """Run a command with --aws."""
    result = CliRunner().invoke(cli, [*arguments, "--aws"], input=typed, standalone_mode=False)
    error = result.exception
    if isinstance(error, Exception) and not isinstance(error, SconesError):
        error = explain(error)
        if error is None:
            assert result.exception is not None
            raise result.exception
    return Answer(result.stdout, result.stderr, error)
