"""Where this clone keeps things."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def state_dir() -> Path:
    """Return the folder that holds everything a clone makes: `.scones` in the clone, or SCONES_STATE_DIR."""
    return Path(os.environ.get("SCONES_STATE_DIR") or ROOT / ".scones").resolve()
