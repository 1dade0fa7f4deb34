"""How executions and versions are named on the command line: by the beginning of an id, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from helpers_aws import fake_client
from scones import executions
from scones.commands.logs import _nearest
from scones.console import counted
from scones.errors import ExitCode, SconesError
from scones.executions import Executions
from scones.registry import ModelVersion, Registry

PIPELINE = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Executions:
    """Executions on two pages."""
    pages = {None: ("5fxcow000001", "5fxcow000002"), "more": ("5fab", "5fabc")}

    def listing(request: dict[str, Any]) -> dict[str, Any]:
        asked = request.get("NextToken")
        page: dict[str, Any] = {"PipelineExecutionSummaries": [{"PipelineExecutionArn": PIPELINE + name} for name in pages[asked]]}
        return page if asked else page | {"NextToken": "more"}

    client = fake_client("sagemaker", ListPipelineExecutions=listing)
    monkeypatch.setattr(executions, "describe_execution", lambda _, arn: arn.removeprefix(PIPELINE))
    target: Any = SimpleNamespace(session=SimpleNamespace(client=lambda _: client))
    settings: Any = SimpleNamespace(pipeline=SimpleNamespace(name="p"))
    return Executions(target, settings)


@pytest.mark.parametrize(
    ("name", "identifier"),
    [("5fxcow000002", "5fxcow000002"), ("5fabc", "5fabc"), ("5fxcow000001", "5fxcow000001"), ("5fab", "5fab"), (PIPELINE + "5f", "5f")],
)
def test_an_execution_is_found_by_its_id_and_by_the_beginning_of_it(found: Executions, name: str, identifier: str) -> None:
    assert str(found.find(name)) == identifier


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("5fxc", "2 executions of the pipeline p begin with '5fxc'", "Name one, with more of its id: 5fxcow000001, 5fxcow000002"),
        ("5f", "4 executions", "5fxcow000001, 5fxcow000002, 5fab, 5fabc"),
        ("6", "There is no execution '6' of the pipeline p", "The newest: 5fxcow000001, 5fxcow000002, 5fab, 5fabc"),
        ("", "There is no execution ''", "The newest: "),
    ],
)
def test_what_is_none_or_several_is_answered_with_those_there_are(found: Executions, name: str, message: str, hint: str) -> None:
    with pytest.raises(SconesError) as refusal:
        found.find(name)
    assert message in refusal.value.message
    assert hint in str(refusal.value.hint)
    assert refusal.value.exit_code is ExitCode.USAGE


def registry(monkeypatch: pytest.MonkeyPatch, *states: str) -> Registry:
    """A registry whose versions, newest first, are in these states; the one with a star serves."""
    versions = [
        ModelVersion(f"arn/{number}", number, state.rstrip("*"), datetime.now(UTC), in_production=state.endswith("*"))
        for number, state in zip(range(len(states), 0, -1), states, strict=True)
    ]
    monkeypatch.setattr(Registry, "versions", lambda _: versions)
    return Registry.__new__(Registry)


WAITS = "PendingManualApproval"


@pytest.mark.parametrize(
    ("states", "number"),
    [((WAITS, "Approved*", WAITS), 3), (("Rejected", WAITS, "Approved*"), 2), ((WAITS, WAITS), 2), (("Rejected", WAITS), 1)],
)
def test_the_newest_version_that_waits_is_what_is_approved(monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], number: int) -> None:
    assert registry(monkeypatch, *states).newest_pending().number == number


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (("Approved*", WAITS), "that waits is 1, and version 2, which is newer, serves"),
        (("Rejected*", WAITS, "Approved"), "that waits is 2, and version 3, which is newer, serves"),
        (("Approved", WAITS, "Approved*"), "that waits is 2, and version 3, which is newer, is Approved already"),
    ],
)
def test_what_is_older_than_what_serves_is_approved_by_its_number_only(
    monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SconesError, match=words) as refusal:
        registry(monkeypatch, *states).newest_pending()
    assert "scones models approve " in str(refusal.value.hint)
    assert "scones deploy rollback" in str(refusal.value.hint)


def test_the_nearest_name_is_offered_whatever_its_case() -> None:
    names = ["Preprocess", "Train", "image-classification", "scones-production"]
    assert _nearest("train", names) == "Did you mean 'Train'? "
    assert _nearest("image-clasification", names) == "Did you mean 'image-classification'? "
    assert _nearest("xyz", names) == ""


def test_one_is_not_many() -> None:
    assert [counted(count, "object") for count in (0, 1, 2)] == ["0 objects", "1 object", "2 objects"]
