"""How a job script ends: exit code 0, or 1 and one message that a person can act on, in the file where SageMaker looks for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

# DescribeTrainingJob and DescribeProcessingJob show at most this much of the file (FailureReason / ExitMessage).
MAX_FAILURE_CHARACTERS = 1024


class StepError(Exception):
    """Indicates a failure that a person can act on: the text says what is wrong, where, and what to do next. Shown without a traceback."""


def configure_logging() -> None:
    """Send log records of level INFO and above to standard output, one line each, where CloudWatch Logs and metric definitions read them."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s", force=True)


def run_step(main: Callable[[], None], failure_file: Path | None) -> int:
    """Run a job's main function and return the process's exit code.

    On failure the message goes to the end of the log and to `failure_file` (training: `SM_OUTPUT_DIR/failure`; processing: the path given as
    `--failure-file`), its first line being the message for people. A StepError is that message; any other exception is a defect or a broken
    machine: its traceback goes to the log, `Type: text` to the file.
    """
    try:
        main()
    except StepError as error:
        message = str(error)
        logger.error("%s", message)
    except Exception as error:  # the boundary of the process: whatever happened must reach the person who waits for the job
        message = f"{type(error).__name__}: {error}".strip()
        logger.exception("The step failed")
    else:
        return 0
    if failure_file is not None:
        write_failure(failure_file, message)
    return 1


def write_failure(path: Path, message: str) -> None:
    """Write the message where SageMaker reads it. A path that cannot be written is logged: it must not hide the message itself."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(message[:MAX_FAILURE_CHARACTERS], encoding="utf-8")
    except OSError as error:
        logger.warning("The failure message could not be written to %s: %s", path, error)
