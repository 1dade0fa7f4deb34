"""/opt/ml without a container: what is remapped, and what happens to code that names the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.sagemaker import sandbox as sandbox_module
from localcloud.sagemaker.sandbox import Sandbox, Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "jobs")


@pytest.fixture
def sandbox(workshop: Workshop) -> Sandbox:
    return workshop.sandbox()


def run(sandbox: Sandbox, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        sandbox.command(command),
        env=sandbox.environment({"PATH": os.environ["PATH"]}, environment),
        cwd=sandbox.work,
        capture_output=True,
        text=True,
        check=False,
    )


def run_script(sandbox: Sandbox, code: str) -> subprocess.CompletedProcess[str]:
    """Run code that was not remapped, as a downloaded script is not."""
    (sandbox.work / "script.py").write_text(code)
    return run(sandbox, "python3", "script.py")


@pytest.mark.parametrize(
    ("text", "remapped"),
    [
        ("/opt/ml", "{ml}"),
        ("/opt/ml/model", "{ml}/model"),
        ("--dir=/opt/ml/a:/opt/ml/b", "--dir={ml}/a:{ml}/b"),
        ("cd '/opt/ml/input'", "cd '{ml}/input'"),
        ("file:///opt/ml/x", "file://{ml}/x"),
        ("s3://bucket/opt/ml/x", "s3://bucket/opt/ml/x"),
        ("/srv/opt/ml/x", "/srv/opt/ml/x"),
        ("/opt/mlflow", "/opt/mlflow"),
        ("/opt/ml.txt", "/opt/ml.txt"),
    ],
)
def test_only_the_path_itself_is_remapped(sandbox: Sandbox, text: str, remapped: str) -> None:
    assert sandbox.remap(text) == remapped.format(ml=sandbox.ml)


@given(st.text())
def test_remapping_twice_is_remapping_once(text: str) -> None:
    sandbox = Sandbox.__new__(Sandbox)
    sandbox.ml = Path("/state/jobs/x/ml")
    once = sandbox.remap(text + "/opt/ml" + text)
    assert sandbox.remap(once) == once


def test_values_are_remapped_however_deep(sandbox: Sandbox) -> None:
    assert sandbox.remap_values({"a": ["/opt/ml/x", 1, None], "b": {"c": "/opt/ml"}}) == {
        "a": [f"{sandbox.ml}/x", 1, None],
        "b": {"c": str(sandbox.ml)},
    }


def test_scripts_are_remapped_in_place_and_binaries_left_alone(sandbox: Sandbox) -> None:
    folder = sandbox.ml / "drivers"
    folder.mkdir()
    (folder / "a.sh").write_text("cat /opt/ml/x\n")
    (folder / "b.bin").write_bytes(b"\xff\xfe/opt/ml/x")
    sandbox.remap_scripts(folder)
    assert (folder / "a.sh").read_text() == f"cat {sandbox.ml}/x\n"
    assert (folder / "b.bin").read_bytes() == b"\xff\xfe/opt/ml/x"


def test_paths_outside_of_the_container_root_are_refused(sandbox: Sandbox) -> None:
    assert sandbox.path("/opt/ml/processing/input/") == sandbox.ml / "processing/input"
    for path in ("/etc/passwd", "/opt/ml/../../etc", "/opt/mlflow"):
        with pytest.raises(ValueError, match="not in the subpath"):
            sandbox.path(path)


@pytest.mark.parametrize("python", ["python", "python3", "/usr/bin/python3", "python3.10"])
def test_any_python_is_this_one(sandbox: Sandbox, python: str) -> None:
    assert sandbox.command([python, "/opt/ml/a.py"]) == [sys.executable, f"{sandbox.ml}/a.py"]


def test_shells_find_this_python_and_its_pip(sandbox: Sandbox) -> None:
    found = run(sandbox, "/bin/sh", "-c", "python3 -c 'import sys; print(sys.prefix)'; command -v pip3")
    prefix, pip = found.stdout.splitlines()
    assert prefix == sys.prefix
    assert Path(pip).is_relative_to(sandbox.root.parent)


def test_a_state_folder_with_spaces_is_hidden_from_jobs(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path / "my state" / "jobs")
    sandbox = workshop.sandbox()
    assert " " not in str(sandbox.ml)
    (sandbox.ml / "x").write_text("x")
    assert list((tmp_path / "my state" / "jobs").glob("*/ml/x"))
    link = sandbox.root.parent
    workshop.close()
    assert not link.exists()
    assert not (tmp_path / "my state" / "jobs").exists()


def test_a_workshop_begins_empty(tmp_path: Path) -> None:
    left = tmp_path / "jobs" / "left" / "file"
    left.parent.mkdir(parents=True)
    left.touch()
    left.parent.chmod(0o500)
    Workshop(tmp_path / "jobs")
    assert not left.exists()


@pytest.mark.parametrize(
    "code",
    [
        "open('/opt/ml/model/x', 'w')",
        "import os; os.makedirs('/opt/ml/model')",
        "import os; os.listdir('/opt/ml')",
        "import pathlib; pathlib.Path('/opt/ml/input').read_text()",
        "import shutil; shutil.copytree('.', '/opt/ml/model')",
        "import os; os.chdir('/'); open('opt/ml/x', 'w')",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'open(\"/opt/ml/x\")'], check=True)",
    ],
)
def test_code_that_names_the_real_folder_fails_and_is_noted(sandbox: Sandbox, code: str) -> None:
    result = run_script(sandbox, code)
    assert result.returncode != 0
    assert "On localcloud /opt/ml is not the job's" in result.stderr
    escape = sandbox.escape()
    assert escape is not None
    assert "/opt/ml" in escape


def test_an_escape_that_the_code_swallows_is_noted_with_its_line(sandbox: Sandbox) -> None:
    assert run_script(sandbox, "try:\n    open('/opt/ml/x')\nexcept OSError:\n    pass\n").returncode == 0
    assert "(script.py, line 2)" in (sandbox.escape() or "")


def test_code_that_stays_inside_is_left_alone(sandbox: Sandbox) -> None:
    code = "import os; os.makedirs('/opt/ml/model'); open('/opt/ml/model/x', 'w').write('1'); import json, tempfile; tempfile.mkdtemp()"
    result = run(sandbox, "python3", "-c", code)
    assert (result.returncode, result.stderr, sandbox.escape()) == (0, "", None)
    assert (sandbox.ml / "model/x").read_text() == "1"


def test_what_other_programs_do_to_the_real_folder_is_found(tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    monkeypatch.setattr(sandbox_module, "REAL_ROOT", real)
    before = workshop.sandbox()
    assert before.escape() is None
    run(before, "/bin/sh", "-c", f"mkdir -p {real}/model")
    assert "changed this machine's" in (before.escape() or "")
    after = workshop.sandbox()
    assert after.escape() is None
    run(after, "/bin/sh", "-c", f"touch {real}/model/x")
    assert after.escape() is not None


def test_the_guard_keeps_the_containers_own_python_path_and_sitecustomize(sandbox: Sandbox) -> None:
    folder = sandbox.ml / "lib"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os\nos.environ['RAN'] = 'yes'\n")
    result = run(sandbox, "python3", "-c", "import os, sys; print(os.environ['RAN'], *sys.path)", PYTHONPATH="/opt/ml/lib")
    ran, *path = result.stdout.split()
    assert ran == "yes"
    assert str(folder) in path


def test_the_machines_own_sagemaker_variables_do_not_reach_a_job(sandbox: Sandbox) -> None:
    environment = sandbox.environment({"SM_MODEL_DIR": "/elsewhere", "HOME": "/home/me", "TRAINING_JOB_NAME": "old"}, {"A": "/opt/ml/x"})
    assert "SM_MODEL_DIR" not in environment
    assert "TRAINING_JOB_NAME" not in environment
    assert (environment["HOME"], environment["A"]) == ("/home/me", f"{sandbox.ml}/x")
