"""The serving code, called as the SageMaker PyTorch inference container calls it."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inference
from helpers_steps import LABELS, picture, read_json, trained_artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_artifact(tmp_path_factory.mktemp("inference"), LABELS)


@pytest.fixture(scope="module")
def model(artifact: Path) -> inference.Model:
    return inference.model_fn(str(artifact))


def ask(
    model: inference.Model, content: bytes | bytearray, content_type: str | None = "image/png", accept: str | None = "application/json"
) -> Any:
    body, kind = inference.output_fn(inference.predict_fn(inference.input_fn(content, content_type), model), accept)
    assert kind == "application/json"
    return json.loads(body)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize(("content_type", "kind"), [("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/webp", "WEBP")])
def test_a_photo_is_answered_with_probabilities_in_label_order(model: inference.Model, label: str, content_type: str, kind: str) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture(label, 77))).save(buffer, kind)
    answer = ask(model, buffer.getvalue(), content_type)
    assert set(answer) == {"inferences", "labels", "predicted_label", "confidence"}
    assert answer["labels"] == sorted(LABELS)
    assert sum(answer["inferences"]) == pytest.approx(1)
    assert answer["confidence"] == max(answer["inferences"])
    assert answer["predicted_label"] == label == answer["labels"][answer["inferences"].index(answer["confidence"])]


def test_image_and_mirror_image_are_answered_alike(model: inference.Model) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(picture("red", 5))))
    mirrored = io.BytesIO()
    Image.fromarray(pixels[:, ::-1].copy()).save(mirrored, "PNG")
    assert ask(model, picture("red", 5))["inferences"] == pytest.approx(ask(model, mirrored.getvalue())["inferences"], abs=1e-5)


def test_a_photo_much_larger_than_the_training_images_is_answered_alike(model: inference.Model) -> None:
    small = Image.open(io.BytesIO(picture("green", 3)))
    buffer = io.BytesIO()
    small.resize((1600, 1200), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    large = ask(model, buffer.getvalue(), "image/jpeg")
    assert large["predicted_label"] == "green"
    assert large["inferences"] == pytest.approx(ask(model, picture("green", 3))["inferences"], abs=0.1)


def test_the_temperature_sharpens_or_softens_without_changing_the_order(artifact: Path, tmp_path: Path) -> None:
    image = picture("blue", 8)
    confidences = {}
    for temperature in (0.5, 1.0, 4.0):
        copy = tmp_path / str(temperature)
        copy.mkdir()
        (copy / "model.onnx").write_bytes((artifact / "model.onnx").read_bytes())
        (copy / "model.json").write_text(json.dumps({**read_json(artifact / "model.json"), "temperature": temperature}))
        answer = ask(inference.model_fn(str(copy)), image)
        assert answer["predicted_label"] == "blue"
        confidences[temperature] = answer["confidence"]
    assert confidences[0.5] > confidences[1.0] > confidences[4.0]


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "image/gif", "", None])
def test_another_content_type_is_415(model: inference.Model, content_type: str | None) -> None:
    with pytest.raises(inference.RequestError) as raised:
        ask(model, picture("red", 1), content_type)
    assert raised.value.status_code == 415
    assert "image/png, image/jpeg, image/webp, application/x-image" in raised.value.message


@pytest.mark.parametrize("content_type", ["IMAGE/PNG", "image/png; charset=binary", "application/x-image"])
def test_content_types_are_read_as_http_means_them(model: inference.Model, content_type: str) -> None:
    assert ask(model, bytearray(picture("red", 1)), content_type)["predicted_label"] == "red"


@pytest.mark.parametrize(("content", "reason"), [(b"", "0 bytes"), (b"not an image", "not an image"), (picture("red", 1)[:300], "damaged")])
def test_a_body_that_is_no_image_is_400_with_the_reason(model: inference.Model, content: bytes, reason: str) -> None:
    with pytest.raises(inference.RequestError, match=reason) as raised:
        ask(model, content)
    assert (raised.value.status_code, raised.value.phrase) == (400, "Bad Request")


@pytest.mark.parametrize(
    ("accept", "fine"), [(None, True), ("*/*", True), ("text/html, application/json;q=0.5", True), ("text/csv", False)]
)
def test_accept_header(model: inference.Model, accept: str | None, fine: bool) -> None:
    if fine:
        assert ask(model, picture("red", 1), accept=accept)
    else:
        with pytest.raises(inference.RequestError) as raised:
            ask(model, picture("red", 1), accept=accept)
        assert raised.value.status_code == 406


def test_an_artifact_of_another_version_is_refused(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({**read_json(artifact / "model.json"), "version": 2}))
    with pytest.raises(ValueError, match="version 2; this code serves version 1"):
        inference.model_fn(str(tmp_path))


@pytest.fixture
def toolkit(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Exception]]:
    """The error class of the container's toolkit, importable as there."""

    class BaseInferenceToolkitError(Exception):
        def __init__(self, status_code: int, message: str, phrase: str) -> None:
            self.status_code, self.message, self.phrase = status_code, message, phrase
            super().__init__(status_code, message, phrase)

    errors = types.ModuleType("sagemaker_inference.errors")
    errors.BaseInferenceToolkitError = BaseInferenceToolkitError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sagemaker_inference", types.ModuleType("sagemaker_inference"))
    monkeypatch.setitem(sys.modules, "sagemaker_inference.errors", errors)
    yield BaseInferenceToolkitError
    monkeypatch.undo()
    importlib.reload(inference)


def test_in_the_container_errors_are_the_toolkits_so_that_their_status_reaches_the_client(toolkit: type[Exception]) -> None:
    served = importlib.reload(inference)
    with pytest.raises(toolkit) as raised:
        served.input_fn(b"", "text/plain")
    assert getattr(raised.value, "status_code", None) == 415


def test_serving_needs_numpy_pillow_and_onnxruntime_only(artifact: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1] + "/code")
import inference
model = inference.model_fn(sys.argv[1])
inference.predict_fn(open(sys.argv[2], "rb").read(), model)
heavy = {"torch", "onnx", "scipy", "sklearn", "matplotlib", "mlflow", "boto3", "pandas"} & set(sys.modules)
own = [sys.modules[name].__file__ for name in ("inference", "imaging", "calibration")]
print(sorted(heavy), all(file.startswith(sys.argv[1]) for file in own))
"""
    image = artifact.parent / "red.png"
    image.write_bytes(picture("red", 1))
    result = subprocess.run([sys.executable, "-c", code, str(artifact), str(image)], capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.returncode) == ("[] True", 0), result.stderr
