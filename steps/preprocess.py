"""The Preprocess job: from staged images to shards of train, validation and test, with a report of everything that was left out.

Reads `--input` (a staged prefix with its manifest, or a plain folder of class folders). Writes shards to `--train`, `--validation` and
`--test`, and to `--report`: data_report.json, statistics.json, constraints.json and a contact sheet per class. Nothing is written to the
splits before every check passed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NoReturn

from baseline import constraints, statistics
from contact_sheet import write_contact_sheet
from duplicates import DEFAULT_SIMILARITY, Fingerprint, find_near_duplicates, group
from failures import StepError, configure_logging, run_step
from inputs import InputData, InputImage, dataset_digest, read_input
from inspection import inspect_all
from shards import DEFAULT_MAX_SHARD_BYTES, DatasetInfo, Sample, ShardError, write_shards
from splits import Split, SplitItem, assign_splits, shuffle_key
from tracking import Run, job_run
from validation import ImageRules, Inspected, Rejected, RejectReason

logger = logging.getLogger("preprocess")

REPORT_VERSION = 1
# A message is cut at 1,024 characters where SageMaker shows it; the report lists everything.
_NAMED_IN_MESSAGES = 3
_SHEET_IMAGES = 64


@dataclass(frozen=True, slots=True)
class Options:
    """How images are judged and split; `help` texts of the arguments say what each means."""

    validation_fraction: float
    test_fraction: float
    seed: int
    min_image_side: int
    max_image_side: int
    max_bad_share: float
    min_images_per_class: int
    near_duplicate_similarity: float
    allow_conflicting_labels: bool

    def __post_init__(self) -> None:
        """Raise StepError naming the first option out of range."""
        for name in ("validation_fraction", "test_fraction", "max_bad_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise StepError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be between 0 and 1")
        if self.validation_fraction == 0:
            raise StepError("--validation-fraction 0: training needs validation images; give a share above 0")
        if self.validation_fraction + self.test_fraction >= 1:
            raise StepError(
                f"--validation-fraction {self.validation_fraction} and --test-fraction {self.test_fraction} leave nothing to train on: "
                "their sum must be below 1"
            )
        if not 1 <= self.min_image_side <= self.max_image_side:
            raise StepError(f"--min-image-side {self.min_image_side}: must be between 1 and --max-image-side ({self.max_image_side})")
        if self.min_images_per_class < 1:
            raise StepError(f"--min-images-per-class {self.min_images_per_class}: must be at least 1")
        if not self.near_duplicate_similarity > 0.5:
            raise StepError(f"--near-duplicate-similarity {self.near_duplicate_similarity}: must be above 0.5 (above 1: off)")


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the job writes."""

    train: Path
    validation: Path
    test: Path
    report: Path

    def of(self, split: Split) -> Path:
        """The folder of a split."""
        return {Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test}[split]


@dataclass(slots=True)
class _Record:
    """A usable image: where it came from, what was measured on it, and where its PNG lies in the spool."""

    image: InputImage
    file_sha256: str
    pixel_sha256: str
    features: tuple[float, ...]
    fingerprint: Fingerprint
    offset: int
    length: int

    @property
    def identity(self) -> str:
        return f"{self.image.label}/{self.pixel_sha256}"


# In the order of `_features`.
_FEATURES = ("red_mean", "green_mean", "blue_mean", "red_std", "green_std", "blue_std", "brightness", "width", "height")


def _features(inspected: Inspected) -> tuple[float, ...]:
    return (*inspected.channel_means, *inspected.channel_stds, inspected.brightness, float(inspected.width), float(inspected.height))


def preprocess(input_folder: Path, folders: Folders, options: Options, *, max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES) -> dict[str, Any]:
    """Run the whole job and return the data report. Raises StepError for data that cannot be used, having written the report as far as it got."""
    report: dict[str, Any] = {"version": REPORT_VERSION, "status": "failed", "options": asdict(options)}
    folders.report.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            # Beside the outputs, where the job's volume is; unnamed, so nothing is left behind.
            folders.train.parent.mkdir(parents=True, exist_ok=True)
            spool = stack.enter_context(tempfile.TemporaryFile(dir=folders.train.parent))
            _run(input_folder, folders, options, max_shard_bytes, spool, report)
    except StepError as error:
        report["failure"] = str(error)
        raise
    except ShardError as error:
        report["failure"] = str(error)
        raise StepError(str(error)) from error
    finally:
        _write_json(folders.report / "data_report.json", report)
    return report


def _run(input_folder: Path, folders: Folders, options: Options, max_shard_bytes: int, spool: IO[bytes], report: dict[str, Any]) -> None:
    data = read_input(input_folder)
    logger.info("Input %s: %d images of %d classes", data.source, len(data.images), len(data.labels))
    report |= {"source": data.source, "labels": list(data.labels), "images_found": len(data.images), "unlisted": list(data.unlisted)}
    if data.has_test:
        options = replace(options, test_fraction=0.0)
    elif options.test_fraction == 0:
        raise StepError(
            f"--test-fraction 0, and {data.source} brings no test images: give a share above 0, or stage train and test folders."
        )

    records = _inspect(data, options, spool, report)
    digest = data.digest or dataset_digest((r.image.label, r.file_sha256, "test" if r.image.in_test else None) for r in records)
    report["dataset_digest"] = digest
    records = _without_copies(records, options, report)
    records, groups = _grouped(records, data.has_test, options, report)
    _check_class_sizes(records, data, options, report)
    splits = _split(records, groups, data, options)

    by_split: dict[Split, list[_Record]] = {split: [] for split in Split}
    for record, split in zip(records, splits, strict=True):
        by_split[split].append(record)
    _check_every_split_has_every_class(by_split, data.labels, options)
    infos = {
        split: _write_split(split, members, folders, data.labels, digest, options.seed, max_shard_bytes, spool)
        for split, members in by_split.items()
    }
    report["splits"] = {split.value: {"images": info.total, "counts": dict(info.counts)} for split, info in infos.items()}
    _write_baseline(by_split[Split.TRAIN], folders.report)
    _write_sheets(records, data.labels, folders.report, options.seed, spool)
    report["status"] = "succeeded"
    logger.info("Wrote %s images", ", ".join(f"{info.total} {split}" for split, info in infos.items()))


def _inspect(data: InputData, options: Options, spool: IO[bytes], report: dict[str, Any]) -> list[_Record]:
    """Judge every image; usable ones go to the spool, the others into the report."""
    rules = ImageRules(options.min_image_side, options.max_image_side)
    records: list[_Record] = []
    rejected: list[tuple[InputImage, Rejected]] = []
    known = set(data.labels)
    usable = [image for image in data.images if image.label in known]
    for image in data.images:
        if image.label not in known:
            rejected.append((image, Rejected(RejectReason.UNKNOWN_CLASS, f"its class {image.label!r} is none of {', '.join(data.labels)}")))
    offset = 0
    for done, (image, result) in enumerate(zip(usable, inspect_all(usable, rules), strict=True), start=1):
        if isinstance(result, Rejected):
            rejected.append((image, result))
            logger.warning("Quarantined %s: %s", image.source, result.detail)
        else:
            spool.write(result.png)
            records.append(
                _Record(image, result.file_sha256, result.pixel_sha256, _features(result), result.fingerprint, offset, len(result.png))
            )
            offset += len(result.png)
        if done % 10_000 == 0:
            logger.info("Read %d of %d images", done, len(usable))
    rejected.sort(key=lambda pair: pair[0].source)
    report["quarantined"] = [
        {"source": image.source, "label": image.label, "reason": result.reason.value, "detail": result.detail} for image, result in rejected
    ]
    reasons = Counter(result.reason.value for _, result in rejected)
    report["quarantined_by_reason"] = dict(sorted(reasons.items()))
    if len(rejected) > options.max_bad_share * len(data.images):
        raise StepError(
            f"{len(rejected)} of {len(data.images)} images are bad ({', '.join(f'{count} {reason}' for reason, count in sorted(reasons.items()))}), "
            f"more than --max-bad-share {options.max_bad_share:g} allows. "
            + _some([f"{image.source}: {result.detail}" for image, result in rejected])
            + " Replace or remove them and stage again; data_report.json lists all."
        )
    return records


def _without_copies(records: list[_Record], options: Options, report: dict[str, Any]) -> list[_Record]:
    """Keep one of several images of a class with equal pixels, a test image if there is one; refuse equal pixels in two classes."""
    by_pixels: defaultdict[str, list[_Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (not record.image.in_test, record.image.source)):
        by_pixels[record.pixel_sha256].append(record)
    kept: list[_Record] = []
    copies: list[dict[str, str]] = []
    conflicts: list[list[_Record]] = []
    for same in by_pixels.values():
        first_of: dict[str, _Record] = {}
        for record in same:
            first = first_of.setdefault(record.image.label, record)
            if first is not record:
                copies.append({"source": record.image.source, "same_as": first.image.source})
        kept.extend(first_of.values())
        if len(first_of) > 1:
            conflicts.append(same)
    report["duplicates"] = sorted(copies, key=lambda entry: entry["source"])
    report["conflicting_labels"] = [[{"source": record.image.source, "label": record.image.label} for record in same] for same in conflicts]
    if conflicts and not options.allow_conflicting_labels:
        raise StepError(
            f"The same image is in several classes, {len(conflicts)} times. "
            + _some([" = ".join(record.image.source for record in same) for same in conflicts])
            + " Decide which class is right and stage again, or run with --allow-conflicting-labels true."
        )
    if copies:
        logger.info("Left out %d exact copies", len(copies))
    return sorted(kept, key=lambda record: record.identity)


def _grouped(records: list[_Record], has_test: bool, options: Options, report: dict[str, Any]) -> tuple[list[_Record], list[int]]:
    """Which images must stay together. With given test images, look-alikes of them leave the training images."""
    pairs = find_near_duplicates([record.fingerprint for record in records], options.near_duplicate_similarity)
    # Equal pixels under two labels (allowed ones) have one fingerprint, but it may be too flat to compare.
    first: dict[str, int] = {}
    for i, record in enumerate(records):
        same_pixels = first.setdefault(record.pixel_sha256, i)
        if same_pixels != i:
            pairs.append((same_pixels, i))
    groups = group(len(records), pairs)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(groups):
        members[number].append(index)
    report["near_duplicate_groups"] = [
        [{"source": records[i].image.source, "label": records[i].image.label} for i in same] for same in members.values() if len(same) > 1
    ]
    dropped: set[int] = set()
    if has_test:
        for same in members.values():
            if any(records[i].image.in_test for i in same):
                dropped |= {i for i in same if not records[i].image.in_test}
    report["left_out_as_near_duplicates_of_test"] = sorted(records[i].image.source for i in dropped)
    if dropped:
        logger.info("Left out %d training images that look like test images", len(dropped))
    keep = [i for i in range(len(records)) if i not in dropped]
    return [records[i] for i in keep], [groups[i] for i in keep]


def _check_class_sizes(records: list[_Record], data: InputData, options: Options, report: dict[str, Any]) -> None:
    counts = Counter(record.image.label for record in records if not record.image.in_test)
    report["usable"] = {label: counts[label] for label in data.labels}
    if len(data.labels) < 2:
        raise StepError(f"{data.source} has one class only ({', '.join(data.labels)}); a classifier needs at least two.")
    small = [f"{label}: {counts[label]}" for label in data.labels if counts[label] < options.min_images_per_class]
    if small:
        bad, copies, near = (len(report[key]) for key in ("quarantined", "duplicates", "left_out_as_near_duplicates_of_test"))
        raise StepError(
            f"Too few usable images to train on: {', '.join(small)}; each class needs {options.min_images_per_class}. "
            f"Left out: {bad} bad, {copies} exact copies, {near} look-alikes of test images. Add images of the class, or remove it."
        )


def _split(records: list[_Record], groups: list[int], data: InputData, options: Options) -> list[Split]:
    free = [i for i, record in enumerate(records) if not record.image.in_test]
    drawn = assign_splits(
        [SplitItem(records[i].image.label, groups[i], records[i].identity) for i in free],
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )
    splits = [Split.TEST] * len(records)
    for i, split in zip(free, drawn, strict=True):
        splits[i] = split
    return splits


def _check_every_split_has_every_class(by_split: Mapping[Split, Sequence[_Record]], labels: Sequence[str], options: Options) -> None:
    for split, records in by_split.items():
        missing = sorted(set(labels) - {record.image.label for record in records})
        if missing:
            raise StepError(
                f"The {split} split has no image of {', '.join(missing)}. Its images look too much alike to be divided, or are too few: add "
                f"different ones, or raise --near-duplicate-similarity ({options.near_duplicate_similarity:g}; above 1 switches grouping off)."
            )


def _write_split(
    split: Split,
    records: Sequence[_Record],
    folders: Folders,
    labels: Sequence[str],
    digest: str,
    seed: int,
    max_shard_bytes: int,
    spool: IO[bytes],
) -> DatasetInfo:
    def samples() -> Iterator[Sample]:
        # Shuffled once here, so that whoever reads a shard front to back meets the classes mixed.
        for number, record in enumerate(sorted(records, key=lambda record: shuffle_key(seed, record.identity))):
            yield Sample(f"{number:08d}", record.image.label, _png(record, spool), record.image.source, record.file_sha256)

    return write_shards(
        samples(), folders.of(split), labels=labels, split=split.value, dataset_digest=digest, max_shard_bytes=max_shard_bytes
    )


def _write_baseline(records: Sequence[_Record], report: Path) -> None:
    import numpy as np

    table = np.array([record.features for record in records], dtype=np.float64)
    features = {name: table[:, column] for column, name in enumerate(_FEATURES)}
    labels = [record.image.label for record in records]
    # The sketches are thousands of numbers: one line.
    (report / "statistics.json").write_text(json.dumps(statistics(features, labels)) + "\n", encoding="utf-8")
    _write_json(report / "constraints.json", constraints(features, labels))


def _write_sheets(records: Sequence[_Record], labels: Sequence[str], report: Path, seed: int, spool: IO[bytes]) -> None:
    of_class: defaultdict[str, list[_Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: shuffle_key(seed, record.identity)):
        if len(of_class[record.image.label]) < _SHEET_IMAGES:
            of_class[record.image.label].append(record)
    for number, label in enumerate(labels):
        # Class names may be anything a folder may be called; file names in a report may not.
        plain = "".join(character if character.isascii() and character.isalnum() else "-" for character in label)
        write_contact_sheet((_png(record, spool) for record in of_class[label]), report / f"contact-sheet-{number:02d}-{plain}.png")


def _png(record: _Record, spool: IO[bytes]) -> bytes:
    spool.seek(record.offset)
    return spool.read(record.length)


def _some(items: Sequence[str]) -> str:
    more = f", and {len(items) - _NAMED_IN_MESSAGES} more" if len(items) > _NAMED_IN_MESSAGES else ""
    return "; ".join(items[:_NAMED_IN_MESSAGES]) + more + "."


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _track(run: Run, report: Mapping[str, Any]) -> None:
    run.log_dataset("raw", report["dataset_digest"], report["source"])
    listed = ("quarantined", "duplicates", "near_duplicate_groups", "left_out_as_near_duplicates_of_test", "conflicting_labels")
    run.log_metrics({"images_found": report["images_found"], **{name: len(report[name]) for name in listed}})
    run.log_metrics({f"{split}_images": info["images"] for split, info in report["splits"].items()})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise StepError(f"{message} (arguments of preprocess.py)")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} must be true or false")
    return text.lower() == "true"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description="Validates, cleans and splits labelled images and writes them as shards.", allow_abbrev=False)
    parser.add_argument("--input", type=Path, required=True, help="staged prefix, or folder of class folders")
    for split in Split:
        parser.add_argument(f"--{split}", type=Path, required=True, help=f"folder for the {split} shards")
    parser.add_argument("--report", type=Path, required=True, help="folder for the data report, statistics, constraints and contact sheets")
    parser.add_argument("--failure-file", type=Path, help="file for the message when the job fails")
    parser.add_argument("--job-config", type=Path, help="SageMaker's description of the job, which names it")
    parser.add_argument(
        "--validation-fraction", type=float, default=0.15, help="share of the images (without given test images) for validation"
    )
    parser.add_argument("--test-fraction", type=float, default=0.2, help="share of the images for test, unless the data brings its own")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and the order")
    parser.add_argument("--min-image-side", type=int, default=16, help="pixels that each side of an image must have")
    parser.add_argument("--max-image-side", type=int, default=256, help="longer sides are shrunk to this many pixels")
    parser.add_argument("--max-bad-share", type=float, default=0.05, help="the job fails when more than this share of the images is bad")
    parser.add_argument("--min-images-per-class", type=int, default=10, help="the job fails when fewer usable images of a class remain")
    parser.add_argument(
        "--near-duplicate-similarity",
        type=float,
        default=DEFAULT_SIMILARITY,
        help="thumbnail correlation from which images stay together; above 1: off",
    )
    parser.add_argument(
        "--allow-conflicting-labels",
        type=_boolean,
        nargs="?",
        const=True,
        default=False,
        help="go on when the same image is in several classes",
    )
    parser.add_argument("--max-shard-bytes", type=int, default=DEFAULT_MAX_SHARD_BYTES, help="size of a shard")
    return parser


def _failure_file(arguments: Sequence[str]) -> Path | None:
    """Read before the rest: a wrong argument, too, must reach the file."""
    for flag, value in pairwise(arguments):
        if flag == "--failure-file":
            return Path(value)
    return None


def main(arguments: Sequence[str]) -> int:
    """Run the job as the command line says and return the process's exit code."""
    configure_logging()

    def job() -> None:
        given = _parser().parse_args(arguments)
        options = Options(**{name: getattr(given, name) for name in Options.__dataclass_fields__})
        folders = Folders(given.train, given.validation, given.test, given.report)
        with job_run(step="Preprocess", job_config=given.job_config) as run:
            run.log_params(asdict(options))
            try:
                report = preprocess(given.input, folders, options, max_shard_bytes=given.max_shard_bytes)
                _track(run, report)
            finally:
                # Also of a job that fails: the report says why.
                for path in sorted(folders.report.glob("*.*")):
                    run.log_artifact(path, "data")

    return run_step(job, _failure_file(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
