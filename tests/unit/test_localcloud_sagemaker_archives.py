"""tar.gz archives: the same files give the same bytes, and nothing unpacks outside of its folder."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.sagemaker.archives import BadArchive, pack, unpack


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for member, content in members:
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def test_what_is_packed_comes_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "code").mkdir(parents=True)
    (source / "model.bin").write_bytes(bytes(range(256)))
    (source / "code/run.sh").write_text("#!/bin/sh\n")
    (source / "code/run.sh").chmod(0o700)
    body = pack(source)
    assert body is not None
    unpack(body, tmp_path / "target")
    assert (tmp_path / "target/model.bin").read_bytes() == bytes(range(256))
    assert os.access(tmp_path / "target/code/run.sh", os.X_OK)


def test_packing_does_not_depend_on_times(tmp_path: Path) -> None:
    bodies = []
    for name, moment in (("a", 1), ("b", 2_000_000_000)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "x").write_text("x")
        os.utime(folder / "x", (moment, moment))
        bodies.append(pack(folder))
    assert bodies[0] == bodies[1]


def test_a_folder_without_files_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert pack(tmp_path) is None


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("/absolute"),
        member("a/../../outside"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "../outside"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: info.name,
)
def test_members_that_are_not_files_inside_are_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(BadArchive, match="its member"):
        unpack(archive((bad, b"")), tmp_path / "target")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["target"]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_archive_are_refused_and_nothing_else_is_raised(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    with pytest.raises(BadArchive):
        unpack(body, tmp_path_factory.mktemp("target"))


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    body = archive((member("x"), os.urandom(10_000)))
    with pytest.raises(BadArchive):
        unpack(body[: len(body) // 2], tmp_path)
