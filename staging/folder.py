"""A folder of class folders as a source."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from staging.dataset import Dataset, IgnoredFile, Progress, ProgressEvent, SourceImage, Split, StagingPhase
from staging.errors import DatasetRefusedError, SourceNotFoundError, UnknownClassError

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MIN_IMAGES_PER_CLASS = 10
# Larger than any photo in these formats; a file above it is a mistake, not an image to upload.
MAX_IMAGE_BYTES = 256 * 1024 * 1024
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_SPLIT_FOLDERS = {"train": Split.TRAIN, "test": Split.TEST}
_VALIDATION_FOLDERS = frozenset({"val", "valid", "validation"})
_READ_THREADS = 4
_READ_AHEAD = 256


@dataclass(frozen=True, slots=True)
class _Found:
    file: Path
    label: str
    source: str
    split: Split | None


def read_folder(root: Path, *, source: str, classes: Sequence[str] = (), progress: Progress | None = None) -> Dataset:
    """Read `root`: class folders, or `train` and `test` folders of class folders. Images may lie at any depth in a class folder.

    `source`: what the data set is called in the manifest. `classes`: take only these (empty: all). Raises SourceNotFoundError when `root`
    is no readable folder, UnknownClassError for a class it does not have, DatasetRefusedError for fewer than two classes, fewer than
    MIN_IMAGES_PER_CLASS images in one, or classes that do not agree between train and test.
    """
    if not root.is_dir():
        raise _not_a_folder(root)
    ignored: list[IgnoredFile] = []
    notes: list[str] = []
    try:
        found = list(_find(root, ignored, notes))
    except OSError as error:
        raise SourceNotFoundError(
            f"{error.filename or root} cannot be read: {error.strerror or error}",
            "Make the folder and its files readable, then stage again.",
        ) from error
    if classes:
        found = _only(found, classes, root)
    _check_counts(root, found, ignored)
    images = sorted(_hash(found, progress), key=lambda image: (image.path, image.source, image.split or ""))
    labels = tuple(sorted({image.label for image in images}))
    return Dataset(source, labels, tuple(images), tuple(sorted(ignored, key=lambda entry: entry.source)), tuple(notes))


def _find(root: Path, ignored: list[IgnoredFile], notes: list[str]) -> Iterator[_Found]:
    folders = {entry.name: Path(entry) for entry in _entries(root) if entry.is_dir()}
    by_name = {name.lower(): path for name, path in folders.items()}
    known = _SPLIT_FOLDERS.keys() | _VALIDATION_FOLDERS
    split_layout = (
        "train" in by_name and len(by_name) > 1 and by_name.keys() <= known and all(_has_folders(path) for path in by_name.values())
    )
    if not split_layout:
        yield from _find_classes(root, root, None, ignored)
        return
    keeps_test = "test" in by_name
    for name, path in sorted(by_name.items()):
        if name in _VALIDATION_FOLDERS:
            notes.append(f"{path.name}/ was added to the training images: the preprocessing step draws its own validation split.")
        split = _SPLIT_FOLDERS.get(name, Split.TRAIN) if keeps_test else None
        yield from _find_classes(path, root, split, ignored)
    ignored.extend(IgnoredFile(entry.name, "not in a class folder") for entry in _entries(root) if entry.is_file())


def _find_classes(folder: Path, root: Path, split: Split | None, ignored: list[IgnoredFile]) -> Iterator[_Found]:
    for entry in _entries(folder):
        if not entry.is_dir():
            ignored.append(IgnoredFile(_relative(Path(entry), root), "not in a class folder"))
            continue
        # macOS hands out decomposed names, others composed ones: the class is the same.
        label = unicodedata.normalize("NFC", entry.name)
        if not label.isprintable() or len(label.encode("utf-8", "surrogateescape")) > 200 or _has_surrogate(label):
            raise SourceNotFoundError(
                f"The class folder {entry.path!r} has a name that cannot be an object key.",
                "Rename it: printable characters, at most 200 bytes as UTF-8.",
            )
        for path in _files(Path(entry), set()):
            source = _relative(path, root)
            if _has_surrogate(source):
                source = os.fsencode(source).decode("utf-8", "backslashreplace")
            if path.suffix.lower() not in IMAGE_EXTENSIONS:
                ignored.append(IgnoredFile(source, f"not an image file ({', '.join(sorted(name[1:] for name in IMAGE_EXTENSIONS))})"))
            elif path.stat().st_size > MAX_IMAGE_BYTES:
                ignored.append(IgnoredFile(source, f"larger than {MAX_IMAGE_BYTES // 2**20} MB"))
            else:
                yield _Found(path, label, source, split)


def _files(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _files(Path(entry), seen)
        elif entry.is_file():
            yield Path(entry)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".") and e.name.lower() not in _SYSTEM_FILES), key=lambda e: e.name)


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in _entries(folder))


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _only(found: list[_Found], classes: Sequence[str], root: Path) -> list[_Found]:
    available = sorted({image.label for image in found})
    for name in classes:
        if name not in available:
            near = get_close_matches(name, available, 1)
            raise UnknownClassError(
                f"{root} has no class {name!r}.",
                (f"Did you mean {near[0]!r}? " if near else "") + f"Its classes: {', '.join(available) or 'none'}.",
            )
    return [image for image in found if image.label in set(classes)]


def _check_counts(root: Path, found: list[_Found], ignored: list[IgnoredFile]) -> None:
    train = Counter(image.label for image in found if image.split is not Split.TEST)
    test = Counter(image.label for image in found if image.split is Split.TEST)
    counts = {label: train[label] + test[label] for label in sorted(train.keys() | test.keys())}
    layout = f"Expected {root}/<class>/<image>, or {root}/train/<class>/<image> with {root}/test/<class>/<image>."
    listing = ", ".join(f"{label}: {count}" for label, count in counts.items())
    if not counts:
        loose = sum(entry.reason == "not in a class folder" for entry in ignored)
        what = (
            f"{loose} files lie directly in {root}, none in a class folder"
            if loose
            else f"{root} holds no images (png, jpg, jpeg, webp, bmp)"
        )
        raise DatasetRefusedError(f"{what}; nothing was uploaded.", layout, counts)
    if len(counts) == 1:
        (label,) = counts
        inner = sorted(entry.name for entry in _entries(root / label) if entry.is_dir()) if (root / label).is_dir() else []
        hint = f"Did you mean {root / label}, which holds the folders {', '.join(inner)}? {layout}" if inner else layout
        raise DatasetRefusedError(
            f"{root} has one class only ({listing}), a classifier needs at least two; nothing was uploaded.", hint, counts
        )
    if test and (odd := sorted(set(train) ^ set(test))):
        where = ", ".join(f"{label} is only in {'train' if train[label] else 'test'}" for label in odd)
        raise DatasetRefusedError(
            f"train and test have different classes: {where}; nothing was uploaded.",
            "Give every class images in both folders, or leave the test folder out and let the preprocessing step split.",
            counts,
        )
    small = [f"{label}: {count}" for label, count in sorted(train.items()) if count < MIN_IMAGES_PER_CLASS]
    if small:
        raise DatasetRefusedError(
            f"Too few images in {', '.join(small)} (found {listing}{' in train and test' if test else ''}); nothing was uploaded.",
            f"Every class needs at least {MIN_IMAGES_PER_CLASS} images to train on. Add images, or leave the class out.",
            counts,
        )


def _hash(found: list[_Found], progress: Progress | None) -> Iterator[SourceImage]:
    def read(image: _Found) -> SourceImage:
        with image.file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            return SourceImage(image.file, image.label, image.source, digest, handle.tell(), image.split)

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        pending = iter(found)
        done = 0
        try:
            # A window instead of one `map` over everything: a million pending futures would cost more memory than the answer.
            while window := list(islice(pending, _READ_AHEAD)):
                for image in pool.map(read, window):
                    done += 1
                    yield image
                if progress is not None:
                    progress(ProgressEvent(StagingPhase.READ, done, len(found)))
        except OSError as error:
            raise SourceNotFoundError(
                f"{error.filename} cannot be read: {error.strerror or error}", "Make the file readable or remove it, then stage again."
            ) from error


def _not_a_folder(root: Path) -> SourceNotFoundError:
    if root.exists():
        return SourceNotFoundError(f"{root} is a file, not a folder.", "Give the folder that holds one sub-folder per class.")
    parent = root.parent
    names: Iterable[str] = [entry.name for entry in _entries(parent) if entry.is_dir()] if parent.is_dir() else []
    near = get_close_matches(root.name, list(names), 1, 0.5)
    if near:
        return SourceNotFoundError(f"{root} does not exist.", f"Did you mean {parent / near[0]}?")
    return SourceNotFoundError(f"{root} does not exist.", "Give a folder with one sub-folder per class, `cifar100`, or `sample`.")
