"""``python -m localcloud``: run a region in the foreground until it is told to stop."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from pathlib import Path

from localcloud.errors import LocalCloudError
from localcloud.isolation import isolate
from localcloud.settings import DEFAULT_REGION, DEFAULT_TIME_SCALE, CloudSettings


def main() -> int:
    """Run until SIGTERM, SIGINT or a stop request; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m localcloud", description="An AWS region in one process, on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0 (the default) picks a free one")
    parser.add_argument("--state-dir", type=Path, default=Path(".scones/localcloud"), help="folder for everything that survives a restart")
    parser.add_argument("--region", default=DEFAULT_REGION)
    parser.add_argument(
        "--time-scale",
        type=_time_scale,
        default=os.environ.get("LOCALCLOUD_TIME_SCALE", str(DEFAULT_TIME_SCALE)),
        metavar="N",
        help="how many times faster than on AWS the waits of endpoints' deployments pass; 1 is as on AWS (default: LOCALCLOUD_TIME_SCALE, else %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="do not echo job and function logs")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("botocore", "boto3", "urllib3", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # The region's own clients, too, must not follow a profile or an endpoint of the shell that started it.
    isolate(os.environ)
    settings = CloudSettings(
        arguments.state_dir.resolve(), arguments.port, arguments.region, time_scale=arguments.time_scale, console=not arguments.quiet
    )
    # moto is slow to import (0.7 s): only once the arguments are known to be good. What start makes stays: nobody looks for garbage in it, now
    # (a quarter of the time) or later.
    gc.disable()
    from localcloud.server import Server

    try:
        server = Server(settings)
        server.start()
        gc.freeze()
        gc.enable()
    except LocalCloudError as error:
        sys.stderr.write(f"localcloud: {error}\n")
        return 1
    logging.getLogger("localcloud").info("ready at %s", server.cloud.endpoint_url)
    server.wait()
    try:
        server.stop()
    except LocalCloudError as error:
        sys.stderr.write(f"localcloud: {error}\n")
        return 1
    return 0


def _time_scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 3600")
    return value


if __name__ == "__main__":
    sys.exit(main())
