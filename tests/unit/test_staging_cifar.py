"""staging: CIFAR-100 from an archive or a download, verified, read without unpickling."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from staging import ArchiveError, DownloadError, ProgressEvent, Split, StagingPhase, UnknownClassError, prepare
from staging.cifar import OFFICIAL_ARCHIVES, CifarArchive, CifarFormat, download, extract_cifar100, identify
from staging.folder import read_folder
from staging.pickledata import ByteArray, PickleDataError, read_pickle_data

NAMES = [f"class{number:02d}" for number in range(100)]
NAMES[8], NAMES[48], NAMES[90] = "bicycle", "motorcycle", "train"
# (fine label, file name); the names lie about the class on purpose: labels come from the label field.
TRAIN = [(fine, f"train_{fine}_{number}.png") for number in range(12) for fine in (8, 48, 3, 90)]
TEST = [(fine, f"motorcycle_{fine}_{number}.png") for number in range(2) for fine in (8, 48, 3, 90)]


def image_bytes(name: str) -> bytes:
    """3072 bytes that depend on the name: planes of red, green, blue."""
    return hashlib.shake_256(name.encode()).digest(3072)


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def binary_members() -> dict[str, bytes]:
    def records(rows: list[tuple[int, str]]) -> bytes:
        return b"".join(bytes([fine % 20, fine]) + image_bytes(name) for fine, name in rows)

    return {
        "cifar-100-binary/fine_label_names.txt": "\n".join([*NAMES, ""]).encode(),
        "cifar-100-binary/train.bin": records(TRAIN),
        "cifar-100-binary/test.bin": records(TEST),
    }


class Python2Pickle:
    """Writes what Python 2's cPickle writes with protocol 2, for the types in CIFAR's files."""

    @classmethod
    def dumps(cls, value: Any) -> bytes:
        return b"\x80\x02" + cls._value(value) + b"."

    @classmethod
    def _value(cls, value: Any) -> bytes:
        if isinstance(value, str):
            text = value.encode("latin-1")
            return (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))) + text
        if isinstance(value, int):
            return b"K" + bytes([value])
        if isinstance(value, list):
            return b"]q\x01(" + b"".join(map(cls._value, value)) + b"e"
        if isinstance(value, ByteArray):
            shape = b"".join(b"M" + struct.pack("<H", size) for size in value.shape) + (b"\x86" if len(value.shape) == 2 else b"\x85")
            dtype = b"cnumpy\ndtype\nq\x05(U\x02u1K\x00K\x01tRq\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            content = b"T" + struct.pack("<i", len(value.content)) + value.content
            return (
                b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
                + shape
                + dtype
                + b"\x89"
                + content
                + b"tb"
            )
        assert isinstance(value, dict)
        return b"}(" + b"".join(cls._value(key) + cls._value(item) for key, item in value.items()) + b"u"


def python_members() -> dict[str, bytes]:
    def split(rows: list[tuple[int, str]]) -> bytes:
        return Python2Pickle.dumps(
            {
                "filenames": [name for _, name in rows],
                "batch_label": "training batch 1 of 1",
                "fine_labels": [fine for fine, _ in rows],
                "coarse_labels": [fine % 20 for fine, _ in rows],
                "data": ByteArray((len(rows), 3072), b"".join(image_bytes(name) for _, name in rows)),
            }
        )

    return {
        "cifar-100-python/file.txt~": b"x",
        "cifar-100-python/train": split(TRAIN),
        "cifar-100-python/test": split(TEST),
        "cifar-100-python/meta": Python2Pickle.dumps({"fine_label_names": NAMES, "coarse_label_names": []}),
    }


def published(path: Path, kind: CifarFormat, url: str = "http://127.0.0.1:9/x.tar.gz") -> CifarArchive:
    content = path.read_bytes()
    return CifarArchive(kind, url, hashlib.md5(content).hexdigest(), len(content))


MEMBERS = {CifarFormat.BINARY: binary_members, CifarFormat.PYTHON: python_members}


@pytest.mark.parametrize("kind", list(CifarFormat))
def test_chosen_classes_by_label_field_with_the_pixels_in_place(tmp_path: Path, kind: CifarFormat) -> None:
    path = archive(tmp_path / "any-name.tgz", MEMBERS[kind]())
    known = published(path, kind)
    folder = extract_cifar100(tmp_path / "cache", archive=path, classes=["bicycle", "motorcycle"], published=[known])
    dataset = read_folder(folder, source="cifar100")
    assert dataset.counts == {"bicycle": 14, "motorcycle": 14}
    assert sum(image.split is Split.TEST for image in dataset.images) == 4
    expected = {image_bytes(name) for fine, name in TRAIN + TEST if fine in (8, 48)}
    found = set()
    for image in dataset.images:
        with Image.open(image.file) as picture:
            assert (picture.mode, picture.size) == ("RGB", (32, 32))
            found.add(b"".join(plane.tobytes() for plane in picture.split()))
    assert found == expected
    bicycles = {image_bytes(name) for fine, name in TRAIN + TEST if fine == 8}
    for image in dataset.images:
        with Image.open(image.file) as picture:
            assert (b"".join(plane.tobytes() for plane in picture.split()) in bicycles) == (image.label == "bicycle")


def test_both_formats_give_the_same_data_set(tmp_path: Path) -> None:
    digests = set()
    for kind in CifarFormat:
        path = archive(tmp_path / kind, MEMBERS[kind]())
        folder = extract_cifar100(tmp_path / "cache", archive=path, published=[published(path, kind)])
        digests.add(read_folder(folder, source="cifar100").digest)
    assert len(digests) == 1


def test_three_classes_and_extraction_happens_once(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", binary_members())
    options: dict[str, Any] = {
        "archive": path,
        "classes": ["train", "bicycle", "motorcycle"],
        "published": [published(path, CifarFormat.BINARY)],
    }
    folder = extract_cifar100(tmp_path / "cache", **options)
    assert read_folder(folder, source="x").labels == ("bicycle", "motorcycle", "train")
    events: list[ProgressEvent] = []
    assert extract_cifar100(tmp_path / "cache", progress=events.append, **options) == folder
    assert events == []
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [folder.name]


def test_an_unknown_class_names_the_nearest(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", binary_members())
    with pytest.raises(UnknownClassError) as error:
        extract_cifar100(tmp_path / "cache", archive=path, classes=["bycicle"], published=[published(path, CifarFormat.BINARY)])
    assert "bicycle" in error.value.hint
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_with_another_checksum_is_never_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", binary_members())
    with pytest.raises(ArchiveError) as error:
        prepare(f"cifar100:{path}", cache_dir=tmp_path / "cache")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    assert md5 in error.value.message
    assert all(known.md5 in error.value.message for known in OFFICIAL_ARCHIVES)
    assert not (tmp_path / "cache").exists()


def test_a_missing_archive_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="cannot be read: No such file"):
        prepare(f"cifar100:{tmp_path / 'none.tar.gz'}", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.pop("cifar-100-binary/test.bin"),
        lambda members: members.pop("cifar-100-binary/fine_label_names.txt"),
        lambda members: members.update({"cifar-100-binary/train.bin": bytes(3000)}),
    ],
)
def test_a_damaged_archive_leaves_nothing_half_extracted(tmp_path: Path, change: Any) -> None:
    members = binary_members()
    change(members)
    path = archive(tmp_path / "a", members)
    with pytest.raises(ArchiveError, match="is damaged"):
        extract_cifar100(tmp_path / "cache", archive=path, published=[published(path, CifarFormat.BINARY)])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_python_archive_whose_parts_do_not_agree_is_damaged(tmp_path: Path) -> None:
    members = python_members()
    members["cifar-100-python/test"] = Python2Pickle.dumps(
        {"filenames": ["a"], "fine_labels": [8, 48], "data": ByteArray((1, 3072), bytes(3072))}
    )
    path = archive(tmp_path / "a", members)
    with pytest.raises(ArchiveError, match="do not agree"):
        extract_cifar100(tmp_path / "cache", archive=path, published=[published(path, CifarFormat.PYTHON)])


# --- pickles as data -----------------------------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_is_refused(protocol: int) -> None:
    with pytest.raises(PickleDataError, match=r"refused: (it names|opcode)"):
        read_pickle_data(io.BytesIO(pickle.dumps({"data": Malicious()}, protocol)))


def test_a_call_of_an_array_name_is_recorded_not_made() -> None:
    # numpy.dtype called with nonsense would raise TypeError if it were called.
    assert list(read_pickle_data(io.BytesIO(b"\x80\x02]cnumpy\ndtype\nU\x08nonsense\x85Ra.")))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(value=plain, protocol=st.sampled_from([0, 1, 2]))
def test_plain_data_reads_as_pickle_would(value: Any, protocol: int) -> None:
    # Protocols 0 and 1 write booleans as the integers 01 and 00, which pickletools gives back as booleans, too.
    assert read_pickle_data(io.BytesIO(pickle.dumps(value, protocol))) == value


def test_shared_values_are_shared() -> None:
    inner = ["x"]
    value = [inner, inner]
    for protocol in (0, 1, 2):
        assert read_pickle_data(io.BytesIO(pickle.dumps(value, protocol))) == value


@given(content=st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_are_data_or_an_error(content: bytes) -> None:
    with contextlib.suppress(PickleDataError):
        read_pickle_data(io.BytesIO(content))


@given(cut=st.integers(0, 400), flip=st.integers(0, 400), value=st.integers(0, 255))
@settings(max_examples=300)
def test_a_damaged_pickle_is_data_or_an_error(cut: int, flip: int, value: int) -> None:
    content = bytearray(Python2Pickle.dumps({"data": ByteArray((2, 3), b"abcdef"), "filenames": ["a", "b"], "fine_labels": [1, 2]}))
    content[flip % len(content)] = value
    with contextlib.suppress(PickleDataError):
        read_pickle_data(io.BytesIO(bytes(content[: len(content) - cut % 5])))


@pytest.mark.parametrize(
    ("array", "message"),
    [(ByteArray((2, 3), b"abcde"), "damaged"), (ByteArray((2, 2), b"abcdef"), "damaged")],
)
def test_an_array_of_the_wrong_size_is_damaged(array: ByteArray, message: str) -> None:
    with pytest.raises(PickleDataError, match=message):
        read_pickle_data(io.BytesIO(Python2Pickle.dumps({"data": array})))


# --- download ------------------------------------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    content: ClassVar[bytes] = b""
    ranges: ClassVar[bool] = True
    cut: ClassVar[int | None] = None
    status: ClassVar[int] = 200
    requests: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.requests.append(wanted)
        if self.status != 200:
            self.send_error(self.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        body = self.content[start:]
        self.send_response(206 if start else 200)
        if self.cut is None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.cut])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[type[Server], CifarArchive]]:
    path = archive(tmp_path / "official.tar.gz", binary_members())

    class Handler(Server):
        content = path.read_bytes()
        requests: ClassVar[list[str | None]] = []

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Handler, published(path, CifarFormat.BINARY, f"http://127.0.0.1:{httpd.server_port}/cifar.tar.gz")
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def test_a_download_is_verified_kept_and_not_repeated(server: tuple[type[Server], CifarArchive], tmp_path: Path) -> None:
    handler, known = server
    events: list[ProgressEvent] = []
    path = download(known, tmp_path / "cache", events.append)
    assert path.read_bytes() == handler.content
    assert events[-1] == ProgressEvent(StagingPhase.DOWNLOAD, known.size, known.size)
    assert download(known, tmp_path / "cache") == path
    assert handler.requests == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(server: tuple[type[Server], CifarArchive], tmp_path: Path, ranges: bool) -> None:
    handler, known = server
    handler.cut, handler.ranges = 1000, ranges
    with pytest.raises(DownloadError, match="connection ended after 1,000 of"):
        download(known, tmp_path / "cache")
    assert not (tmp_path / "cache" / "cifar.tar.gz").exists()
    handler.cut = None
    assert download(known, tmp_path / "cache").read_bytes() == handler.content
    assert handler.requests == [None, "bytes=1000-"]


def test_a_download_that_is_not_the_archive_is_thrown_away(server: tuple[type[Server], CifarArchive], tmp_path: Path) -> None:
    handler, known = server
    right = handler.content
    handler.content = b"<html>" + right[6:]
    with pytest.raises(ArchiveError, match="is not the official archive"):
        download(known, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    handler.content = right
    assert download(known, tmp_path / "cache").read_bytes() == right


def test_an_http_error_says_what_to_do_instead(server: tuple[type[Server], CifarArchive], tmp_path: Path) -> None:
    handler, known = server
    handler.status = 503
    with pytest.raises(DownloadError, match="503") as error:
        download(known, tmp_path / "cache")
    assert "cifar100:/path/to/" in error.value.hint


def test_no_network_says_at_once_what_to_do_instead(tmp_path: Path) -> None:
    unreachable = CifarArchive(CifarFormat.BINARY, "http://127.0.0.1:9/cifar-100-binary.tar.gz", "0" * 32, 1000)
    with pytest.raises(DownloadError) as error:
        extract_cifar100(tmp_path / "cache", published=[unreachable])
    for instead in ("cifar100:/path/to/cifar-100-binary.tar.gz", "`sample`", "folder"):
        assert instead in error.value.hint


def test_a_download_becomes_a_data_set(server: tuple[type[Server], CifarArchive], tmp_path: Path) -> None:
    _, known = server
    folder = extract_cifar100(tmp_path / "cache", published=[known])
    assert read_folder(folder, source="cifar100").labels == ("bicycle", "motorcycle")


def test_the_published_checksums_are_those_of_the_page() -> None:
    assert {known.format: known.md5 for known in OFFICIAL_ARCHIVES} == {
        CifarFormat.BINARY: "03b5dce01913d631647c71ecec9e9cb8",
        CifarFormat.PYTHON: "eb9058c3a382ffc7106e4002c42a8d85",
    }
    assert identify.__defaults__ == (OFFICIAL_ARCHIVES,)
