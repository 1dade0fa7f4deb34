"""Identifiers as SageMaker Pipelines makes them."""

from __future__ import annotations

import secrets
import string

_LOWER = string.ascii_lowercase + string.digits
_MIXED = string.ascii_letters + string.digits
#: Longest name of a job, model or endpoint configuration.
_LONGEST = 63
#: Pipelines cuts a step's name to this length in the names of what the step makes.
_STEP_LENGTH = 20


def execution_id() -> str:
    """Return a new execution id: 12 lower-case letters and digits."""
    return "".join(secrets.choice(_LOWER) for _ in range(12))


def token() -> str:
    """Return a new token, of a job's name or a callback: 10 letters and digits."""
    return "".join(secrets.choice(_MIXED) for _ in range(10))


def generated_name(execution: str, step: str) -> str:
    """Return the name of what a step makes: ``pipelines-<execution id>-<first 20 characters of the step's name>-<token>``."""
    # Step names may hold underscores, names of jobs may not.
    return f"pipelines-{execution}-{step[:_STEP_LENGTH].replace('_', '-')}-{token()}"


def prefixed_name(prefix: str, execution: str, failures: int) -> str:
    """Return the name made from one that the definition gives: ``<prefix>-<execution id>-<token>-<failure count>``, the prefix cut so that it fits."""
    suffix = f"-{execution}-{token()}-{failures}"
    return prefix[: _LONGEST - len(suffix)] + suffix
