"""staging: reading folders, refusing what cannot be trained on, and the digest."""

from __future__ import annotations

import json
import os
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staging import (
    Dataset,
    DatasetRefusedError,
    ProgressEvent,
    SourceNotFoundError,
    Split,
    StagingPhase,
    UnknownClassError,
    prepare,
)
from staging.dataset import dataset_digest, manifest_bytes


def put(root: Path, counts: dict[str, int], extension: str = ".png") -> Path:
    """Files with distinct contents; staging does not look inside."""
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number:03d}{extension}").write_bytes(f"{folder}/{number}/{extension}".encode())
    return root


def read(root: Path, **options: object) -> Dataset:
    return prepare(str(root), cache_dir=root.parent / "cache", **options)  # type: ignore[arg-type]


def test_class_folders_become_labels(tmp_path: Path) -> None:
    dataset = read(put(tmp_path / "photos", {"tram": 10, "bicycle": 12, "motorcycle": 11}))
    assert dataset.labels == ("bicycle", "motorcycle", "tram")
    assert dataset.counts == {"bicycle": 12, "motorcycle": 11, "tram": 10}
    assert {image.split for image in dataset.images} == {None}
    assert dataset.source == "photos"
    assert dataset.ignored == ()


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    dataset = read(put(tmp_path / "p", {"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 3}))
    assert dataset.counts == {"a": 12, "b": 13}
    assert sum(image.split is Split.TEST for image in dataset.images) == 5
    assert sum(image.split is Split.TRAIN for image in dataset.images) == 20
    assert {image.source for image in dataset.images if image.split is Split.TEST} >= {"test/a/000.png", "test/b/002.png"}


def test_folder_names_of_splits_are_case_insensitive_and_validation_joins_training(tmp_path: Path) -> None:
    dataset = read(put(tmp_path / "p", {"Train/a": 10, "Train/b": 10, "Test/a": 2, "Test/b": 2, "val/a": 1, "val/b": 1}))
    assert sum(image.split is Split.TRAIN for image in dataset.images) == 22
    assert any("val/" in note for note in dataset.notes)


def test_a_vehicle_called_train_is_a_class(tmp_path: Path) -> None:
    assert read(put(tmp_path / "p", {"train": 10, "bicycle": 10})).labels == ("bicycle", "train")
    assert read(put(tmp_path / "q", {"train": 10, "test": 10})).labels == ("test", "train")


def test_all_five_formats_in_any_case_at_any_depth(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"a/deep/er": 10, "b": 10})
    for extension in (".PNG", ".Jpg", ".jpeg", ".WEBP", ".bmp"):
        put(root, {"a": 1}, extension)
    dataset = read(root)
    assert dataset.counts == {"a": 15, "b": 10}
    assert {Path(image.path).suffix for image in dataset.images} == {".png", ".jpg", ".webp", ".bmp"}


def test_hidden_files_are_passed_over_and_others_reported(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"a": 10, "b": 10, ".cache": 3, "__MACOSX": 3, "a/.thumbnails": 3})
    for name in ("a/.DS_Store", "a/Thumbs.db", "README.md", "a/notes.txt", "b/scan.tiff", "loose.png"):
        (root / name).write_bytes(b"x")
    dataset = read(root)
    assert dataset.counts == {"a": 10, "b": 10}
    assert {entry.source: entry.reason for entry in dataset.ignored} == {
        "README.md": "not in a class folder",
        "loose.png": "not in a class folder",
        "a/notes.txt": "not an image file (bmp, jpeg, jpg, png, webp)",
        "b/scan.tiff": "not an image file (bmp, jpeg, jpg, png, webp)",
    }


def test_files_too_large_to_be_photos_are_reported(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"a": 10, "b": 10})
    with (root / "a" / "huge.png").open("wb") as handle:
        handle.truncate(300 * 1024 * 1024)
    assert [entry.source for entry in read(root).ignored] == ["a/huge.png"]


def test_unicode_and_spaces_in_names(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"café racer": 10, "bicycle": 10})
    (root / "café racer" / "été 1+2 & #3.png").write_bytes(b"odd")
    dataset = read(root)
    assert dataset.labels == ("bicycle", "café racer")
    (odd,) = [image for image in dataset.images if "été" in image.source]
    assert odd.path == f"images/café racer/{odd.sha256}.png"
    assert odd.source == "café racer/été 1+2 & #3.png"


def test_composed_and_decomposed_class_names_are_one_class(tmp_path: Path) -> None:
    first = read(put(tmp_path / "p", {"caf\u00e9": 10, "b": 10}))
    root = tmp_path / "q"
    for image in first.images:
        target = root / image.source.replace("caf\u00e9", "cafe\u0301")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image.file.read_bytes())
    second = read(root)
    assert second.labels == ("b", "caf\u00e9")
    assert second.digest == first.digest


def test_links_that_lead_back_up_end(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"a/inner": 10, "b": 10})
    (root / "a" / "inner" / "loop").symlink_to(root / "a", target_is_directory=True)
    assert read(root).counts == {"a": 10, "b": 10}


@pytest.mark.parametrize(
    ("counts", "message", "found"),
    [
        ({}, "holds no images", {}),
        ({"a": 12}, "one class only", {"a": 12}),
        ({"a": 12, "b": 9}, "Too few images in b: 9", {"a": 12, "b": 9}),
        ({"a": 3, "b": 9, "c": 10}, "Too few images in a: 3, b: 9", {"a": 3, "b": 9, "c": 10}),
        ({"train/a": 10, "train/b": 9, "test/a": 5, "test/b": 5}, "Too few images in b: 9", {"a": 15, "b": 14}),
        ({"train/a": 10, "train/b": 10, "test/a": 5}, "b is only in train", {"a": 15, "b": 10}),
        ({"train/a": 10, "train/b": 10, "test/a": 5, "test/b": 5, "test/c": 5}, "c is only in test", {"a": 15, "b": 15, "c": 5}),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_the_counts(
    tmp_path: Path, counts: dict[str, int], message: str, found: dict[str, int]
) -> None:
    root = put(tmp_path / "p", counts)
    root.mkdir(exist_ok=True)
    with pytest.raises(DatasetRefusedError) as error:
        read(root)
    assert message in error.value.message
    assert "nothing was uploaded" in error.value.message
    assert error.value.counts == found
    assert all(f"{label}: {count}" in error.value.message for label, count in found.items() if len(found) > 1 and "only in" not in message)
    assert error.value.hint


def test_images_beside_each_other_without_class_folders_are_counted(tmp_path: Path) -> None:
    root = put(tmp_path, {"p": 14})
    with pytest.raises(DatasetRefusedError, match="14 files lie directly in"):
        read(root / "p")


def test_one_folder_too_high_names_the_right_one(tmp_path: Path) -> None:
    put(tmp_path / "data" / "two-wheelers", {"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 2})
    with pytest.raises(DatasetRefusedError) as error:
        read(tmp_path / "data")
    assert str(tmp_path / "data" / "two-wheelers") in error.value.hint


def test_a_path_that_does_not_exist_suggests_the_nearest(tmp_path: Path) -> None:
    put(tmp_path, {"two-wheelers": 1})
    with pytest.raises(SourceNotFoundError) as error:
        read(tmp_path / "two-weelers")
    assert str(tmp_path / "two-wheelers") in error.value.hint
    with pytest.raises(SourceNotFoundError) as error:
        read(tmp_path / "nothing" / "here")
    assert "cifar100" in error.value.hint
    assert "sample" in error.value.hint


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"x")
    with pytest.raises(SourceNotFoundError, match="is a file, not a folder"):
        read(tmp_path / "photos.zip")


def test_a_class_name_that_cannot_be_a_key_is_refused(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"a": 10, "b": 10, "new\nline": 10})
    with pytest.raises(SourceNotFoundError, match="cannot be an object key"):
        read(root)


def test_a_folder_that_vanishes_while_read_is_an_error_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put(tmp_path / "p", {"a": 10, "b": 10})

    def gone(event: ProgressEvent) -> None:
        raise AssertionError(f"no progress expected, got {event}")

    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("staging.folder.os.scandir", scandir)
    with pytest.raises(SourceNotFoundError, match=r"p/b cannot be read: Permission denied"):
        read(root, progress=gone)


def test_chosen_classes_only(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"a": 10, "b": 10, "bicycle": 10})
    assert read(root, classes=["a", "bicycle"]).labels == ("a", "bicycle")
    with pytest.raises(UnknownClassError) as error:
        read(root, classes=["a", "bicycel"])
    assert "Did you mean 'bicycle'?" in error.value.hint


def test_progress_ends_with_all_files_read(tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    read(put(tmp_path / "p", {"a": 300, "b": 300}), progress=events.append)
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1] == ProgressEvent(StagingPhase.READ, 600, 600)


def test_the_same_image_in_two_classes_is_found(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"a": 10, "b": 10})
    (root / "b" / "copy.png").write_bytes((root / "a" / "003.png").read_bytes())
    (root / "a" / "twice.png").write_bytes((root / "a" / "004.png").read_bytes())
    assert [set(group) for group in read(root).conflicts()] == [{"a/003.png", "b/copy.png"}]


def test_the_digest_is_of_contents_and_classes_not_of_names(tmp_path: Path) -> None:
    root = put(tmp_path / "p", {"a": 10, "b": 10})
    before = read(root)
    (root / "a" / "000.png").rename(root / "a" / "zzz.jpeg")
    renamed = read(root)
    assert renamed.digest == before.digest
    (root / "a" / "zzz.jpeg").write_bytes(b"other")
    assert read(root).digest != before.digest


rows = st.lists(
    st.tuples(
        st.text(max_size=5).filter(lambda t: t.isprintable()),
        st.sampled_from(["0" * 64, "1" * 64, "2" * 64]),
        st.sampled_from([None, "train", "test"]),
    ),
    max_size=8,
)


@given(rows=rows, other=rows, chance=st.randoms())
def test_digests_are_equal_exactly_when_the_rows_are(
    rows: list[tuple[str, str, str | None]], other: list[tuple[str, str, str | None]], chance: object
) -> None:
    def key(row: tuple[str, str, str | None]) -> tuple[str, str, str]:
        return row[0], row[1], row[2] or ""

    shuffled = list(rows)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert dataset_digest(shuffled) == dataset_digest(rows)
    assert (dataset_digest(rows) == dataset_digest(other)) == (sorted(rows, key=key) == sorted(other, key=key))


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: not name.startswith(".") and name.isprintable() and name.lower() not in ("thumbs.db", "desktop.ini", "__macosx")
)


@given(labels=st.lists(names, min_size=2, max_size=3, unique_by=folded), contents=st.lists(st.binary(max_size=8), min_size=10, max_size=12))
@settings(max_examples=25)
def test_the_manifest_describes_every_file(labels: list[str], contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "p"
        for label in labels:
            (root / label).mkdir(parents=True)
            for number, content in enumerate(contents):
                (root / label / f"{number}.png").write_bytes(content)
        dataset = read(root)
        manifest = json.loads(manifest_bytes(dataset.manifest()))
        assert manifest == dataset.manifest()
        assert manifest["labels"] == sorted(manifest["labels"])
        assert len(manifest["images"]) == len(labels) * len(contents)
        assert manifest["dataset_digest"] == dataset_digest((i["label"], i["sha256"], i["split"]) for i in manifest["images"])
        for entry in manifest["images"]:
            assert (root / entry["source"]).stat().st_size == entry["size"]
            assert entry["path"] == f"images/{entry['label']}/{entry['sha256']}.png"
