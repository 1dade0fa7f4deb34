"""The Preprocess job as a whole: what it writes, what it leaves out, when it refuses, and how it says so."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import staging
from failures import StepError
from inputs import InputImage, dataset_digest, read_input
from inspection import inspect_all
from preprocess import Folders, Options, main, preprocess
from shards import Sample, read_dataset_info, read_shards
from splits import Split
from staging.dataset import Dataset, manifest_bytes
from staging.folder import read_folder
from staging.sample import sample_photos, write_sample
from validation import ImageRules

OPTIONS = Options(
    validation_fraction=0.15,
    test_fraction=0.2,
    seed=0,
    min_image_side=16,
    max_image_side=256,
    max_bad_share=0.1,
    min_images_per_class=10,
    near_duplicate_similarity=0.94,
    allow_conflicting_labels=False,
)


def options(**changes: Any) -> Options:
    values = {name: getattr(OPTIONS, name) for name in Options.__dataclass_fields__} | changes
    return Options(**values)


@functools.cache
def pictures(count: int, seed: int) -> tuple[bytes, ...]:
    """So many different drawn pictures."""
    return tuple(photo.image for photo in sample_photos(count, seed))


def photos(root: Path, classes: dict[str, int], seed: int = 1) -> Path:
    """Folders with so many different drawn pictures each; what they show does not matter here."""
    drawn = iter(pictures(sum(classes.values()), seed))
    for folder, count in classes.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            (root / folder / f"{number:03d}.png").write_bytes(next(drawn))
    return root


def staged(root: Path, target: Path) -> Path:
    """What lies in a staged prefix, as a job finds it on disk."""
    dataset = read_folder(root, source=root.name)
    write_staged(dataset, target)
    return target


def write_staged(dataset: Dataset, target: Path) -> None:
    for image in dataset.images:
        path = target / image.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.file.read_bytes())
    (target / "manifest.json").write_bytes(manifest_bytes(dataset.manifest()))


def folders(root: Path) -> Folders:
    return Folders(root / "train", root / "validation", root / "test", root / "report")


def run(root: Path, out: Path, **changes: Any) -> tuple[dict[Split, list[Sample]], dict[str, Any]]:
    target = folders(out)
    preprocess(root, target, options(**changes))
    report = json.loads((target.report / "data_report.json").read_text(encoding="utf-8"))
    return {split: list(read_shards(target.of(split))) for split in Split}, report


def refused(root: Path, out: Path, **changes: Any) -> tuple[str, dict[str, Any]]:
    """The message of a run that must fail, and its report; no split may hold anything."""
    target = folders(out)
    with pytest.raises(StepError) as error:
        preprocess(root, target, options(**changes))
    for split in Split:
        assert not target.of(split).exists() or list(target.of(split).iterdir()) == []
    report = json.loads((target.report / "data_report.json").read_text(encoding="utf-8"))
    assert report["status"] == "failed"
    assert report["failure"] == str(error.value)
    return str(error.value), report


def png(colour: tuple[int, int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(content, "PNG")
    return content.getvalue()


def recoded(path: Path, quality: int = 80) -> bytes:
    content = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(content, "JPEG", quality=quality)
    return content.getvalue()


def sources(samples: list[Sample]) -> set[str]:
    return {sample.source for sample in samples}


# --- what comes out ------------------------------------------------------------------------------------------------------------


def test_a_staged_data_set_becomes_three_stratified_splits(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 40, "b": 60, "c": 20})
    dataset = read_folder(root, source="photos")
    splits, report = run(staged(root, tmp_path / "in"), tmp_path / "out")
    assert {split: Counter(sample.label for sample in samples) for split, samples in splits.items()} == {
        Split.TRAIN: {"a": 26, "b": 39, "c": 13},
        Split.VALIDATION: {"a": 6, "b": 9, "c": 3},
        Split.TEST: {"a": 8, "b": 12, "c": 4},
    }
    everything = [sample for samples in splits.values() for sample in samples]
    assert sources(everything) == {image.source for image in dataset.images}
    by_source = {image.source: image for image in dataset.images}
    for sample in everything:
        assert sample.sha256 == by_source[sample.source].sha256
        assert sample.label == by_source[sample.source].label
        with Image.open(by_source[sample.source].file) as before, Image.open(io.BytesIO(sample.image)) as after:
            assert (np.asarray(before) == np.asarray(after)).all()
    info = read_dataset_info(tmp_path / "out" / "train")
    assert info.labels == ("a", "b", "c")
    assert info.dataset_digest == dataset.digest == report["dataset_digest"]
    assert report["status"] == "succeeded"
    assert report["splits"]["test"] == {"images": 24, "counts": {"a": 8, "b": 12, "c": 4}}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    root = staged(photos(tmp_path / "photos", {"a": 30, "b": 30}), tmp_path / "in")
    outputs = []
    for name in ("first", "second"):
        run(root, tmp_path / name)
        outputs.append({path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()})
    assert outputs[0] == outputs[1]


def test_another_seed_is_another_split_and_classes_come_mixed(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 30, "b": 30})
    first, _ = run(root, tmp_path / "first")
    second, _ = run(root, tmp_path / "second", seed=1)
    assert sources(first[Split.TEST]) != sources(second[Split.TEST])
    labels = [sample.label for sample in first[Split.TRAIN]]
    assert labels != sorted(labels)
    assert labels != sorted(labels, reverse=True)


def test_a_plain_folder_gives_the_splits_of_the_staged_one(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 5})
    plain, plain_report = run(root, tmp_path / "plain")
    from_staged, staged_report = run(staged(root, tmp_path / "in"), tmp_path / "staged")
    assert plain == from_staged
    assert plain_report["dataset_digest"] != ""
    assert staged_report["dataset_digest"] == read_folder(root, source="x").digest


def test_given_test_images_are_the_test_split(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 7})
    splits, _ = run(staged(root, tmp_path / "in"), tmp_path / "out")
    assert {source.split("/")[0] for source in sources(splits[Split.TEST])} == {"test"}
    assert len(splits[Split.TEST]) == 12
    assert Counter(sample.label for sample in splits[Split.VALIDATION]) == {"a": 3, "b": 3}
    assert len(splits[Split.TRAIN]) == 34


def test_odd_class_and_file_names_survive(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"café racer": 12, "自転車": 12})
    (root / "café racer" / "000.png").rename(root / "café racer" / "été 1+2 & #3.png")
    splits, _ = run(staged(root, tmp_path / "in"), tmp_path / "out")
    everything = [sample for samples in splits.values() for sample in samples]
    assert {sample.label for sample in everything} == {"café racer", "自転車"}
    assert "café racer/été 1+2 & #3.png" in sources(everything)
    sheets = sorted(path.name for path in (tmp_path / "out" / "report").glob("*.png"))
    assert sheets == ["contact-sheet-00-caf--racer.png", "contact-sheet-01----.png"]


def test_baseline_and_contact_sheets_are_of_the_images(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number in range(20):
        for label, base in (("dark", 10), ("light", 200)):
            (root / label).mkdir(parents=True, exist_ok=True)
            (root / label / f"{number}.png").write_bytes(png((base + number, base, base)))
    run(root, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "report" / "statistics.json").read_text())
    features = {feature["name"]: feature for feature in document["features"]}
    assert document["dataset"]["item_count"] == 26
    assert features["green_mean"]["numerical_statistics"]["mean"] == pytest.approx(105)
    assert features["width"]["numerical_statistics"]["max"] == 32
    shares = features["label"]["string_statistics"]["distribution"]["categorical"]["buckets"]
    assert shares == [{"value": "dark", "count": 13}, {"value": "light", "count": 13}]
    assert json.loads((tmp_path / "out" / "report" / "constraints.json").read_text())["features"][-1]["string_constraints"] == {
        "domains": ["dark", "light"]
    }
    for name, low, high in (("00-dark", 0, 60), ("01-light", 180, 255)):
        with Image.open(tmp_path / "out" / "report" / f"contact-sheet-{name}.png") as sheet:
            assert low <= np.asarray(sheet)[30, 30].mean() <= high


# --- what is left out ----------------------------------------------------------------------------------------------------------


def test_bad_images_are_quarantined_with_their_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 40, "b": 40})
    (root / "a" / "000.png").write_bytes(b"")
    (root / "a" / "001.png").write_bytes(b"hello, I am a text file")
    (root / "b" / "002.png").write_bytes((root / "b" / "002.png").read_bytes()[:900])
    splits, report = run(staged(root, tmp_path / "in"), tmp_path / "out")
    assert {entry["source"]: (entry["label"], entry["reason"]) for entry in report["quarantined"]} == {
        "a/000.png": ("a", "empty"),
        "a/001.png": ("a", "not_an_image"),
        "b/002.png": ("b", "damaged"),
    }
    assert report["quarantined_by_reason"] == {"damaged": 1, "empty": 1, "not_an_image": 1}
    everything = {source for samples in splits.values() for source in sources(samples)}
    assert len(everything) == 77
    assert everything.isdisjoint({"a/000.png", "a/001.png", "b/002.png"})


def test_too_many_bad_images_fail_the_run(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 20, "b": 20})
    for number in range(4):
        (root / "a" / f"{number:03d}.png").write_bytes(f"text {number}".encode())
    run(root, tmp_path / "just enough", max_bad_share=0.1)
    (root / "b" / "000.png").write_bytes(b"")
    message, report = refused(root, tmp_path / "out", max_bad_share=0.1)
    assert "5 of 40 images are bad (1 empty, 4 not_an_image)" in message
    assert "a/000.png" in message
    assert len(report["quarantined"]) == 5


def test_a_class_that_ends_too_small_fails_the_run(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 40, "b": 11})
    (root / "b" / "000.png").write_bytes(b"")
    (root / "b" / "001.png").write_bytes((root / "b" / "002.png").read_bytes())
    message, report = refused(root, tmp_path / "out")
    assert "b: 9; each class needs 10" in message
    assert "1 bad, 1 exact copies" in message
    assert report["usable"] == {"a": 40, "b": 9}


def test_images_the_manifest_lists_and_nobody_finds_are_quarantined(tmp_path: Path) -> None:
    root = staged(photos(tmp_path / "photos", {"a": 20, "b": 20}), tmp_path / "in")
    manifest = json.loads((root / "manifest.json").read_text())
    (root / manifest["images"][0]["path"]).unlink()
    (root / manifest["images"][1]["path"]).write_bytes(png((1, 2, 3)))
    (root / "images" / "a" / "stray.png").write_bytes(png((1, 2, 3)))
    _, report = run(root, tmp_path / "out")
    assert Counter(entry["reason"] for entry in report["quarantined"]) == {"missing": 1, "changed": 1}
    assert report["unlisted"] == ["images/a/stray.png"]


def test_an_image_of_an_unknown_class_is_quarantined(tmp_path: Path) -> None:
    root = staged(photos(tmp_path / "photos", {"a": 20, "b": 20, "c": 10}), tmp_path / "in")
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["labels"] = ["a", "b"]
    (root / "manifest.json").write_text(json.dumps(manifest))
    splits, report = run(root, tmp_path / "out", max_bad_share=0.5)
    assert Counter(entry["reason"] for entry in report["quarantined"]) == {"unknown_class": 10}
    assert {sample.label for samples in splits.values() for sample in samples} == {"a", "b"}


def test_exact_copies_of_a_class_are_used_once(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 20, "b": 20})
    (root / "a" / "x.png").write_bytes((root / "a" / "005.png").read_bytes())
    with Image.open(root / "b" / "007.png") as image:  # another file, the same pixels
        image.save(root / "b" / "y.bmp")
    splits, report = run(staged(root, tmp_path / "in"), tmp_path / "out")
    assert report["duplicates"] == [{"source": "a/x.png", "same_as": "a/005.png"}, {"source": "b/y.bmp", "same_as": "b/007.png"}]
    assert sum(len(samples) for samples in splits.values()) == 40


@pytest.mark.parametrize("seed", range(4))
def test_look_alikes_never_straddle_a_split(tmp_path: Path, seed: int) -> None:
    root = photos(tmp_path / "photos", {"a": 30, "b": 30})
    for label in ("a", "b"):
        for number in range(10):
            (root / label / f"copy-{number:03d}.jpg").write_bytes(recoded(root / label / f"{number:03d}.png"))
            with Image.open(root / label / f"{number:03d}.png") as image:
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((100, 100)).save(root / label / f"mirror-{number:03d}.png")
    splits, report = run(root, tmp_path / "out", seed=seed)
    sides: defaultdict[str, set[Split]] = defaultdict(set)
    for split, samples in splits.items():
        for sample in samples:
            folder, name = sample.source.split("/")
            sides[f"{folder}/{name.removesuffix('.png').removesuffix('.jpg').split('-')[-1]}"].add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert sorted(len(group) for group in report["near_duplicate_groups"]) == [3] * 20
    assert sum(len(samples) for samples in splits.values()) == 100


def test_look_alikes_of_given_test_images_leave_the_training_images(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 5})
    (root / "train" / "a" / "exact.png").write_bytes((root / "test" / "a" / "001.png").read_bytes())
    (root / "train" / "b" / "near.jpg").write_bytes(recoded(root / "test" / "b" / "002.png"))
    splits, report = run(staged(root, tmp_path / "in"), tmp_path / "out")
    assert report["duplicates"] == [{"source": "train/a/exact.png", "same_as": "test/a/001.png"}]
    assert report["left_out_as_near_duplicates_of_test"] == ["train/b/near.jpg"]
    assert len(splits[Split.TEST]) == 10
    assert len(splits[Split.TRAIN]) + len(splits[Split.VALIDATION]) == 40
    assert {"train/a/exact.png", "train/b/near.jpg"}.isdisjoint(sources(splits[Split.TRAIN]) | sources(splits[Split.VALIDATION]))


def test_near_duplicates_can_be_let_alone(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 20, "b": 20})
    (root / "a" / "copy.jpg").write_bytes(recoded(root / "a" / "000.png"))
    assert run(root, tmp_path / "out", near_duplicate_similarity=1.1)[1]["near_duplicate_groups"] == []


def test_the_same_image_in_two_classes_fails_the_run_unless_allowed(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 20, "b": 20})
    (root / "b" / "same.png").write_bytes((root / "a" / "003.png").read_bytes())
    for label in ("a", "b"):
        for number in range(8):  # too flat for a perceptual hash to tell anything
            (root / label / f"flat-{number}.png").write_bytes(png((20 * number, 9, 9)))
    message, report = refused(staged(root, tmp_path / "in"), tmp_path / "out")
    assert "a/003.png = b/same.png" in message
    assert "--allow-conflicting-labels true" in message
    assert [[entry["label"] for entry in group] for group in report["conflicting_labels"]] == [["a", "b"]] * 9
    splits, report = run(tmp_path / "in", tmp_path / "allowed", allow_conflicting_labels=True)
    assert len(report["conflicting_labels"]) == 9
    for pair in ({"a/003.png", "b/same.png"}, *({f"a/flat-{number}.png", f"b/flat-{number}.png"} for number in range(8))):
        assert sum(pair <= sources(samples) for samples in splits.values()) == 1


def test_images_too_much_alike_to_divide_say_so(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 1, "b": 30})
    for quality in range(60, 84):
        (root / "a" / f"{quality}.jpg").write_bytes(recoded(root / "a" / "000.png", quality))
    message, _ = refused(root, tmp_path / "out")
    assert "split has no image of a" in message
    assert "--near-duplicate-similarity" in message


# --- inputs that are no data set -----------------------------------------------------------------------------------------------


def test_one_class_is_refused(tmp_path: Path) -> None:
    message, _ = refused(photos(tmp_path / "photos", {"a": 20}), tmp_path / "out")
    assert "one class only (a)" in message


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused(tmp_path / "empty", tmp_path / "out")[0]
    assert "is not a folder" in refused(tmp_path / "none", tmp_path / "out")[0]


def test_an_unfinished_staging_is_named(tmp_path: Path) -> None:
    root = staged(photos(tmp_path / "photos", {"a": 20, "b": 20}), tmp_path / "in")
    (root / "manifest.json").unlink()
    assert "staging did not finish" in refused(root, tmp_path / "out")[0]


def change(key: str, value: Any) -> Any:
    def apply(manifest: dict[str, Any]) -> None:
        manifest[key] = value

    return apply


def change_image(key: str, value: Any) -> Any:
    def apply(manifest: dict[str, Any]) -> None:
        manifest["images"][0][key] = value

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("version", 2), "this job reads version 1"),
        (change("images", None), "is damaged"),
        (change("labels", 7), "is damaged"),
        (change_image("path", "../../etc/passwd"), "is damaged"),
        (change_image("path", "/etc/passwd"), "is damaged"),
        (change_image("sha256", "zz"), "is damaged"),
        (change_image("split", "maybe"), "is damaged"),
        (change_image("label", "b"), "it was changed"),
        (change("dataset_digest", "0" * 64), "it was changed"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, edit: Any, message: str) -> None:
    root = staged(photos(tmp_path / "photos", {"a": 20, "b": 20}), tmp_path / "in")
    manifest = json.loads((root / "manifest.json").read_text())
    edit(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))
    assert message in refused(root, tmp_path / "out")[0]
    (root / "manifest.json").write_text("{")
    assert "is damaged" in refused(root, tmp_path / "out2")[0]


def test_both_sides_compute_one_digest(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"train/a": 12, "train/b": 12, "test/a": 2, "test/b": 2})
    dataset = read_folder(root, source="x")
    rows = [(image.label, image.sha256, image.split) for image in dataset.images]
    assert dataset_digest(rows) == dataset.digest == staging.dataset.dataset_digest(rows)
    assert read_input(staged(root, tmp_path / "in")).digest == dataset.digest


def test_folders_that_hold_shards_are_not_written_into(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 20, "b": 20})
    run(root, tmp_path / "out")
    with pytest.raises(StepError, match="already holds shards"):
        run(root, tmp_path / "out")


# --- many images ---------------------------------------------------------------------------------------------------------------


def test_processes_give_the_same_verdicts_in_the_same_order(tmp_path: Path) -> None:
    root = write_sample(tmp_path / "s", 100)
    (root / "bicycle" / "bad.png").write_bytes(b"text")
    images: list[InputImage] = list(read_input(root).images)
    rules = ImageRules(16, 256)
    assert list(inspect_all(images, rules, processes=2)) == list(inspect_all(images, rules, processes=1))


def test_a_worker_that_is_killed_is_a_message_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import inspection

    monkeypatch.setattr(inspection, "_die_with_parent", functools.partial(os._exit, 1))
    images = list(read_input(write_sample(tmp_path / "s", 40)).images)
    with pytest.raises(StepError, match="was killed, most likely for want of memory"):
        list(inspect_all(images, ImageRules(16, 256), processes=2))


WORKERS = """
import multiprocessing, sys, time
from pathlib import Path
from inputs import read_input
from inspection import inspect_all
from validation import ImageRules

if __name__ == "__main__":
    verdicts = inspect_all(list(read_input(Path(sys.argv[1])).images), ImageRules(16, 256), processes=2)
    next(verdicts)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def test_workers_die_with_a_job_that_is_killed(tmp_path: Path) -> None:
    root = tmp_path / "s"
    (root / "bicycle").mkdir(parents=True)
    for number in range(400):
        (root / "bicycle" / f"{number}.png").write_bytes(pictures(40, 1)[number % 40])
    (tmp_path / "script.py").write_text(WORKERS)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "steps")}
    command = [sys.executable, str(tmp_path / "script.py"), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as job:
        assert job.stdout is not None
        workers = job.stdout.readline().split()
        job.kill()
    assert len(workers) == 2

    def alive() -> list[str]:
        states = subprocess.run(["ps", "-o", "stat=", "-p", ",".join(workers)], capture_output=True, text=True).stdout.split()
        return [state for state in states if not state.startswith("Z")]

    deadline = time.monotonic() + 20
    while alive():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


# --- as a job ------------------------------------------------------------------------------------------------------------------


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    paths = [part for name in ("train", "validation", "test", "report") for part in (f"--{name}", str(out / name))]
    return ["--input", str(root), *paths, "--failure-file", str(out / "message"), *more]


def test_the_job_ends_with_0_and_no_message(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 20, "b": 20})
    assert main(arguments(root, tmp_path / "out", "--seed", "3", "--allow-conflicting-labels", "false")) == 0
    assert not (tmp_path / "out" / "message").exists()
    assert read_dataset_info(tmp_path / "out" / "test").total == 8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-bad-share", "1.5"], "--max-bad-share 1.5: must be between 0 and 1"),
        (["--max-bad-share", "few"], "argument --max-bad-share: invalid float value: 'few'"),
        (["--validation-fraction", "0.6", "--test-fraction", "0.4"], "leave nothing to train on"),
        (["--validation-fraction", "0"], "training needs validation images"),
        (["--test-fraction", "0"], "brings no test images"),
        (["--min-image-side", "300"], "must be between 1 and --max-image-side (256)"),
        (["--min-images-per-class", "0"], "must be at least 1"),
        (["--near-duplicate-similarity", "0.2"], "must be above 0.5"),
        (["--allow-conflicting-labels", "maybe"], "must be true or false"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_wrong_arguments_reach_the_failure_file(tmp_path: Path, more: list[str], message: str) -> None:
    root = photos(tmp_path / "photos", {"a": 12, "b": 12})
    assert main(arguments(root, tmp_path / "out", *more)) == 1
    assert message in (tmp_path / "out" / "message").read_text(encoding="utf-8")


def test_a_data_error_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"a": 12, "b": 12})
    (root / "b" / "same.png").write_bytes((root / "a" / "003.png").read_bytes())
    script = Path(__file__).parents[2] / "steps" / "preprocess.py"
    job = subprocess.run([sys.executable, str(script), *arguments(root, tmp_path / "out")], capture_output=True, text=True, timeout=60)
    assert job.returncode == 1
    message = (tmp_path / "out" / "message").read_text(encoding="utf-8")
    assert message.startswith("The same image is in several classes, 1 times. a/003.png = b/same.png.")
    assert len(message) <= 1024
    assert message in job.stdout
    assert "Traceback" not in job.stdout + job.stderr
