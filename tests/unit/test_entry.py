"""The launcher of processing jobs: installs only what is missing, then is the script."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

import entry
import failures
from failures import StepError, run_step


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder of code as a job has it, with a script that tells how it was run."""
    folder = tmp_path / "code"
    folder.mkdir()
    for module in (entry, failures):
        shutil.copy(str(module.__file__), folder)
    (folder / "sibling.py").write_text("WORD = 'sibling'\n")
    (folder / "script.py").write_text("import sys, sibling\nprint(__name__, sibling.WORD, sys.argv[1:])\nsys.exit(3)\n")
    return folder


def launch(job: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(job / "entry.py"), *arguments]
    # An index that does not exist: an installation that is tried fails at once, and is seen.
    environment = os.environ | {
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "0",
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }
    return subprocess.run(command, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True, cwd=job.parent, check=False)


def test_the_script_is_run_as_main_beside_its_siblings_with_its_arguments(job: Path) -> None:
    (job / "requirements.txt").write_text("numpy>=1\n# a comment\n\npillow>=9,<1000  # why\n")
    result = launch(job, "script.py", "--input", "a b")
    assert result.stdout == "__main__ sibling ['--input', 'a b']\n"
    assert result.returncode == 3


def test_without_requirements_nothing_is_installed(job: Path) -> None:
    assert launch(job, "script.py").returncode == 3


@pytest.mark.parametrize("flag", ["--failure-file {}", "--failure-file={}"])
def test_an_installation_that_fails_is_told_in_the_failure_file(job: Path, flag: str) -> None:
    (job / "requirements.txt").write_text("no-such-package-at-all>=1\n")
    message = job.parent / "output" / "message"
    result = launch(job, "script.py", *flag.format(message).split())
    assert result.returncode == 1
    assert "pip could not install no-such-package-at-all>=1" in message.read_text()
    assert "__main__" not in result.stdout


def test_a_script_that_is_not_there_is_named(job: Path) -> None:
    result = launch(job, "other.py", "--failure-file", str(job / "message"))
    assert result.returncode == 1
    assert f"there is no other.py beside entry.py in {job}" in (job / "message").read_text()


@pytest.mark.parametrize(
    ("line", "installed", "met"),
    [
        ("thing", "1.0", True),
        ("thing>=1.2,<2", "1.10.1", True),
        ("thing>=1.2,<2", "2.0", False),
        ("thing==2.13", "2.13.0+cpu", True),
        ("thing~=1.4", "1.9", True),
        ("thing~=1.4.2", "1.5.0", False),
        ("thing!=1.0", "1.0.0", False),
        ("-e ./thing", "1.0", False),
        ("thing @ file:///tmp/x", "1.0", False),
        ("thing>=1.0; python_version < '3'", "0.1", False),
    ],
)
def test_what_counts_as_installed(monkeypatch: pytest.MonkeyPatch, line: str, installed: str, met: bool) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed)
    assert (entry.missing_requirements([line]) == []) is met


VERSIONS = st.lists(st.integers(0, 12), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
BOUNDS = st.tuples(st.sampled_from(["==", ">=", "<=", "!=", "<", ">"]), VERSIONS).map("".join)


@given(st.lists(BOUNDS, max_size=3), VERSIONS)
def test_versions_are_compared_as_pip_does(bounds: list[str], installed: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda name: installed)
        assert (entry.missing_requirements([f"thing{','.join(bounds)}"]) == []) is SpecifierSet(",".join(bounds)).contains(installed)


def test_this_projects_requirements_are_met_here() -> None:
    # What the launcher reads without pip must be readable to it, or every offline job would try to install.
    lines = (Path(entry.__file__).parent / "requirements.txt").read_text().splitlines()
    assert entry.missing_requirements(lines) == []


def raise_step_error() -> None:
    raise StepError("stage more images")


def raise_defect() -> None:
    raise KeyError("labels")


def test_a_users_mistake_is_one_message_without_a_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run_step(raise_step_error, tmp_path / "deep" / "failure") == 1
    assert (tmp_path / "deep" / "failure").read_text() == "stage more images"
    assert "Traceback" not in caplog.text


def test_a_defect_has_its_traceback_in_the_log_and_its_text_in_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run_step(raise_defect, tmp_path / "failure") == 1
    assert (tmp_path / "failure").read_text() == "KeyError: 'labels'"
    assert "Traceback" in caplog.text


def test_success_writes_nothing_and_a_file_that_cannot_be_written_hides_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run_step(lambda: None, tmp_path / "failure") == 0
    assert not (tmp_path / "failure").exists()
    (tmp_path / "file").write_text("")
    assert run_step(raise_step_error, tmp_path / "file" / "failure") == 1
    assert "stage more images" in caplog.text


def test_a_long_message_is_cut_to_what_sagemaker_shows(tmp_path: Path) -> None:
    def fail() -> None:
        raise StepError("x" * 5000)

    run_step(fail, tmp_path / "failure")
    assert len((tmp_path / "failure").read_text()) == failures.MAX_FAILURE_CHARACTERS
