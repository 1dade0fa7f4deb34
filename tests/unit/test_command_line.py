"""The command line without a region: help, mistakes, and what a script reads."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from scones.cli import cli
from scones.commands.classify import print_classifications
from scones.commands.deploy import print_history
from scones.production import Deployment
from scones.workflow import Classification

SCONES = [sys.executable, "-c", "from scones.cli import main; main()"]
ROOT = Path(__file__).resolve().parents[2]


def scones(tmp_path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SCONES_STATE_DIR": str(tmp_path / "state"), **environ}
    return subprocess.run([*SCONES, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_help_names_every_command_and_the_exit_codes(tmp_path: Path) -> None:
    from scones.cli import COMMANDS

    result = scones(tmp_path, "--help")
    assert result.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in result.stdout
    assert "Exit codes: 0 done" in result.stdout


def test_help_imports_nothing_slow(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['scones', '--help']\nfrom scones.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    code += (
        "print([name for name in ('boto3', 'sagemaker', 'moto', 'rich', 'pydantic', 'mlflow', 'torch', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["demo", "up", "down", "stage", "run", "status", "logs", "classify", "mlflow"])
def test_every_command_has_help_and_json(tmp_path: Path, command: str) -> None:
    result = scones(tmp_path, command, "--help")
    assert result.returncode == 0
    assert "--json" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clasify"], ["clasify", "Did you mean 'classify'?"]),
        (["up", "--port", "99999"], ["99999", "1<=x<=65535"]),
        (["up", "--time-scale", "0"], ["0.0", "1<=x<=3600"]),
        (["classify", "photo.png", "--threshold", "1.5"], ["1.5", "0.0<=x<=1.0"]),
        (["classify", "photo.png", "--threshold", "high"], ["'high'", "float"]),
        (["config", "show", "--set", "training.epoch=3"], ["training.epoch", "did you mean training.epochs?"]),
        (["config", "show", "--set", "training.epochs=many"], ["training.epochs = 'many'", "whole number from 1 to 1000"]),
        (["config", "show", "--set", "training.epochs"], ["section.key=value"]),
        (["config", "show", "--stage", "prodution"], ["prodution.yaml", "did you mean production?"]),
        (["status", "--state-dir", ""], ["--state-dir is empty"]),
        (["run", "--data", ""], ["--data is empty"]),
        (["demo", "--dry-run", "--data", ""], ["--data is empty"]),
        (["stage", ""], ["SOURCE is empty"]),
        (["aws", "package", ""], ["FOLDER is empty"]),
        (["models", "approve", "--comment", "x" * 1025], ["--comment", "1,025 characters; at most 1,024"]),
        (["models", "reject", "1", "--dry-run", "--comment", "x" * 1025], ["--comment", "1,025 characters; at most 1,024"]),
        (["aws", "package", "/proc/foo"], ["The folder /proc/foo cannot be written", "Name another."]),
        (["aws", "package", "/dev/null/foo"], ["The folder /dev/null/foo cannot be written: Not a directory"]),
        (["aws", "package", "/dev/null/foo", "--dry-run"], ["The folder /dev/null/foo cannot be written: Not a directory"]),
        (["mlflow"], ["Nothing was tracked yet", "scones run"]),
    ],
)
def test_a_mistake_is_said_in_a_line_with_what_is_allowed(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    result = scones(tmp_path, *arguments)
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_an_error_is_a_json_document_too(tmp_path: Path) -> None:
    result = scones(tmp_path, "config", "show", "--json", "--set", "training.epochs=0")
    assert result.returncode == 2
    assert "training.epochs" in json.loads(result.stdout)["error"]["message"]


def test_config_show_says_where_each_value_came_from(tmp_path: Path) -> None:
    result = scones(tmp_path, "config", "show", "--json", "--set", "training.epochs=3", SCONES_QUALITY_GATE__MINIMUM_ACCURACY="0.8")
    rows = {row["key"]: row for row in json.loads(result.stdout)}
    assert (rows["training.epochs"]["value"], rows["training.epochs"]["origin"]) == (3, "--set training.epochs")
    assert rows["quality_gate.minimum_accuracy"]["value"] == 0.8
    assert "SCONES_QUALITY_GATE__MINIMUM_ACCURACY" in rows["quality_gate.minimum_accuracy"]["origin"]
    assert rows["project.name"]["origin"] == "config/default.yaml"
    assert all(row["description"] for row in rows.values())


def test_values_are_printed_as_they_are_also_where_they_look_like_markup(tmp_path: Path) -> None:
    result = scones(tmp_path, "config", "show", "--set", "pipeline.description=[/b] of [red]scones")
    assert result.returncode == 0, result.stderr
    assert "[/b] of [red]scones" in result.stdout


def test_down_without_a_region_is_no_error(tmp_path: Path) -> None:
    result = scones(tmp_path, "down", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout) == {"stopped": False}


def test_a_hint_is_for_the_state_folder_that_was_given(tmp_path: Path) -> None:
    given = tmp_path / "given"
    result = scones(tmp_path, "mlflow", "--json", "--state-dir", str(given))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"Run the pipeline first: scones run --state-dir {given}"
    assert json.loads(result.stdout)["error"]["hint"] == result.stderr.splitlines()[-1]
    assert scones(tmp_path, "mlflow").stderr.splitlines()[-1] == "Run the pipeline first: scones run"


@pytest.mark.parametrize("option", ["--detach", "--dry-run"])
def test_a_state_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path, option: str) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    result = scones(tmp_path, "up", option)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 2
    assert "--state-dir" in result.stderr
    assert (tmp_path / "state").read_text() == "a file is in the way"


def test_a_time_scale_comes_from_the_environment_and_the_option_wins(tmp_path: Path) -> None:
    for options in ([], ["--detach"]):
        result = scones(tmp_path, "up", *options, LOCALCLOUD_TIME_SCALE="fast")
        assert result.returncode == 2
        assert "'fast' is no number from 1 to 3600" in result.stderr
        assert "Traceback" not in result.stderr
    result = scones(tmp_path, "up", "--detach", "--time-scale", "5", LOCALCLOUD_TIME_SCALE="fast")
    try:
        assert result.returncode == 0, result.stderr
        again = scones(tmp_path, "up", "--detach", "--time-scale", "6")
        assert again.returncode == 2
        assert re.search(r"End it first: \S*scones down", again.stderr)
        planned = json.loads(scones(tmp_path, "down", "--dry-run", "--json").stdout)
        assert planned == {"stopped": False, "would_stop": True}
        still = json.loads(scones(tmp_path, "up", "--dry-run", "--json").stdout)
        assert (still["already_running"], still["has_state"]) == (True, True)
    finally:
        scones(tmp_path, "down")


@pytest.mark.parametrize("options", [[], ["--detach"], ["--dry-run"]], ids=" ".join)
def test_a_port_that_is_taken_ends_up_alike_in_the_foreground_and_in_the_background(tmp_path: Path, options: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = scones(tmp_path, "up", "--port", str(port), *options)
    assert result.returncode == 2
    assert f"Port {port} on 127.0.0.1 cannot be used" in result.stderr
    assert "Without --port a free one is picked." in result.stderr


@pytest.mark.parametrize("options", [[], ["--detach"]], ids=" ".join)
def test_a_state_that_cannot_be_loaded_ends_up_alike_too(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "state" / "localcloud").mkdir(parents=True)
    (tmp_path / "state" / "localcloud" / "localcloud.db").write_text("no database at all" * 100)
    result = scones(tmp_path, "up", *options)
    assert result.returncode == 1
    assert "localcloud: " in result.stderr


@pytest.mark.parametrize(
    "command", [["demo"], ["run", "--data", "sample"], ["stage", "sample"], ["up"], ["up", "--detach"], ["models", "list"]]
)
def test_no_command_shows_a_traceback_for_a_state_folder_that_cannot_be_made(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").write_text("")
    result = scones(tmp_path, *command, SCONES_STATE_DIR=str(tmp_path / "file" / "state"))
    assert result.returncode == 2
    assert len(result.stderr.replace("1. Platform and images", "").strip().splitlines()) <= 3
    assert "Traceback" not in result.stderr
    assert "--state-dir" in result.stderr


def test_a_full_disk_is_one_clear_line() -> None:
    import errno

    from scones.errors import ExitCode
    from scones.failures import explain

    explained = explain(OSError(errno.ENOSPC, "No space left on device", "state/x"))
    assert explained is not None
    assert explained.message == "The disk is full: state/x cannot be written"
    assert explained.exit_code is ExitCode.FAILED
    assert explain(OSError(errno.EBADF, "a fault of this program")) is None


def test_mlflow_says_that_its_port_is_taken(tmp_path: Path) -> None:
    (tmp_path / "state" / "mlflow").mkdir(parents=True)
    (tmp_path / "state" / "mlflow" / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = scones(tmp_path, "mlflow", "--json", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 2
    assert "--port" in json.loads(result.stdout)["error"]["hint"]


@pytest.mark.parametrize("group", [[], ["models"], ["deploy"], ["aws"], ["config"]], ids=lambda group: " ".join(group) or "scones")
def test_a_group_alone_shows_its_help_and_a_command_that_it_has_not_names_those_it_has(tmp_path: Path, group: list[str]) -> None:
    alone = scones(tmp_path, *group)
    assert (alone.returncode, alone.stdout) == (2, "")
    assert alone.stderr.startswith("Usage: ")
    assert "Error" not in alone.stderr
    mistyped = scones(tmp_path, *group, "zzzzz")
    assert mistyped.returncode == 2
    assert "There are: " in mistyped.stderr


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux's")
@pytest.mark.parametrize("arguments", [["config", "show"], ["config", "show", "--json"], ["config", "show", "--json", "--set", "x=1"]])
def test_a_result_that_cannot_be_written_is_one_clear_line(tmp_path: Path, arguments: list[str]) -> None:
    env = os.environ | {"SCONES_STATE_DIR": str(tmp_path / "state")}
    with FULL.open("w") as full:
        result = subprocess.run([*SCONES, *arguments], cwd=ROOT, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert "standard output: No space left on device" in result.stderr or "unknown setting x" in result.stderr


def test_every_setting_is_one_word_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scones.console.rich_console", lambda: Console(width=80))
    lines = CliRunner().invoke(cli, ["config", "show"]).stdout.splitlines()
    names = {row["key"] for row in json.loads(CliRunner().invoke(cli, ["config", "show", "--json"]).stdout)}
    assert names <= {line.partition(" ")[0] for line in lines}
    assert max(map(len, lines)) <= 80
    assert sum("config/default.yaml" in line for line in lines) > 20
    assert not any(line.rstrip().endswith("config/default.ya") for line in lines)


def printed(width: int = 80) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=width), text


def test_why_a_photo_failed_is_not_squeezed_into_a_column() -> None:
    cause = "The model container refused the image (400): the image is damaged or incomplete. Check that the file opens in a viewer."
    accepted = {"decision": "accepted", "predicted_label": "bicycle", "confidence": 0.98}
    console, text = printed()
    print_classifications(
        console,
        [Classification("[a].png", "arn", None, "ModelRejectedImageError", cause), Classification("b.png", "arn", accepted)],
    )
    lines = text.getvalue().splitlines()
    assert lines[1].split() == ["[a].png", "failed"]
    assert lines[2].split() == ["b.png", "accepted", "bicycle", "0.980"]
    assert lines[3:] == [f"[a].png: ModelRejectedImageError: {cause}"]


def test_history_gives_the_first_reason_of_a_failure_once() -> None:
    console, text = printed()
    reason = (
        f"The stack is in UPDATE_ROLLBACK_COMPLETE: Endpoint (AWS::SageMaker::Endpoint): {'x' * 500}; SmokeTest (Custom::SmokeTest): no"
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    print_history(console, [Deployment(at, "arn:group/3", "failed", reason), Deployment(at, "arn:group/2", "updated")])
    lines = text.getvalue().splitlines()
    assert [line.split()[2:] for line in lines[1:3]] == [["3", "failed"], ["2", "updated"]]
    assert lines[3] == f"2026-01-01 00:00:00 version 3: {reason[:200]} ..."
    assert lines[4:] == ["All reasons, whole: --json"]


@pytest.mark.parametrize("command", [["-m", "scones"], ["-c", "import importlib.metadata as m; m.EntryPoint('scones', {}, '').load()()"]])
def test_ctrl_c_while_the_command_line_is_loaded_is_no_traceback(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    result = subprocess.run(
        [sys.executable, *(word.format(repr(entry_point())) for word in command)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def entry_point() -> str:
    """What setup.py has the console script call."""
    found = re.search(r'"scones=([\w.:]+)"', (ROOT / "setup.py").read_text())
    assert found is not None
    return found[1]


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = ["make", "demo", "PYTHON=missing", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "There is no command 'missing'; Python 3.11 or newer is needed." in result.stderr
    assert "this is" not in result.stderr


SERVER = """
import os, pathlib, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {worker.pid}\\n")
worker.wait()
"""


@pytest.mark.parametrize("ended_by", ["ctrl-c", "kill"])
def test_ending_mlflow_leaves_no_process_and_no_traceback(tmp_path: Path, ended_by: str, poll: Callable[..., Any]) -> None:
    for folder in ("state/mlflow", "mlflow"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "state" / "mlflow" / "mlflow.db").touch()
    (tmp_path / "mlflow" / "__init__.py").touch()
    (tmp_path / "mlflow" / "__main__.py").write_text(SERVER)
    pids = tmp_path / "pids"
    env = os.environ | {"SCONES_STATE_DIR": str(tmp_path / "state"), "PYTHONPATH": str(tmp_path), "PIDS": str(pids)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = subprocess.Popen(
        [*SCONES, "mlflow", "--port", port],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored, and what they start would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    servers = [int(pid) for pid in poll(lambda: pids.exists() and pids.read_text().endswith("\n") and pids.read_text()).split()]
    if ended_by == "ctrl-c":
        os.killpg(command.pid, signal.SIGINT)
    else:
        command.send_signal(signal.SIGTERM)
    _, stderr = command.communicate(timeout=60)
    assert (command.returncode, stderr.strip()) == (130, "Interrupted.")
    poll(lambda: not any(is_running(pid) for pid in servers))


def is_running(pid: int) -> bool:
    # Where nobody reaps what has ended it stays in the list, as Z.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout.strip()
    return state != "" and not state.startswith("Z")
