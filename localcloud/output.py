"""What child processes print, line by line."""

from __future__ import annotations

import os
from collections.abc import Callable

#: CloudWatch Logs takes no larger event.
LINE_BYTES = 256 * 1024


def read_lines(descriptor: int, write: Callable[[list[str]], None]) -> None:
    """Hand what comes through a pipe to *write*, as lines without line ends, as soon as it comes; return when the other end is closed."""
    pending = b""
    while chunk := os.read(descriptor, 65536):
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > LINE_BYTES:
            lines.append(pending)
            pending = b""
        if lines:
            write(texts(lines))
    if pending:
        write(texts([pending]))


def texts(lines: list[bytes]) -> list[str]:
    """Return lines as texts that CloudWatch Logs takes: in UTF-8, long ones in pieces."""
    pieces = [line[at : at + LINE_BYTES] for line in lines for at in range(0, max(len(line), 1), LINE_BYTES)]
    return [piece.decode("utf-8", "replace").rstrip("\r") for piece in pieces]
