"""The evaluation job: scores an artifact through its own code, compares the champion, and says why it cannot."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import evaluate
import pictures
from artifact import extract_artifact
from failures import StepError
from helpers_steps import DIGEST, LABELS, pack, picture, read_json, trained_artifact, write_split
from quality import Scored, wilson_interval
from scoring import Answer
from shards import read_dataset_info, read_shards, write_shards


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the splits, the artifact in out/model, packed in candidate/model.tar.gz."""
    folder = tmp_path_factory.mktemp("evaluate")
    pack(trained_artifact(folder, LABELS), folder / "candidate")
    return folder


def run(trained: Path, output: Path, *arguments: str, model: Path | None = None) -> Any:
    evaluate.main(["--model", str(model or trained / "candidate"), "--test", str(trained / "test"), "--output", str(output), *arguments])
    return read_json(output / "evaluation.json")


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of an evaluation's time, and one test looks at the pictures."""
    monkeypatch.setattr(pictures, "draw_all", lambda *_: [])


def changed(trained: Path, folder: Path, change: Callable[[Path], object]) -> Path:
    """The artifact, changed, packed in `folder`."""
    copy = folder / "changed"
    shutil.copytree(trained / "out" / "model", copy)
    change(copy)
    return pack(copy, folder / "packed")


def test_the_report_and_the_pictures(trained: Path, tmp_path: Path) -> None:
    report = run(trained, tmp_path, "--threshold", "0.6")
    figures = report["scones"]
    assert report["multiclass_classification_metrics"]["accuracy"]["value"] == figures["accuracy"] > 0.9
    assert figures["test_images"] == 30
    assert figures["confidence_interval"] == list(wilson_interval(round(figures["accuracy"] * 30), 30))
    assert figures["dataset_digest"] == DIGEST
    assert figures["threshold"] == 0.6
    assert 0 <= figures["coverage_at_threshold"] <= 1
    assert set(figures["per_class"]) == set(LABELS)
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    assert (figures["champion"], figures["accuracy_floor_from_champion"]) == (None, 0.0)
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == ["confusion_matrix.png", "coverage_accuracy.png", "reliability_diagram.png", "roc_curves.png", "worst_mistakes.png"]
    for name in drawn:
        with Image.open(tmp_path / name) as image:
            image.load()
            # Something is drawn: not one colour.
            assert len(image.convert("RGB").getcolors(1_000_000) or []) > 10


@pytest.mark.usefixtures("_no_pictures")
def test_two_classes_give_the_binary_report(tmp_path: Path) -> None:
    pack(trained_artifact(tmp_path), tmp_path / "candidate")
    report = run(tmp_path, tmp_path / "output")
    assert report["binary_classification_metrics"]["accuracy"]["value"] == report["scones"]["accuracy"]
    assert "multiclass_classification_metrics" not in report


@pytest.mark.usefixtures("_no_pictures")
def test_the_champion_is_scored_on_the_same_images_and_sets_the_floor(trained: Path, tmp_path: Path) -> None:
    def flatten(model: Path) -> None:
        """A champion that knows nothing: its labels are exchanged."""
        description: Any = read_json(model / "model.json")
        description["labels"] = description["labels"][1:] + description["labels"][:1]
        (model / "model.json").write_text(json.dumps(description))

    same = run(trained, tmp_path / "a", "--champion", str(trained / "candidate"), "--champion-uri", "s3://b/k/model.tar.gz")["scones"]
    assert same["champion"]["accuracy"] == same["accuracy"]
    assert same["champion"]["model_data"] == "s3://b/k/model.tar.gz"
    assert same["accuracy_floor_from_champion"] == pytest.approx(same["accuracy"] - 0.02)
    worse = changed(trained, tmp_path, flatten)
    other = run(trained, tmp_path / "b", "--champion", str(worse), "--champion-tolerance", "0.5")["scones"]
    assert other["accuracy"] == same["accuracy"]
    assert other["champion"]["accuracy"] < 0.2
    assert other["accuracy_floor_from_champion"] == 0.0


@pytest.mark.usefixtures("_no_pictures")
def test_the_artifacts_own_code_answers(trained: Path, tmp_path: Path) -> None:
    def always_red(model: Path) -> None:
        script = model / "code" / "inference.py"
        script.write_text(
            script.read_text() + "\n\ndef predict_fn(image, model):\n"
            "    print('a handler that prints')\n"
            "    return {'inferences': [0.0, 0.0, 1.0], 'labels': list(model.labels), 'predicted_label': 'red', 'confidence': 1.0}\n"
        )

    figures = run(trained, tmp_path / "output", model=changed(trained, tmp_path, always_red))["scones"]
    assert figures["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("class Broken(Exception): pass\nraise Broken('no such luck')", "cannot be loaded: Broken: no such luck"),
        ("import os\nos._exit(7)", "its process ended without an answer"),
    ],
)
def test_an_artifact_that_cannot_be_loaded_says_why(trained: Path, tmp_path: Path, damage: str, message: str) -> None:
    broken = changed(trained, tmp_path, lambda model: (model / "code" / "inference.py").write_text(damage))
    with pytest.raises(StepError, match=message):
        run(trained, tmp_path / "output", model=broken)
    with pytest.raises(StepError, match="the champion s3://x cannot be compared"):
        run(trained, tmp_path / "output", "--champion", str(broken), "--champion-uri", "s3://x")


def test_an_image_that_the_model_refuses_fails_the_job(trained: Path, tmp_path: Path) -> None:
    info, samples = read_dataset_info(trained / "test"), list(read_shards(trained / "test"))
    refused = type(samples[0])("refused", "red", b"not an image", "red/x.png", "0" * 64)
    write_shards([samples[0], refused], tmp_path / "test", labels=info.labels, split="test", dataset_digest=DIGEST)
    with pytest.raises(StepError, match="refused image 1: the bytes are not an image"):
        evaluate.main(["--model", str(trained / "candidate"), "--test", str(tmp_path / "test"), "--output", str(tmp_path / "output")])


def test_labels_are_matched_by_name(trained: Path) -> None:
    info, samples = read_dataset_info(trained / "test"), list(read_shards(trained / "test"))[:2]
    narrower = type(info)(("blue", "yellow"), {"blue": 1, "yellow": 0}, DIGEST, "test")
    scored, answers = evaluate.score_artifact(trained / "candidate", [samples[0]], narrower)
    assert samples[0].label == "blue"
    assert scored.labels == ("blue", "yellow", "green", "red")
    by_name = dict(zip(answers[0].labels, answers[0].inferences, strict=True))
    np.testing.assert_allclose(scored.probabilities[0], [by_name["blue"], 0.0, by_name["green"], by_name["red"]])


def archive_with(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member, b""


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside-of-the-artifact", "code/../../outside"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = archive_with(tmp_path / "packed", (tarfile.TarInfo(name), b"x"))
    with pytest.raises(StepError, match=r"cannot be unpacked|holds no model\.onnx"):
        extract_artifact(folder, tmp_path / "inner" / "target")
    assert not list(tmp_path.rglob("outside"))
    assert not Path("/tmp/outside-of-the-artifact").exists()


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="neither a file nor a folder"):
        extract_artifact(archive_with(tmp_path / "packed", link("code", "/etc")), tmp_path / "target")


def test_an_archive_that_is_none_or_misses_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="does not exist"):
        extract_artifact(tmp_path, tmp_path / "a")
    (tmp_path / "model.tar.gz").write_bytes(b"junk")
    with pytest.raises(StepError, match="cannot be unpacked"):
        extract_artifact(tmp_path, tmp_path / "b")
    with pytest.raises(StepError, match=r"holds no model\.onnx"):
        extract_artifact(archive_with(tmp_path / "packed", (tarfile.TarInfo("readme"), b"x")), tmp_path / "c")


@pytest.mark.usefixtures("_no_pictures")
def test_a_champion_folder_without_artifact_or_marker_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "champion").mkdir()
    with pytest.raises(StepError, match=r"neither model\.tar\.gz nor none\.json"):
        run(trained, tmp_path / "output", "--champion", str(tmp_path / "champion"))
    (tmp_path / "champion" / "none.json").write_text("{}")
    assert run(trained, tmp_path / "output", "--champion", str(tmp_path / "champion"))["scones"]["champion"] is None


def test_a_test_split_without_images_is_refused(trained: Path, tmp_path: Path) -> None:
    write_split(tmp_path, "test", LABELS, per_label=0)
    with pytest.raises(StepError, match="the test split has no image"):
        evaluate.main(["--model", str(trained / "candidate"), "--test", str(tmp_path / "test"), "--output", str(tmp_path / "output")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "1.5"], "--threshold 1.5: must be between 0 and 1"),
        (["--champion-tolerance", "nan"], "--champion-tolerance nan: must be between 0 and 1"),
        (["--treshold", "0.5"], "unrecognized arguments: --treshold 0.5"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(StepError) as raised:
        evaluate.parse_arguments(["--model", "m", "--test", "t", "--output", "o", *arguments])
    assert str(raised.value) == message


def test_a_failure_reaches_the_failure_file_without_a_traceback(tmp_path: Path) -> None:
    script = Path(evaluate.__file__)
    arguments = [
        "--model",
        str(tmp_path),
        "--test",
        str(tmp_path / "none"),
        "--output",
        str(tmp_path),
        "--failure-file",
        str(tmp_path / "m" / "x"),
    ]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    result = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False, env=clean)
    assert result.returncode == 1
    assert "dataset.json does not exist" in (tmp_path / "m" / "x").read_text().splitlines()[0]
    assert "Traceback" not in result.stdout + result.stderr


def test_figures_that_cannot_be_computed_are_null() -> None:
    scored = Scored(("a", "b"), np.array([[0.6, 0.4]]), np.array([0]))
    figures = evaluate.summary(scored, [Answer((0.6, 0.4), ("a", "b"), "a", 1.0)], 0.9)
    assert (figures["roc_auc"], figures["accuracy_at_threshold"], figures["coverage_at_threshold"]) == (None, None, 0.0)


def test_the_test_pictures_hold_what_their_labels_say() -> None:
    # The helpers' own promise, on which the accuracies above rest.
    for index, label in enumerate(("red", "green", "blue")):
        mean = np.asarray(Image.open(io.BytesIO(picture(label, 0)))).mean((0, 1))
        assert int(mean.argmax()) == index
