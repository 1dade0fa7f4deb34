"""Scores an artifact through its own `code/inference.py`, in a process of its own (`scoring_worker.py`): what is measured is what is served,
and two artifacts (candidate and champion) with different code do not meet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import scoring_worker
from failures import StepError


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said about one image, and how long it took (decoding included)."""

    inferences: tuple[float, ...]
    labels: tuple[str, ...]
    predicted_label: str
    milliseconds: float


def score(artifact: Path, name: str, images: Iterable[bytes]) -> list[Answer]:
    """Answers of an unpacked artifact to image files' bytes, in order. `name`: what the artifact is called in messages. Raises StepError when
    the model cannot be loaded or refuses an image."""
    # -P: nothing of this folder may stand in for the artifact's own modules.
    command = [sys.executable, "-P", str(Path(scoring_worker.__file__).resolve()), str(artifact)]
    answers = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        first = _read(process.stdout, name)
        if "fatal" in first:
            raise StepError(f"{name} cannot be loaded: {first['fatal']}")
        for number, image in enumerate(images):
            try:
                process.stdin.write(scoring_worker.LENGTH.pack(len(image)) + image)
                process.stdin.flush()
            except BrokenPipeError:
                raise StepError(f"{name} ended at image {number}; see the log above") from None
            answer = _read(process.stdout, name)
            if "error" in answer:
                raise StepError(f"{name} refused image {number}: {answer['error']}")
            answers.append(Answer(tuple(answer["inferences"]), tuple(answer["labels"]), answer["predicted_label"], answer["milliseconds"]))
        process.stdin.close()
    return answers


def _read(channel: IO[bytes], name: str) -> dict[str, Any]:
    line = channel.readline()
    if not line:
        raise StepError(f"{name}: its process ended without an answer; see the log above")
    message: dict[str, Any] = json.loads(line)
    return message
