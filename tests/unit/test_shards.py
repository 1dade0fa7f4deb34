"""steps/shards.py: what is written is what is read, the bytes are a function of the samples, and damage is noticed."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import DATASET_INFO_NAME, DatasetInfo, Sample, ShardError, read_dataset_info, read_shards, write_shards

LABELS = ("bicycle", "motorcycle", "tram")


def sample(number: int, label: str = "bicycle", image: bytes = b"png") -> Sample:
    return Sample(f"{number:08d}", label, image, f"{label}/{number}.png", f"{number:064x}")


@st.composite
def sample_lists(draw: st.DrawFn) -> list[Sample]:
    keys = draw(st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True), unique=True, max_size=12))
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    return [
        Sample(
            key,
            draw(st.sampled_from(LABELS)),
            draw(st.binary(max_size=1500)),
            draw(text),
            draw(st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
        )
        for key in keys
    ]


@given(samples=sample_lists(), max_shard_bytes=st.integers(1, 40_000))
@settings(max_examples=60)
def test_round_trip_in_order_with_equal_bytes(samples: list[Sample], max_shard_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        for directory in (first, second):
            info = write_shards(samples, directory, labels=LABELS, split="train", dataset_digest="d", max_shard_bytes=max_shard_bytes)
        assert list(read_shards(first)) == samples
        assert info == read_dataset_info(first)
        assert info.total == len(samples)
        assert info.counts == {label: sum(s.label == label for s in samples) for label in LABELS}
        contents = [{path.name: path.read_bytes() for path in Path(directory).iterdir()} for directory in (first, second)]
        assert contents[0] == contents[1]


def test_shards_stay_within_the_size_and_are_plain_tar_files(tmp_path: Path) -> None:
    write_shards(
        (sample(i, image=bytes(900)) for i in range(100)),
        tmp_path,
        labels=LABELS,
        split="train",
        dataset_digest="d",
        max_shard_bytes=40_960,
    )
    shards = sorted(tmp_path.glob("*.tar"))
    assert len(shards) > 2
    assert all(path.stat().st_size <= 40_960 for path in shards)
    with tarfile.open(shards[0]) as archive:
        assert archive.getnames()[:4] == ["00000000.png", "00000000.json", "00000001.png", "00000001.json"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in archive} == {(0, 0, 0, "", 0o644)}


def test_an_image_larger_than_a_shard_gets_its_own(tmp_path: Path) -> None:
    samples = [sample(i, image=bytes(5000)) for i in range(3)]
    write_shards(samples, tmp_path, labels=LABELS, split="train", dataset_digest="d", max_shard_bytes=1000)
    assert len(list(tmp_path.glob("*.tar"))) == 3
    assert list(read_shards(tmp_path)) == samples


@pytest.mark.parametrize(
    ("samples", "labels", "message"),
    [
        ([sample(1, "boat")], LABELS, "none of"),
        ([sample(1), sample(1)], LABELS, "used before"),
        ([Sample("a.b", "bicycle", b"", "x", "0")], LABELS, "letters, digits"),
        ([sample(1)], ("tram", "bicycle"), "sorted"),
        ([sample(1)], ("bicycle", "bicycle"), "distinct"),
    ],
)
def test_samples_that_do_not_fit_are_refused_and_leave_no_finished_data_set(
    tmp_path: Path, samples: list[Sample], labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ShardError, match=message):
        write_shards(samples, tmp_path, labels=labels, split="train", dataset_digest="d")
    assert not (tmp_path / DATASET_INFO_NAME).exists()


def test_a_folder_that_holds_shards_is_never_written_into(tmp_path: Path) -> None:
    write_shards([sample(1)], tmp_path, labels=LABELS, split="train", dataset_digest="d")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ShardError, match="already holds shards"):
        write_shards([sample(2)], tmp_path, labels=LABELS, split="train", dataset_digest="d")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    write_shards((sample(i) for i in range(40)), tmp_path, labels=LABELS, split="train", dataset_digest="d", max_shard_bytes=20_000)
    sorted(tmp_path.glob("*.tar"))[1].unlink()
    with pytest.raises(ShardError, match="missing"):
        list(read_shards(tmp_path))


@given(cut=st.integers(1, 30_000))
@settings(max_examples=40)
def test_a_truncated_shard_is_noticed_unless_only_padding_is_lost(cut: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        samples = [sample(i, image=bytes(700)) for i in range(10)]
        write_shards(samples, directory, labels=LABELS, split="train", dataset_digest="d")
        shard = Path(directory) / "shard-00000.tar"
        content = shard.read_bytes()
        shard.write_bytes(content[:-cut])
        content_end = 10 * (512 + 1024 + 512 + 512)
        try:
            assert list(read_shards(directory)) == samples
            assert len(content) - cut >= content_end - 512
        except ShardError:
            assert len(content) - cut < content_end + 1024


def test_what_is_not_a_folder_of_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"dataset\.json does not exist"):
        list(read_shards(tmp_path))
    (tmp_path / DATASET_INFO_NAME).write_text('{"labels": ["a"]}')
    with pytest.raises(ShardError, match="not a data set description"):
        read_dataset_info(tmp_path)
    (tmp_path / DATASET_INFO_NAME).write_text("{")
    with pytest.raises(ShardError, match="cannot be read"):
        read_dataset_info(tmp_path)


@pytest.mark.parametrize("names", [["a.json"], ["a.png"], ["a.png", "b.json"], ["a.png", "a.txt"], ["a.png", "a.png"]])
def test_members_out_of_place_are_an_error(tmp_path: Path, names: list[str]) -> None:
    write_shards([], tmp_path, labels=LABELS, split="train", dataset_digest="d")
    with tarfile.open(tmp_path / "shard-00000.tar", "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ShardError, match="shard-00000"):
        list(read_shards(tmp_path))


def test_a_sample_description_that_is_not_one_is_an_error(tmp_path: Path) -> None:
    write_shards([], tmp_path, labels=LABELS, split="train", dataset_digest="d")
    with tarfile.open(tmp_path / "shard-00000.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
        archive.addfile(tarfile.TarInfo("a.json"))
    with pytest.raises(ShardError, match="not a sample's description"):
        list(read_shards(tmp_path))


def test_info_is_a_value(tmp_path: Path) -> None:
    info = write_shards([sample(1)], tmp_path, labels=LABELS, split="test", dataset_digest="abc")
    assert info == DatasetInfo(LABELS, {"bicycle": 1, "motorcycle": 0, "tram": 0}, "abc", "test")
