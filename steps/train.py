"""Training job: fine-tunes an image classifier on the shards of `preprocess.py` and writes the artifact that `inference.py` serves.

Reads SM_CHANNEL_TRAIN and SM_CHANNEL_VALIDATION, hyperparameters as `--key value` (`recipe.py` has them all); writes the model to SM_MODEL_DIR,
`metrics.json` to SM_OUTPUT_DATA_DIR and, on failure, the reason to SM_OUTPUT_DIR/failure. Runs in one process, or in several under torchrun.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from failures import configure_logging, run_step
from recipe import failure_directory, parse_training_arguments
from tracking import Run, job_run

# OpenMP's threads wait asleep, not spinning: where something else needs a core too (a laptop, a container with a share of one), spinning made
# training ten times slower. Read when torch is loaded. (GOMP_SPINCOUNT, GNU's own: a short spin first, for waits of microseconds.)
_THREAD_MANNERS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}


def main(arguments: Sequence[str]) -> None:
    """Read the arguments and train."""
    recipe, paths = parse_training_arguments(arguments, os.environ)
    for name, value in _THREAD_MANNERS.items():
        os.environ.setdefault(name, value)
    # The first process reports for all.
    tracked = job_run("Train") if os.environ.get("RANK", "0") == "0" else nullcontext(Run(None))
    with tracked as run:
        # Imported here because it brings torch: a wrong argument is told at once, and MLflow, in its own process, is imported meanwhile.
        # What the import makes stays: nobody looks for garbage in it, now (a fifth of its time) or later.
        gc.disable()
        from training import train

        gc.freeze()
        gc.enable()
        train(recipe, paths, run)


if __name__ == "__main__":
    configure_logging()
    output_dir = failure_directory(sys.argv[1:], os.environ)
    sys.exit(run_step(lambda: main(sys.argv[1:]), output_dir / "failure" if output_dir else None))
