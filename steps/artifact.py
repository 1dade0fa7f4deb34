"""The model artifact: `model.onnx`, `model.json` and `code/` (what serves it). No pickle."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from failures import StepError

ARCHIVE_NAME = "model.tar.gz"
SERVING_FILES = ("inference.py", "imaging.py", "calibration.py")
SERVING_PACKAGES = ("numpy", "onnxruntime", "pillow")
_PROVENANCE_PACKAGES = (*SERVING_PACKAGES, "onnx", "torch")
_MAX_EXTRACTED_BYTES = 4 * 1024**3
_MAX_MEMBERS = 10_000


def write_artifact(directory: Path, graph: bytes, description: Mapping[str, Any]) -> None:
    """Write the artifact's files; SageMaker packs the folder as model.tar.gz. `description` becomes model.json."""
    here = Path(__file__).resolve().parent
    code = directory / "code"
    code.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(graph)
    (directory / "model.json").write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in SERVING_FILES:
        shutil.copyfile(here / name, code / name)
    wanted = (here / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in wanted if line.startswith(SERVING_PACKAGES)]
    (code / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def package_versions() -> dict[str, str]:
    """What the model was made with, for its provenance."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PROVENANCE_PACKAGES}


def extract_artifact(folder: Path, target: Path) -> Path:
    """Unpack the model.tar.gz in `folder` into `target` and return `target`.

    Raises StepError when it is missing or damaged, holds no model, or would write outside `target`, links, devices or more than 4 GiB.
    """
    archive_path = folder / ARCHIVE_NAME
    if not archive_path.is_file():
        raise StepError(f"{archive_path} does not exist")
    try:
        with tarfile.open(archive_path, "r:gz") as archive:
            total = 0
            for number, member in enumerate(archive):
                total += member.size
                if total > _MAX_EXTRACTED_BYTES or number >= _MAX_MEMBERS:
                    raise StepError(f"{archive_path} unpacks to more than {_MAX_EXTRACTED_BYTES} bytes or {_MAX_MEMBERS} files")
                if not (member.isfile() or member.isdir()):
                    raise StepError(f"{archive_path}: {member.name!r} is neither a file nor a folder")
                archive.extract(member, target, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise StepError(f"{archive_path} cannot be unpacked: {error}") from error
    for name in ("model.onnx", "model.json", "code/inference.py"):
        if not (target / name).is_file():
            raise StepError(f"{archive_path} holds no {name}; it is not an artifact of this project's train.py")
    return target
