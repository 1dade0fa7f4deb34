"""Artifacts: which files a pattern names, and zips in both directions."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.codebuild.artifacts import compile_pattern, find_files, unzip, zip_files
from localcloud.codebuild.buildspec import Artifact
from localcloud.codebuild.errors import PhaseFailure

FILES = ["a.txt", "b.py", "sub/a.txt", "sub/deep/c.txt", "sub/deep/.hidden", "build1/x.txt", "build2/y.txt", "build2/z/x.txt"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "src"


def found(tree: Path, *files: str, **members: object) -> Mapping[str, Path]:
    return find_files(Artifact(files, **members), tree, lambda line: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "members", "expected"),
    [
        (["**/*"], {}, FILES),
        (["a.txt"], {}, ["a.txt"]),
        (["./a.txt"], {}, ["a.txt"]),
        (["*"], {}, ["a.txt", "b.py"]),
        (["sub/*"], {}, ["sub/a.txt"]),
        (["sub/**/*"], {}, ["sub/a.txt", "sub/deep/c.txt", "sub/deep/.hidden"]),
        (["**/?.txt"], {"exclude_paths": ("sub/**",)}, ["a.txt", "build1/x.txt", "build2/y.txt", "build2/z/x.txt"]),
        (["a.txt", "missing.txt"], {}, ["a.txt"]),
        (["**/*"], {"base_directory": "sub"}, ["a.txt", "deep/c.txt", "deep/.hidden"]),
        (["*/x.txt"], {"base_directory": "build2"}, ["z/x.txt"]),
        (["**/*"], {"base_directory": "build2", "discard_paths": True}, ["x.txt", "y.txt"]),
        # AWS's own example: https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html.
        (["**/*"], {"base_directory": "build*"}, ["x.txt", "y.txt", "z/x.txt"]),
    ],
)
def test_patterns(tree: Path, files: list[str], members: dict[str, object], expected: list[str]) -> None:
    assert sorted(found(tree, *files, **members)) == sorted(expected)


def test_base_directory_may_be_elsewhere(tree: Path) -> None:
    assert sorted(found(tree / "build1", "*", base_directory=str(tree / "sub"))) == ["a.txt"]
    assert sorted(found(tree / "build1", "*", base_directory="../sub")) == ["a.txt"]


@pytest.mark.parametrize(
    ("files", "members", "message"),
    [
        (["nothing/*"], {}, "no matching artifact paths found"),
        (["sub"], {}, "no matching artifact paths found"),
        (["**/*"], {"base_directory": "dist"}, "no matching base directory path found for dist"),
        (["**/*"], {"base_directory": "dist*"}, "no matching base directory path found for dist*"),
        (["/etc/hosts"], {}, "the absolute path /etc/hosts in artifacts/files is not supported by localcloud"),
    ],
)
def test_what_is_missing_is_named(tree: Path, files: list[str], members: dict[str, object], message: str) -> None:
    with pytest.raises(PhaseFailure) as caught:
        found(tree, *files, **members)
    assert caught.value.code == "CLIENT_ERROR"
    assert caught.value.message.startswith(message)


def test_the_log_says_what_was_looked_for(tree: Path) -> None:
    lines: list[str] = []
    find_files(Artifact(("*",)), tree, lines.append)
    assert lines == ["Expanding base directory path: .", "Expanding *", "Found 2 file(s)"]


def test_links_are_followed_and_folders_behind_links_are_not(tree: Path) -> None:
    (tree / "link.txt").symlink_to("a.txt")
    (tree / "folder").symlink_to("sub")
    (tree / "broken").symlink_to("nowhere")
    assert sorted(found(tree, "**/*")) == sorted([*FILES, "link.txt"])
    with zipfile.ZipFile(io.BytesIO(zip_files(found(tree, "link.txt")))) as archive:
        assert archive.read("link.txt") == b"a.txt"


segments = st.text("ab.*?[", min_size=1, max_size=4)


@given(st.lists(segments, min_size=1, max_size=4).map("/".join), st.lists(st.text("ab.[", min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_pattern_without_wildcards_names_itself_and_double_stars_everything(pattern: str, parts: list[str]) -> None:
    name = os.path.normpath("/".join(parts))
    assert compile_pattern(name).fullmatch(name)
    assert compile_pattern("**/*").fullmatch(name)
    assert bool(compile_pattern("*").fullmatch(name)) == ("/" not in name)
    compile_pattern(pattern)


def test_the_same_files_give_the_same_zip(tree: Path) -> None:
    first = zip_files(found(tree, "**/*"))
    os.utime(tree / "a.txt", (1, 1))
    assert zip_files(found(tree, "**/*")) == first


def test_a_zip_keeps_content_and_executables(tree: Path, tmp_path: Path) -> None:
    (tree / "b.py").chmod(0o755)
    unzip(zip_files(found(tree, "**/*")), tmp_path / "new")
    assert {
        path.relative_to(tmp_path / "new").as_posix(): path.read_text() for path in (tmp_path / "new").rglob("*") if path.is_file()
    } == {name: name for name in FILES}
    assert os.access(tmp_path / "new" / "b.py", os.X_OK)
    assert not os.access(tmp_path / "new" / "a.txt", os.X_OK)


def zipped(name: str, content: str, mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, content)
    return buffer.getvalue()


def test_links_in_a_zip_are_links(tmp_path: Path) -> None:
    unzip(zipped("sub/link", "../target", stat.S_IFLNK | 0o777), tmp_path)
    assert os.readlink(tmp_path / "sub" / "link") == "../target"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no zip", "zip: not a valid zip file"),
        (zipped("a", "content")[:-30], "zip: not a valid zip file"),
        (zipped("../a", "x"), "the member ../a of the source's zip leaves its folder"),
        (zipped("/a", "x"), "the member /a of the source's zip leaves its folder"),
        (zipped("a", "/etc", stat.S_IFLNK | 0o777), "the link a in the source's zip leaves its folder"),
    ],
)
def test_a_zip_that_is_none_or_leaves_its_folder_is_refused(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(PhaseFailure) as caught:
        unzip(body, tmp_path / "inside")
    assert caught.value.message == message
