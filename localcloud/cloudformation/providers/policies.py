"""Policy documents as properties."""

from __future__ import annotations

import json
from typing import Any

Json = Any


def policy_text(document: Json) -> str:
    """Return a policy document (an object, or its text) as text."""
    return document if isinstance(document, str) else json.dumps(document)
