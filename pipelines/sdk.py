"""The SageMaker SDK's surroundings: what has to be set before it is imported, and a session that neither phones home nor reads user files."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import boto3

# Given explicitly, so that a definition depends on the project's settings only and not on an SDK defaults file of whoever builds it.
TELEMETRY_OFF: dict[str, Any] = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}


@contextmanager
def sdk_environment(region: str) -> Iterator[None]:
    """Import and use the SDK inside this, for a moment: garbage is not looked for meanwhile, which is a quarter of the SDK's import time.

    It reads the region while being imported, asks IAM to simulate the role's policies whenever a trainer is made, takes over the root logger,
    and warns about each name it leaves out of a definition; all of that is undone or prevented here.
    """
    wanted = {"AWS_DEFAULT_REGION": region, "SAGEMAKER_VALIDATE_ROLE": "false"}
    previous = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    collecting = gc.isenabled()
    gc.disable()
    root = logging.getLogger()
    placeholder = logging.NullHandler()  # with a handler in place, the SDK's logging.basicConfig does nothing
    root.addHandler(placeholder)
    logging.getLogger("sagemaker").setLevel(logging.ERROR)
    logging.getLogger("sagemaker.config").disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(placeholder)
        if collecting:
            gc.enable()
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def pipeline_session(boto_session: boto3.Session, bucket: str) -> Any:
    """A PipelineSession on the given boto3 session, without SDK defaults. Call it inside `sdk_environment`."""
    from sagemaker.core.workflow.pipeline_context import PipelineSession

    session = PipelineSession(boto_session=boto_session, default_bucket=bucket, sagemaker_config=TELEMETRY_OFF)
    # With a configuration that is not empty the SDK validates it some fifty times, 0.1 s each, while the definition is rendered.
    session.sagemaker_config = {}
    return session


@contextmanager
def telemetry_off(session: Any) -> Iterator[None]:
    """Around the SDK calls that report usage."""
    session.sagemaker_config = TELEMETRY_OFF
    try:
        yield
    finally:
        session.sagemaker_config = {}
