"""Where experiments are tracked when nothing else is set: a local store under the state folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LocalStore:
    """MLflow's local store: a SQLite database; artifacts lie beside it.

    Attributes:
        database: The SQLite file.
    """

    database: Path

    @property
    def tracking_uri(self) -> str:
        """Return the URI that MLflow takes (MLFLOW_TRACKING_URI)."""
        return f"sqlite:///{self.database}"

    def prepare(self) -> None:
        """Make the folder that the database will lie in."""
        self.database.parent.mkdir(parents=True, exist_ok=True)


def local_store(state_dir: Path) -> LocalStore:
    """Return the local store below a state folder; nothing is created."""
    return LocalStore(state_dir / "mlflow" / "mlflow.db")
