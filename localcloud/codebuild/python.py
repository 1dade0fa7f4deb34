"""The Python of a build: an environment of its own over the packages of the Python that runs localcloud, which no build can change."""

from __future__ import annotations

import site
import venv
from pathlib import Path


def make_python(folder: Path) -> Path:
    """Make a virtual environment and return the folder for PATH, with `python` and `pip` in it.

    What `pip install` brings is in *folder* and goes with it; what localcloud's Python has is there already, but for packages that are installed as editable:
    those are somebody's project, not a package of a build image.
    """
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "localcloud.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()), encoding="utf-8")
    programs = folder / "bin"
    for name in ("pip", "pip3"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{programs}/python" -m pip "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    return programs
