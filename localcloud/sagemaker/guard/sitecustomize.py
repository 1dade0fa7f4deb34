"""Runs first in every Python process of a job or model server: code that touches the real /opt/ml fails, loudly.

On AWS the container's /opt/ml is the job's own. Here each job has a folder of its own instead, and code that has the path written into it would read or write
this machine's /opt/ml, past every check. What it tried is also noted in a file, so that a script which swallows the error does not succeed.
"""

from __future__ import annotations

import os
import sys
import types

#: The first argument(s) of these audit events are paths.
_EVENTS = {
    "open": 1, "os.listdir": 1, "os.scandir": 1, "os.mkdir": 1, "os.rmdir": 1, "os.remove": 1, "os.truncate": 1, "os.chdir": 1, "os.chmod": 1, "os.utime": 1,
    "os.rename": 2, "os.link": 2, "os.symlink": 2, "shutil.copyfile": 2, "shutil.copytree": 2, "shutil.move": 2, "shutil.rmtree": 1, "shutil.make_archive": 1,
    "glob.glob": 1, "sqlite3.connect": 1,
}  # fmt: skip
_FORBIDDEN = "/opt/ml"
#: SageMaker Studio's own file on the machine; SDKs look for it.
_ALLOWED = "/opt/ml/metadata"
_NOTE = os.environ.get("LOCALCLOUD_ESCAPE_FILE", "")


def _forbidden(path: object) -> str | None:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, (str, os.PathLike)):
        return None
    path = os.fspath(path)
    if not isinstance(path, str) or ("opt" not in path and os.path.isabs(path)):
        return None
    full = os.path.abspath(path)
    inside = full == _FORBIDDEN or full.startswith(_FORBIDDEN + "/")
    return full if inside and not full.startswith(_ALLOWED) else None


def _where() -> str:
    """Name the nearest line that is not the standard library's or an installed package's."""
    frame: types.FrameType | None = sys._getframe(2)
    nearest: types.FrameType | None = None
    while frame is not None:
        name = frame.f_code.co_filename
        if nearest is None and not name.startswith("<"):
            nearest = frame
        if not name.startswith("<") and not name.startswith((sys.base_prefix + "/lib", sys.prefix + "/lib")):
            nearest = frame
            break
        frame = frame.f_back
    return "" if nearest is None else f" ({os.path.basename(nearest.f_code.co_filename)}, line {nearest.f_lineno})"


_busy: list[bool] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    count = _EVENTS.get(event)
    if count is None or _busy:
        return
    for argument in arguments[:count]:
        full = _forbidden(argument)
        if full is None:
            continue
        message = (
            f"The code uses the path {full} itself{_where()}. On localcloud /opt/ml is not the job's: take the path from an argument, "
            "an SM_* variable or the job's configuration, which name the job's own folder."
        )
        _busy.append(True)
        try:
            with open(_NOTE, "a", encoding="utf-8") as note:
                note.write(message + "\n")
        finally:
            _busy.pop()
        raise PermissionError(message)


if _NOTE:
    sys.addaudithook(_hook)


def _run_the_next() -> None:
    """Run the sitecustomize that this one hides, if there is one."""
    import importlib.machinery
    import importlib.util

    here = os.path.dirname(os.path.abspath(__file__))
    others = [folder for folder in sys.path if os.path.abspath(folder or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_run_the_next()
