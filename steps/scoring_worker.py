"""The process that loads an artifact and answers for it; `scoring.py` starts it. Standard library only, apart from the artifact's own code.

Standard output: a line of JSON once the model is loaded (`{"ready": true}`) or cannot be (`{"fatal": reason}`). Then for
every image on standard input, 4 bytes (big-endian length) and the file's bytes, a line: the answer with `milliseconds`, or `{"error": reason}`.
"""

from __future__ import annotations

import json
import struct
import sys
import time
import traceback
from pathlib import Path

LENGTH = struct.Struct(">I")


def serve(artifact: Path) -> int:
    """Answer until standard input ends."""
    sys.path.insert(0, str(artifact / "code"))
    source, sink = sys.stdin.buffer, sys.stdout
    sys.stdout = sys.stderr  # what the artifact's code prints goes to the log, not into the answers

    def send(message: dict[str, object]) -> None:
        sink.write(json.dumps(message) + "\n")
        sink.flush()

    try:
        import inference

        model = inference.model_fn(str(artifact))
    except Exception as error:  # noqa: BLE001 - the artifact's code may raise anything; the parent makes its own error of it
        traceback.print_exc()
        send({"fatal": f"{type(error).__name__}: {error}"})
        return 1
    send({"ready": True})
    while header := source.read(LENGTH.size):
        content = source.read(LENGTH.unpack(header)[0])
        began = time.perf_counter()
        try:
            answered = inference.output_fn(
                inference.predict_fn(inference.input_fn(content, "application/x-image"), model), "application/json"
            )
        except inference.RequestError as error:
            send({"error": error.message})
            continue
        milliseconds = (time.perf_counter() - began) * 1000
        send(json.loads(answered[0]) | {"milliseconds": milliseconds})
    return 0


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
