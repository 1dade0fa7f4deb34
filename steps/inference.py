"""Serves the model: what the SageMaker PyTorch inference container calls, and what evaluation measures.

`model_fn` once, then `input_fn`, `predict_fn`, `output_fn` for each request. A photo (image/png, image/jpeg, image/webp or
application/x-image) is answered with {"inferences": [probabilities in label order], "labels", "predicted_label", "confidence"}. Needs numpy,
Pillow and onnxruntime, and the modules that travel beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from calibration import softmax
from imaging import ImageError, decode, pixels

try:
    # In the container: the class whose status code and message reach the client (anything else raised becomes a 500).
    from sagemaker_inference.errors import BaseInferenceToolkitError
except ImportError:

    class BaseInferenceToolkitError(Exception):  # type: ignore[no-redef]
        """Stands in for the toolkit's class outside its container, with the same attributes."""

        def __init__(self, status_code: int, message: str, phrase: str) -> None:
            self.status_code, self.message, self.phrase = status_code, message, phrase
            super().__init__(status_code, message, phrase)


CONTENT_TYPES = ("image/png", "image/jpeg", "image/webp", "application/x-image")
JSON = "application/json"
MODEL_VERSION = 1


class RequestError(BaseInferenceToolkitError):  # type: ignore[misc]
    """Indicates that a request cannot be answered; `status_code` and `message` go to the client."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(int(status), message, status.phrase)


@dataclass(frozen=True)
class Model:
    """A loaded artifact. `input_limit`: images are shrunk to at most this many pixels a side before the network sees them."""

    session: onnxruntime.InferenceSession
    labels: tuple[str, ...]
    temperature: float
    input_limit: int

    def logits(self, content: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Class scores [classes] of an image file's bytes: the mean over the image and its mirror image. Raises ImageError."""
        image = pixels(decode(content, self.input_limit))
        views = np.stack([image, image[:, ::-1]])
        scores: np.ndarray[Any, np.dtype[np.float32]] = self.session.run(None, {"images": views})[0].mean(axis=0)
        return scores

    def predict(self, content: bytes) -> dict[str, Any]:
        """The answer to an image file's bytes. Raises ImageError."""
        probabilities = softmax(self.logits(content)[None], self.temperature)[0].tolist()
        confidence = max(probabilities)
        return {
            "inferences": probabilities,
            "labels": list(self.labels),
            "predicted_label": self.labels[probabilities.index(confidence)],
            "confidence": confidence,
        }


def model_fn(model_dir: str) -> Model:
    """Load `model.onnx` and `model.json` and run the network once, so that the first request finds it warm. Raises ValueError or OSError when
    the artifact is not one of ours."""
    directory = Path(model_dir)
    description = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    if description.get("version") != MODEL_VERSION:
        raise ValueError(f"{directory / 'model.json'} has version {description.get('version')!r}; this code serves version {MODEL_VERSION}")
    options = onnxruntime.SessionOptions()
    # One thread a request: the container runs a worker per core.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"])
    limit = int(description["input_limit"])
    session.run(None, {"images": np.zeros((2, limit, limit, 3), dtype=np.uint8)})
    return Model(session, tuple(description["labels"]), float(description["temperature"]), limit)


def input_fn(request_body: bytes | bytearray, content_type: str | None) -> bytes:
    """The image file's bytes. Raises RequestError 415 unless the content type is an image's."""
    kind = (content_type or "").split(";")[0].strip().lower()
    if kind not in CONTENT_TYPES:
        shown = f"content type {content_type!r}" if content_type else "a request without content type"
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{shown} is not supported; send one of {', '.join(CONTENT_TYPES)}")
    return bytes(request_body)


def predict_fn(image: bytes, model: Model) -> dict[str, Any]:
    """Classify. Raises RequestError 400 when the bytes are not an image that can be read."""
    try:
        return model.predict(image)
    except ImageError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error


def output_fn(prediction: dict[str, Any], accept: str | None) -> tuple[str, str]:
    """(body, content type). Raises RequestError 406 when the client does not accept JSON."""
    accepted = {part.split(";")[0].strip().lower() for part in (accept or JSON).split(",")}
    if not accepted & {JSON, "application/*", "*/*"}:
        raise RequestError(HTTPStatus.NOT_ACCEPTABLE, f"the answer is {JSON}, which the Accept header {accept!r} excludes")
    return json.dumps(prediction), JSON
