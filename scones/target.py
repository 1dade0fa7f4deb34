"""What a command talks to: localcloud (the default, started in the background when none runs) or AWS (--aws)."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from localcloud.isolation import isolate
from scones import local, project
from scones.console import Output
from scones.errors import ExitCode, SconesError

if TYPE_CHECKING:
    import boto3

# localcloud checks no signature; botocore only needs something to sign with.
_LOCAL_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "ASIALOCALCLOUD000000", "AWS_SECRET_ACCESS_KEY": "localcloud"}
#: The region that localcloud plays.
LOCAL_REGION = "us-east-1"


@dataclass(frozen=True)
class Target:
    """An account and a region to work in.

    Attributes:
        kind: "localcloud" or "aws".
        state_dir: The clone's state folder.
        endpoint_url: localcloud's URL; None for AWS.
    """

    kind: Literal["localcloud", "aws"]
    state_dir: Path
    endpoint_url: str | None

    @functools.cached_property
    def session(self) -> boto3.Session:
        """Return the boto3 session whose clients go to the target. One for all: each would read AWS's service models anew."""
        from scones.sessions import Session

        return Session()

    def client(self, service: str) -> Any:
        """Return a boto3 client onto the target."""
        return self.session.client(service)

    def place(self) -> str:
        """Return the target with its account, which is asked for, so that credentials that do not work are found here."""
        return f"{self}, account {self.client('sts').get_caller_identity()['Account']}"

    def __str__(self) -> str:
        if self.kind == "localcloud":
            return f"localcloud at {self.endpoint_url}"
        # Who has set it for other tools would take a localcloud for an account.
        elsewhere = os.environ.get("AWS_ENDPOINT_URL")
        return f"AWS in {os.environ.get('AWS_REGION') or 'no region'}" + (f", where AWS_ENDPOINT_URL is {elsewhere}" if elsewhere else "")


def resolve(aws: bool, state_dir: Path, output: Output, *, start: bool = True) -> Target:
    """Return the target and point this process's AWS settings at it.

    A boto3 endpoint URL in the environment is the only difference between the two: everything after this call is the same code.

    Args:
        aws: Whether AWS was asked for.
        state_dir: The clone's state folder.
        output: Where to say that localcloud was started.
        start: Whether to start localcloud when none runs.

    Raises:
        SconesError: localcloud cannot be started, or none runs and none is to be started.
    """
    if aws:
        return Target("aws", state_dir, None)
    running = local.find_running(state_dir)
    if running is None and not start:
        raise SconesError("localcloud does not run, and a dry run starts nothing", "Start it: scones up --detach", ExitCode.UNREACHABLE)
    if running is None:
        running = local.start(state_dir)
        output.note(f"Started localcloud in the background at {running.endpoint_url} (end it with: {project.down_command(state_dir)})")
    isolate(os.environ)
    os.environ |= {
        **_LOCAL_CREDENTIALS,
        "AWS_ENDPOINT_URL": running.endpoint_url,
        "AWS_REGION": LOCAL_REGION,
        "AWS_DEFAULT_REGION": LOCAL_REGION,
    }
    return Target("localcloud", state_dir, running.endpoint_url)
