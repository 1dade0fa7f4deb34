"""In whose name the request under way is answered."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

from localcloud.iam.principals import RoleSession

_caller: contextvars.ContextVar[RoleSession | None] = contextvars.ContextVar("caller", default=None)


def caller() -> RoleSession | None:
    """Return the role that the request under way is made as; None for the account's administrator."""
    return _caller.get()


@contextlib.contextmanager
def calling(session: RoleSession | None) -> Iterator[None]:
    """Answer a request in the name of a role."""
    token = _caller.set(session)
    try:
        yield
    finally:
        _caller.reset(token)
