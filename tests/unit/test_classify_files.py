"""What `scones classify` says of files that are no photos, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scones.errors import ExitCode, SconesError
from scones.workflow import Workflow


class NoTarget:
    """A target that nothing may be sent to."""

    class session:
        @staticmethod
        def client(*_: Any, **__: Any) -> None:
            return None


def refusal(*images: str, max_bytes: int = 4_000_000) -> SconesError:
    workflow = Workflow(NoTarget(), "arn", "bucket", max_bytes)  # type: ignore[arg-type]
    with pytest.raises(SconesError) as caught:
        list(workflow.classify(images))
    with pytest.raises(SconesError) as planned:
        workflow.plan(images)
    assert (planned.value.message, planned.value.hint) == (caught.value.message, caught.value.hint)
    assert caught.value.exit_code is planned.value.exit_code is ExitCode.USAGE
    return caught.value


def test_what_is_no_photo_is_named_with_what_to_do(tmp_path: Path) -> None:
    assert refusal("").message == "There is no file ''"
    assert refusal("nothing.png").message == "There is no file 'nothing.png'"
    folder = refusal(str(tmp_path))
    assert (folder.message, folder.hint) == (f"{tmp_path} is not a file", f"Give the photos in it: {tmp_path}/*")
    device = refusal("/dev/null")
    assert (device.message, device.hint) == ("/dev/null is not a file", "Give paths of photos, or S3 URIs.")
    web = refusal("https://example.com/photo.png")
    assert web.message == "https://example.com/photo.png is no S3 URI"
    assert web.hint is not None
    assert "Download" in web.hint


def test_a_file_that_no_memory_would_hold_is_not_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(50 * 2**30)
    assert "53,687,091,200 bytes" in refusal(str(huge)).message


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"png")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(str(photo)).message == f"{photo} cannot be read: Permission denied"


def test_what_the_workflow_would_refuse_is_not_uploaded(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"")
    assert refusal(str(photo)).message == f"{photo} is empty (0 bytes)"
    photo.write_bytes(b"hello, world")
    assert refusal(str(photo)).message == f"{photo} is not an image by its first bytes"
    photo.write_bytes(b"GIF89a" + bytes(100))
    gif = refusal(str(photo))
    assert (gif.message, gif.hint) == (
        f"{photo} is a GIF file by its first bytes",
        "Send PNG, JPEG or WebP: convert the file, renaming it does not help.",
    )
    photo.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(93))
    assert refusal(str(photo), max_bytes=100).message == f"{photo} has 101 bytes; the workflow takes photos of at most 100"


def test_every_photo_that_is_refused_is_named(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"\x89PNG\r\n\x1a\n")
    error = refusal("a", str(photo), "b", str(tmp_path))
    assert error.message.splitlines() == [
        "3 of 4 photos cannot be classified, so none was sent:",
        "  There is no file 'a'",
        "  There is no file 'b'",
        f"  {tmp_path} is not a file",
    ]
    assert error.hint == f"Give paths of photos, or S3 URIs.\nGive the photos in it: {tmp_path}/*"
