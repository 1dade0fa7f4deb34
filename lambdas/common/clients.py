"""AWS clients, made at the first call and kept for the life of the execution environment.

Retrying is the state machine's job (with backoff and jitter, and visible in its history), so a client only tries once more, which is
what a pooled connection that the service has closed meanwhile needs. Timeouts fit into the functions' own, set in the templates.
"""

import functools
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ConnectionError as ConnectFailedError
from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError

# All by which botocore says that there was no answer, or not a whole one.
NO_ANSWER = (ConnectFailedError, HTTPClientError, IncompleteReadError, ResponseStreamingError)

CONNECT_TIMEOUT_SECONDS = 2
S3_READ_TIMEOUT_SECONDS = 6
ENDPOINT_READ_TIMEOUT_SECONDS = 25


def _config(read_timeout_seconds: int) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS, read_timeout=read_timeout_seconds, retries={"mode": "standard", "total_max_attempts": 2}
    )


@functools.cache
def s3() -> Any:
    """Returns the S3 client of this execution environment."""
    return boto3.client("s3", config=_config(S3_READ_TIMEOUT_SECONDS))


@functools.cache
def sagemaker_runtime() -> Any:
    """Returns the SageMaker runtime client of this execution environment."""
    return boto3.client("sagemaker-runtime", config=_config(ENDPOINT_READ_TIMEOUT_SECONDS))
