"""Fixtures that every kind of test shares."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import hypothesis
import jsonschema
import pytest
from botocore.loaders import JSONFileLoader

# How long an example takes says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

# Python looks for garbage whenever some hundred more objects were made than freed. The SageMaker SDK, moto and AWS's models are millions that stay, and
# going through them again and again is a tenth of the tests' time: it is looked for once per file, among what that file made.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is there before the first test stays."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _garbage_is_collected_once_per_file() -> Iterator[None]:
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_real_aws() -> Iterator[None]:
    """No test may reach AWS: fake credentials, no profile, no metadata service."""
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "ASIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        patch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _models_are_parsed_once() -> Iterator[None]:
    """Let botocore's sessions share AWS's service models: each would parse megabytes of JSON anew, and the SageMaker SDK makes five for every definition."""
    original, loaded = JSONFileLoader.load_file, {}

    def load(self: Any, path: str) -> Any:
        if f"{os.sep}s3{os.sep}" in path:
            # botocore writes into S3's: it takes the bucket out of the addresses, by which localcloud tells operations apart.
            return original(self, path)
        if path not in loaded:
            loaded[path] = original(self, path)
        return loaded[path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", load)
        yield


@pytest.fixture(autouse=True, scope="session")
def _schemas_are_checked_once() -> Iterator[None]:
    """Let the SageMaker SDK check its configuration's own schema once: it does so again for each configuration, three times for every definition."""
    original = jsonschema.validate
    known: dict[int, Any] = {}

    def validate(instance: Any, schema: Any, *arguments: Any, **named: Any) -> None:
        if known.get(id(schema)) is not schema:
            original(instance, schema, *arguments, **named)
            known[id(schema)] = schema
        else:
            jsonschema.validators.validator_for(schema)(schema, *arguments, **named).validate(instance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonschema, "validate", validate)
        yield


class Clients:
    """boto3 clients onto a running localcloud, each made once."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self._made: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Return the client of a service."""
        if service not in self._made:
            self._made[service] = boto3.client(service, endpoint_url=self.endpoint_url, region_name="us-east-1")
        return self._made[service]


class Region(Clients):
    """A localcloud region in this process and clients onto it."""

    def __init__(self, server: Any) -> None:
        super().__init__(server.cloud.endpoint_url)
        self.server = server
        self.cloud = server.cloud


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """One region per test module, in this process, with an empty state folder."""
    from localcloud.server import Server
    from localcloud.settings import CloudSettings

    with Server(CloudSettings(tmp_path_factory.mktemp("state"), console=False)) as server:
        yield Region(server)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """An empty folder for a region's state."""
    return tmp_path / "state"


def poll(condition: Callable[[], Any], seconds: float = 30.0, interval: float | None = None) -> Any:
    """Return the first truthy value of *condition*; fail when *seconds* pass without one.

    Looks every *interval* seconds; without one less and less often (up to every 0.1 s), because each look takes time from what is waited for.
    """
    deadline = time.monotonic() + seconds
    pause = interval or 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"condition not met within {seconds} s (last value: {value!r})")
        time.sleep(pause)
        if interval is None:
            pause = min(pause * 1.3, 0.1)


@pytest.fixture(name="poll")
def poll_fixture() -> Callable[..., Any]:
    """Give `poll` to tests: wait for a condition with a deadline instead of sleeping."""
    return poll


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Give a function that tells whether a process runs (one that nobody has reaped yet does not)."""

    def is_alive(pid: int) -> bool:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
        return bool(state) and not state.startswith("Z")

    return is_alive


@pytest.fixture(scope="session")
def documented_key_policy() -> str:
    """The policy that docs/security.md gives a key of one's own."""
    text = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    (policy,) = re.findall(r"```json\n(.+?)```", text, re.DOTALL)
    return str(policy)
