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


def refusal(image: str) -> SconesError:
    with pytest.raises(SconesError) as caught:
        list(Workflow(NoTarget(), "arn", "bucket").classify([image]))  # type: ignore[arg-type]
    assert caught.value.exit_code is ExitCode.USAGE
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
