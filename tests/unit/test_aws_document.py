"""docs/aws.md: its commands can be typed, its figures are the estimate's, and it knows every error that people can meet."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from infrastructure.packaging import ROOT
from lambdas.common import errors as workflow_errors
from lambdas.deploy_inference_workflow import errors as deployment_errors
from pipelines.settings import load_settings
from scones.cli import cli
from scones.costs import dollars, estimate, estimate_delivery
from scones.platform import chosen_delivery, platform_parameters

TEXT = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
BLOCKS = [line for block in re.findall(r"^```\n(.+?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.splitlines()]
INLINE = re.findall(r"`(scones [^`]+)`", TEXT + SECURITY)
COMMANDS = sorted({line.removeprefix(".venv/bin/") for line in (*BLOCKS, *INLINE) if "scones " in line})


def parse(words: list[str]) -> None:
    """Have click read a command line as it would, and do nothing.

    Raises:
        click.UsageError: it is wrong.
    """
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group) and words:
        context = click.Context(command, parent=context, info_name=command.name)
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"there is no command {words[0]}")
        command, words = found, words[1:]
    if not isinstance(command, click.Group):
        command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_can_be_typed_as_it_stands(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").touch()
    words = shlex.split(line.replace("…", "x"))[1:]
    try:
        parse(words)
    except click.MissingParameter:
        # In a sentence a command may stand for itself.
        assert line in INLINE


def test_the_ten_steps_are_there() -> None:
    assert [int(number) for number in re.findall(r"^\*\*(\d+)\. ", TEXT, re.MULTILINE)] == list(range(1, 11))
    assert any(line.startswith("make ") for line in BLOCKS)


@pytest.mark.parametrize(("column", "stage"), [(1, "dev"), (2, "production")])
def test_the_figures_are_the_estimates(column: int, stage: str) -> None:
    from infrastructure.costs import Usage

    settings = load_settings(stage, (), environ={}).settings
    found = estimate(settings, platform_parameters(settings), Usage())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
    table = {row[0]: row[column] for row in rows if len(row) == 3}
    wanted = {line.what: dollars(line.monthly or 0.0) for line in found.lines}
    wanted |= {"in all": dollars(found.total), "of that when nothing is used": dollars(found.standing)}
    assert {name: table.get(name) for name in wanted} == wanted
    assert set(table) - set(wanted) <= {"what"}


def test_the_deliverys_figure_is_its_estimate() -> None:
    assert f"{dollars(estimate_delivery({}).total)} for 40 pushes" in TEXT
    assert estimate_delivery(chosen_delivery(load_settings("dev", (), environ={}).settings).for_template()) == estimate_delivery({})


def test_costs_shows_what_a_delivery_adds_by_the_machine_and_the_pushes() -> None:
    def cicd(*options: str) -> dict[str, float]:
        document = json.loads(CliRunner().invoke(cli, ["aws", "costs", "--json", *options]).stdout)
        return {line["what"]: line["monthly"] for line in document["cicd"]["lines"]}

    assert (cicd()["CodeBuild"], cicd()["CodePipeline"]) == (3.2, 1.28)
    large = cicd("--pushes-per-month", "10", "--set", "cicd.test_compute_type=BUILD_GENERAL1_LARGE")
    assert (large["CodeBuild"], large["CodePipeline"]) == (1.6, 0.32)
    assert cicd("--set", "cicd.source=github-actions") == {}


@pytest.mark.parametrize("module", [workflow_errors, deployment_errors], ids=lambda module: module.__name__)
def test_every_error_has_a_row(module: ModuleType) -> None:
    raised = {
        name
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and "Never raised itself" not in (kind.__doc__ or "")
    }
    assert raised - set(re.findall(r"`(\w+Error)`", TEXT)) == set()


def test_the_errors_and_settings_that_it_names_exist() -> None:
    workflow = (ROOT / "stepfunctions" / "classify.asl.json").read_text(encoding="utf-8")
    known = {name for module in (workflow_errors, deployment_errors) for name, _ in inspect.getmembers(module, inspect.isclass)}
    named = set(re.findall(r"`(\w+Error)`", TEXT))
    assert {name for name in named - known if f'"{name}"' not in workflow} == set()
    keys = {row.key for row in load_settings().rows()}
    sections = {key.partition(".")[0] for key in keys}
    settings = {
        f"{section}.{name}" for section, name in re.findall(r"`(?:--set )?([a-z_]+)\.([a-z_]+)\b(?!\.)", TEXT) if section in sections
    }
    assert settings <= keys


@pytest.mark.parametrize(
    "words",
    [
        "There are no AWS credentials",
        "The sign-in to AWS has expired",
        "AWS refuses the credentials",
        "This machine's clock and AWS's differ",
        "The account's quota '",
        " of the project ",
    ],
)
def test_the_messages_that_it_explains_are_said(words: str) -> None:
    assert words in TEXT
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "scones").rglob("*.py")]
    assert any(words in source for source in sources)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target
