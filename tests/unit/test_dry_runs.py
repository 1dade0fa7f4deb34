"""--dry-run: every command that changes something has it, and those that need no region change nothing with it."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from scones import local
from scones.cli import cli
from scones.errors import ExitCode, SconesError
from scones.project import as_typed, state_dir, with_state_dir
from scones.removal import print_orphans
from staging.sample import write_sample

#: Commands without --dry-run, and why they need none.
ONLY_READS = {
    "status": "shows",
    "logs": "shows",
    "models list": "shows",
    "models show": "shows",
    "models compare": "shows",
    "deploy history": "shows",
    "aws costs": "computes from the settings, asks nobody",
    "aws diff": "shows; the change sets that it asks CloudFormation for are dropped",
    "cicd status": "shows",
    "cicd logs": "shows",
    "config show": "shows",
    "mlflow": "shows what was tracked, until Ctrl-C",
}


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_every_command_that_changes_something_has_a_dry_run() -> None:
    without = {name for name, command in commands(cli) if not any("--dry-run" in option.opts for option in command.params)}
    assert without == ONLY_READS.keys()


def test_a_hint_names_the_state_folder_with_every_command(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    option = f" --state-dir '{folder}'"
    for name, command in commands(cli):
        assert with_state_dir(f"Look (.venv/bin/scones {name} X).", folder) == f"Look (.venv/bin/scones {name}{option} X)."
        assert with_state_dir(f"scones {name}", state_dir()) == f"scones {name}"
        assert any("--state-dir" in parameter.opts for parameter in command.params), name
    both = with_state_dir("scones status, scones models list", folder)
    assert both == f"scones status{option}, scones models list{option}"
    assert with_state_dir(both, folder) == both
    assert with_state_dir("the stack scones-inference of scones ran", folder) == "the stack scones-inference of scones ran"


@pytest.mark.parametrize(
    ("hint", "typed"),
    [
        ("List them: scones models list", "List them: scones models list --aws"),
        ("scones run --data FOLDER, then scones status.", "scones run --aws --data FOLDER, then scones status --aws."),
        ("Make it: scones cicd deploy --aws", "Make it: scones cicd deploy --aws"),
        ("scones run --data FOLDER --aws; scones config show", "scones run --data FOLDER --aws; scones config show"),
        ("the stack scones-inference; `scones aws costs`", "the stack scones-inference; `scones aws costs`"),
    ],
)
def test_hints_of_a_command_on_aws_stay_there(hint: str, typed: str, tmp_path: Path) -> None:
    assert as_typed(hint, tmp_path, aws=True) == typed


@pytest.mark.parametrize("aws", [False, True])
def test_what_belongs_to_no_stack_is_said_with_commands_that_go_on_there(tmp_path: Path, aws: bool) -> None:
    text = io.StringIO()
    print_orphans(Console(file=text), ("AWS::S3::Bucket scones",), lambda hint: as_typed(hint, tmp_path, aws=aws))
    option = "--aws" if aws else f"--state-dir {tmp_path}"
    assert f"scones aws bootstrap {option} takes this" in text.getvalue()
    assert f"scones aws destroy {option} --delete-data" in text.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def planned(*arguments: str) -> tuple[dict[str, Any], str]:
    result = CliRunner().invoke(cli, [*arguments, "--dry-run", "--json"], standalone_mode=False)
    assert result.exception is None, result.exception
    return json.loads(result.stdout), result.stderr


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("start", "stop", "prepare"):
        monkeypatch.setattr(local, name, lambda *_: pytest.fail("a dry run starts and ends nothing"))


@pytest.mark.usefixtures("nothing_starts")
def test_up_and_down_say_what_they_would_do(tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for options in ([], ["--detach"]):
        plan, notes = planned("up", "--port", str(port), *options, *state)
        assert (plan["already_running"], plan["port"], plan["has_state"]) == (False, port, False)
        assert notes == "Nothing was started (--dry-run).\n"
    assert planned("down", *state)[0] == {"stopped": False, "would_stop": False}
    assert contents(tmp_path) == {}


@pytest.mark.usefixtures("nothing_starts")
def test_the_demo_says_what_it_would_start_make_and_train_on(tmp_path: Path) -> None:
    photos = write_sample(tmp_path / "photos", 20, 1)
    before = contents(tmp_path)
    plan, _ = planned("demo", "--data", str(photos), "--state-dir", str(tmp_path / "state"))
    assert (plan["starts_localcloud"], plan["makes_platform"], plan["run"]) == (True, True, None)
    assert sum(plan["images"]["counts"].values()) == 20
    assert contents(tmp_path) == before


def test_the_demo_refuses_in_a_dry_run_what_it_would_refuse(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["demo", "--data", str(tmp_path / "none"), "--state-dir", str(tmp_path / "state"), "--dry-run"])
    assert "none" in str(result.exception)
    assert contents(tmp_path) == {}


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("command", [["classify", "photo.png"], ["models", "approve"], ["run"], ["aws", "bootstrap"]], ids=" ".join)
def test_a_dry_run_starts_no_localcloud(tmp_path: Path, command: list[str]) -> None:
    result = CliRunner().invoke(cli, [*command, "--dry-run", "--state-dir", str(tmp_path / "state")], standalone_mode=False)
    assert isinstance(result.exception, SconesError)
    assert result.exception.exit_code is ExitCode.UNREACHABLE
    assert "localcloud does not run" in result.exception.message
    assert contents(tmp_path) == {}


def test_a_package_is_built_and_not_written(tmp_path: Path) -> None:
    plan, _ = planned("aws", "package", str(tmp_path / "new"))
    assert plan["outcome"] == "planned"
    assert any(file["key"].startswith("code/lambdas/serialize_image_data/") for file in plan["files"])
    assert contents(tmp_path) == {}
