"""Which steps run, in which order, and which never do."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from helpers_localcloud_pipelines import Json, compare, condition, definition, fail, get, join
from localcloud.sagemaker.pipelines.definition import Definition, StepType, parse_definition
from localcloud.sagemaker.pipelines.graph import Outcome, Schedule, dependencies
from localcloud.sagemaker.pipelines.validation import validate


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """Random pipelines of Lambda and Condition steps: edges by DependsOn and by reference, conditions nested in branches."""
    names = [f"S{index}" for index in range(draw(st.integers(1, 9)))]
    known: list[tuple[str, str]] = []
    documents: dict[str, Json] = {}
    branches: list[tuple[str, str]] = []
    top: list[Json] = []
    for name in names:
        chosen = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        depends_on = [other for other, how in chosen if draw(st.booleans()) or how != "Lambda"]
        referred = [other for other, how in chosen if how == "Lambda" and other not in depends_on]
        document: Json
        if draw(st.integers(0, 3)) == 0:
            value = join(*[get(f"Steps.{other}.OutputParameters['x']") for other in referred])
            document = condition(name, compare("Equals", value, "never"), DependsOn=depends_on)
            kind = "Condition"
        else:
            document = {
                "Name": name,
                "Type": "Lambda",
                "FunctionArn": "f",
                "Arguments": {other: get(f"Steps.{other}.OutputParameters['x']") for other in referred},
                "OutputParameters": [{"OutputName": "x", "OutputType": "String"}],
                "DependsOn": depends_on,
            }
            kind = "Lambda"
        documents[name] = document
        place = draw(st.sampled_from([None, *branches])) if branches else None
        target: list[Json] = top if place is None else documents[place[0]]["Arguments"][place[1]]
        target.append(document)
        if kind == "Condition":
            branches += [(name, "IfSteps"), (name, "ElseSteps")]
        known.append((name, kind))
    parsed = parse_definition(json.dumps(definition(*top)))
    validate(parsed)
    return parsed


def must_be_skipped(parsed: Definition, graph: dict[str, frozenset[str]], outcomes: dict[str, bool]) -> set[str]:
    """The steps that cannot run: in a branch not taken, or behind one that cannot run. Written as a fixed point, unlike the schedule."""
    skipped: set[str] = set()
    while True:
        more = {
            name
            for name, step in parsed.steps.items()
            if (step.branch and (step.branch.condition in skipped or outcomes[step.branch.condition] != step.branch.outcome))
            or graph[name] & skipped
        }
        if more == skipped:
            return skipped
        skipped = more


@given(definitions(), st.data())
def test_an_execution_respects_dependencies_branches_and_parallelism(parsed: Definition, data: st.DataObject) -> None:
    graph = dependencies(parsed)
    outcomes = {name: data.draw(st.booleans()) for name, step in parsed.steps.items() if step.type is StepType.CONDITION}
    limit = data.draw(st.integers(1, 3))
    schedule = Schedule(parsed, graph, limit=limit)
    started: list[str] = []
    while True:
        ready = schedule.take_ready()
        started += ready
        assert len(schedule.running) <= limit
        for name in ready:
            assert all(schedule.done[dependency] is Outcome.SUCCEEDED for dependency in graph[name])
        if not schedule.running:
            break
        # Whoever may start has been started: what is not running waits for something, or for a place.
        if len(schedule.running) < limit:
            waiting = set(parsed.steps) - set(schedule.done) - schedule.running
            assert all(any(schedule.done.get(dependency) is not Outcome.SUCCEEDED for dependency in graph[name]) for name in waiting)
        finished = data.draw(st.sampled_from(sorted(schedule.running)))
        schedule.finish(finished, Outcome.SUCCEEDED, outcomes.get(finished))
    skipped = must_be_skipped(parsed, graph, outcomes)
    assert len(started) == len(set(started))
    assert set(started) == set(parsed.steps) - skipped
    assert {name for name, outcome in schedule.done.items() if outcome is Outcome.SKIPPED} == skipped


@given(definitions(), st.data())
def test_after_a_failure_nothing_more_starts_and_a_retry_runs_the_rest_once(parsed: Definition, data: st.DataObject) -> None:
    graph = dependencies(parsed)
    outcomes = {name: data.draw(st.booleans()) for name, step in parsed.steps.items() if step.type is StepType.CONDITION}
    schedule = Schedule(parsed, graph, limit=2)
    succeeded: list[str] = []
    failed = False
    while True:
        ready = schedule.take_ready()
        assert not (failed and ready)
        if not schedule.running:
            break
        finished = data.draw(st.sampled_from(sorted(schedule.running)))
        broken = data.draw(st.integers(0, 3)) == 0
        failed = failed or broken
        schedule.finish(finished, Outcome.FAILED if broken else Outcome.SUCCEEDED, None if broken else outcomes.get(finished))
        if not broken:
            succeeded.append(finished)

    retried = Schedule(
        parsed,
        graph,
        done=dict.fromkeys(succeeded, Outcome.SUCCEEDED),
        outcomes={name: outcomes[name] for name in succeeded if name in outcomes},
    )
    again: list[str] = []
    while retried.take_ready() or retried.running:
        finished = sorted(retried.running)[0]
        again.append(finished)
        retried.finish(finished, Outcome.SUCCEEDED, outcomes.get(finished))
    assert not set(again) & set(succeeded)
    assert set(again) | set(succeeded) == set(parsed.steps) - must_be_skipped(parsed, graph, outcomes)


def schedule_of(*steps: Json, **options: Any) -> Schedule:
    parsed = parse_definition(json.dumps(definition(*steps)))
    return Schedule(parsed, dependencies(parsed), **options)


def test_a_step_after_a_branch_that_was_not_taken_is_skipped_with_it() -> None:
    schedule = schedule_of(
        condition("C", compare("Equals", 1, 2), if_steps=[fail("A")], else_steps=[condition("B", compare("Equals", 1, 1))]),
        condition("AfterB", compare("Equals", 1, 1), DependsOn=["B"]),
        condition("AfterC", compare("Equals", 1, 1), DependsOn=["C"]),
    )
    assert schedule.take_ready() == ["C"]
    schedule.finish("C", Outcome.SUCCEEDED, True)
    assert schedule.take_ready() == ["A", "AfterC"]
    assert {name for name, outcome in schedule.done.items() if outcome is Outcome.SKIPPED} == {"B", "AfterB"}


def test_a_halted_schedule_starts_nothing() -> None:
    schedule = schedule_of(fail("A"), fail("B"), limit=1)
    assert schedule.take_ready() == ["A"]
    schedule.halt()
    schedule.finish("A", Outcome.SUCCEEDED)
    assert schedule.take_ready() == []
