"""The stack engine on a world of boxes: what any history of updates, failures and kills leaves behind."""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_localcloud_cloudformation import Killed, Stacks, box, template

Json = Any
NAMES = "ABCDE"


@st.composite
def templates(draw: st.DrawFn, failures: bool = False) -> Json:
    """Templates of up to five boxes that refer to each other in every way, some under a condition, some made to fail."""
    order = draw(st.permutations(NAMES))
    count = draw(st.integers(1, len(NAMES)))
    resources: dict[str, Json] = {}
    conditional = draw(st.sets(st.sampled_from(NAMES), max_size=1))
    for position, name in enumerate(order[:count]):
        earlier = [other for other in order[:position] if other not in conditional]
        properties: dict[str, Json] = {"Size": draw(st.integers(0, 2))}
        if draw(st.booleans()):
            properties["Kind"] = draw(st.sampled_from(["red", "blue"]))
        if draw(st.booleans()):
            properties["Content"] = draw(st.sampled_from([{"Fn::Sub": "${AWS::StackName}-${!x}"}, {"a": [1, {"b": True}]}, "text"]))
        linked = draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True)) if earlier else []
        if linked:
            properties["Links"] = [{"Ref": other} for other in linked]
        if draw(st.booleans()) and earlier:
            properties["Content"] = {"Fn::Sub": "${" + earlier[-1] + ".Arn} and ${" + earlier[-1] + ".Size}"}
        resources[name] = box(**properties)
        if draw(st.booleans()) and earlier:
            resources[name]["DependsOn"] = earlier[-1]
        if name in conditional:
            resources[name]["Condition"] = "Wanted"
    if failures:
        victim = draw(st.sampled_from(sorted(resources)))
        resources[victim]["Properties"]["Fail"] = draw(st.sampled_from(["create", "settle", "update"]))
        resources[victim]["Properties"]["Kind"] = draw(st.sampled_from(["red", "blue"]))
    wanted = draw(st.sampled_from(["yes", "no"]))
    outputs = {"Last": {"Value": {"Ref": order[0]}}} if order[0] not in conditional else {}
    return {"Conditions": {"Wanted": {"Fn::Equals": [wanted, "yes"]}}, "Resources": resources, "Outputs": outputs}


@contextlib.contextmanager
def fresh() -> Iterator[Stacks]:
    with tempfile.TemporaryDirectory() as folder:
        yield Stacks(Path(folder))


def normal(live: dict[str, Json]) -> dict[str, Json]:
    """Return what exists without what only says how it came to be."""
    return {name: {key: value for key, value in thing.items() if key != "Settled"} for name, thing in live.items()}


@settings(max_examples=40)
@given(st.lists(templates(), min_size=2, max_size=4))
def test_any_update_gives_what_a_fresh_create_gives(history: list[Json]) -> None:
    with fresh() as updated, fresh() as created:
        assert updated.create(history[0])["StackStatus"] == "CREATE_COMPLETE"
        for step in history[1:]:
            assert updated.update(step)["StackStatus"] == "UPDATE_COMPLETE"
        assert created.create(history[-1])["StackStatus"] == "CREATE_COMPLETE"
        assert normal(updated.live()) == normal(created.live())
        assert [o["OutputKey"] for o in updated.stack()["Outputs"]] == [o["OutputKey"] for o in created.stack()["Outputs"]]
        assert updated.delete()["StackStatus"] == "DELETE_COMPLETE"
        assert updated.world.things == {}


@settings(max_examples=40)
@given(templates(), templates(failures=True))
def test_a_failed_update_leaves_everything_as_it_was(before: Json, after: Json) -> None:
    with fresh() as stacks:
        stacks.create(before)
        things, stack = stacks.live(), stacks.stack()
        identities = {m.logical_id: m.physical_id for m in stacks.state.members(stack["StackId"])}
        result = stacks.update(after)
        if result["StackStatus"] == "UPDATE_COMPLETE":
            # What was to fail in an update was created or replaced, or the other way round.
            return
        assert result["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
        assert stacks.live() == things
        assert {m.logical_id: m.physical_id for m in stacks.state.members(stack["StackId"])} == identities
        assert {key: result[key] for key in ("TemplateBody", "Outputs", "Parameters")} == {
            key: stack[key] for key in ("TemplateBody", "Outputs", "Parameters")
        }
        assert stacks.update(before)["StackStatus"] == "UPDATE_COMPLETE"
        assert stacks.live() == things


@settings(max_examples=25)
@given(templates(failures=True))
def test_a_failed_create_leaves_nothing(broken: Json) -> None:
    with fresh() as stacks:
        result = stacks.create(broken)
        if result["StackStatus"] == "ROLLBACK_COMPLETE":
            assert stacks.world.things == {}
        else:
            assert result["StackStatus"] == "CREATE_COMPLETE"


@settings(max_examples=60)
@given(templates(), templates(), st.integers(0, 160), st.integers(-3, 20))
def test_killed_during_any_update(before: Json, after: Json, moment: int, luck: int) -> None:
    """After the next start the stack is wholly the old one or wholly the new one, and so is the world."""
    with fresh() as stacks, fresh() as created:
        stacks.create(before)
        old = stacks.live()
        created.create(after)
        again = recovered(stacks, lambda: stacks.update(after), moment, luck)[1]
        check_old_or_new(again, old, normal(created.live()))


@settings(max_examples=60)
@given(templates(), templates(failures=True), st.integers(0, 200), st.integers(-3, 20), st.integers(0, 60))
def test_killed_during_any_rollback_and_again_during_the_recovery(before: Json, after: Json, moment: int, luck: int, second: int) -> None:
    with fresh() as stacks:
        stacks.create(before)
        old = stacks.live()
        stacks.world.steps_left = moment
        with contextlib.suppress(Killed):
            stacks.update(after)
        again = stacks.restart(luck)
        last = recovered(again, lambda: take_up(again), second, luck)[1]
        if last.stack()["StackStatus"] == "UPDATE_COMPLETE":
            assert last.delete()["StackStatus"] == "DELETE_COMPLETE"
            assert last.world.things == {}
            last.database.close()
        else:
            check_old_or_new(last, old, None)


def take_up(stacks: Stacks) -> None:
    stacks.engine.start()
    stacks.engine.work()


def recovered(stacks: Stacks, operation: Callable[[], Any], moment: int, luck: int) -> tuple[bool, Stacks]:
    """Kill the process at a moment of an operation; return whether that came to pass, and the next process after it has taken up the rest.

    *luck* says how many of the changes to the world since the last flush had reached the disk: 0 none, -1 all.
    """
    stacks.world.steps_left = moment
    with contextlib.suppress(Killed):
        operation()
    killed = stacks.world.dead
    again = stacks.restart(luck)
    take_up(again)
    return killed, again


def check_old_or_new(stacks: Stacks, old: dict[str, Json], new: dict[str, Json] | None) -> None:
    status = stacks.stack()["StackStatus"]
    if status == "UPDATE_COMPLETE":
        assert normal(stacks.live()) == new
    else:
        assert status in ("UPDATE_ROLLBACK_COMPLETE", "CREATE_COMPLETE")
        assert stacks.live() == old
    assert stacks.delete()["StackStatus"] == "DELETE_COMPLETE"
    assert stacks.world.things == {}
    stacks.database.close()


FIRST = template(A=box(Size=1, Kind="red"), B=box(Links=[{"Ref": "A"}], Content="old"), C=box(Name="named"))
SECOND = template(
    A=box(Size=2, Kind="blue"), B=box(Links=[{"Ref": "A"}, {"Ref": "D"}], Content={"Fn::GetAtt": "D.Arn"}), D=box(Name="other")
)
BROKEN = template(
    A=box(Size=2, Kind="blue"), B=box(Links=[{"Ref": "A"}], Content="new", Fail="update", Size=3), C=box(Name="named"), D=box()
)


def every_moment(before: Json | None = None) -> Iterator[tuple[int, Stacks]]:
    """Yield moments, each with a process of its own, where a stack of the template *before* is there already."""
    with fresh() as original:
        if before is not None:
            original.create(before)
        original.database.close()
        for moment in range(1000):
            with tempfile.TemporaryDirectory() as folder:
                shutil.copy(original.database.path, folder)
                yield moment, Stacks(Path(folder), copy.deepcopy(original.world))


@pytest.mark.parametrize("luck", [0, -1])
def test_killed_at_every_moment_of_a_create(luck: int) -> None:
    for moment, stacks in every_moment():
        killed, again = recovered(stacks, lambda stacks=stacks: stacks.create(FIRST), moment, luck)  # type: ignore[misc]
        stack = again.state.stack(again.id("s"))
        if stack is not None and stack["StackStatus"] == "CREATE_COMPLETE":
            assert set(again.live()) == {"A", "B", "C"}
        else:
            # REVIEW_IN_PROGRESS: between the first two writes; the request was never answered, and nothing was begun.
            assert stack is None or stack["StackStatus"] in ("ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS")
            assert again.world.things == {}
        again.database.close()
        if not killed:
            return
    raise AssertionError("the create does not end")


@pytest.mark.parametrize("luck", [0, -1, -2])
@pytest.mark.parametrize("after", [SECOND, BROKEN], ids=["update", "rollback"])
def test_killed_at_every_moment_of_an_update(luck: int, after: Json) -> None:
    with fresh() as created:
        created.create(SECOND)
        new = normal(created.live())
    for moment, stacks in every_moment(FIRST):
        old = stacks.live()
        killed, again = recovered(stacks, lambda stacks=stacks: stacks.update(after), moment, luck)  # type: ignore[misc]
        check_old_or_new(again, old, new)
        if not killed:
            return
    raise AssertionError("the update does not end")


@pytest.mark.parametrize(("after", "luck"), [(FIRST, 0), (FIRST, -1), (BROKEN, -1)], ids=["reverted-0", "reverted--1", "rollback--1"])
def test_killed_at_every_moment_of_reverting_drift(after: Json, luck: int) -> None:
    """The stack is as its template says, or everything is as somebody left it by hand; and can be reverted then."""
    with fresh() as created:
        created.create(FIRST)
        new = normal(created.live())
    for moment, stacks in every_moment(FIRST):
        (a,) = (name for name, thing in stacks.world.things.items() if thing.get("Kind") == "red")
        stacks.world.things[a]["Size"] = 9
        del stacks.world.things["named"]
        stacks.world.flush()
        by_hand = copy.deepcopy(stacks.world.things)
        killed, again = recovered(stacks, lambda stacks=stacks: stacks.update(after, RevertDrift=True), moment, luck)  # type: ignore[misc]
        # What counts during an operation only is forgotten with it.
        current = [member.current for member in again.state.members(again.id("s")) if member.current is not None]
        assert not any(instance.recreated or instance.actual is not None for instance in current)
        if again.stack()["StackStatus"] != "UPDATE_COMPLETE":
            assert again.world.things == by_hand
            assert again.update(FIRST, RevertDrift=True)["StackStatus"] == "UPDATE_COMPLETE"
        assert normal(again.live()) == new
        assert {e["LogicalResourceId"] for e in again.state.events(again.id("s")) if e["ResourceStatus"] == "UPDATE_COMPLETE"} >= {"A", "C"}
        assert again.delete()["StackStatus"] == "DELETE_COMPLETE"
        assert again.world.things == {}
        again.database.close()
        if not killed:
            return
    raise AssertionError("the update does not end")


def test_an_update_that_does_not_revert_drift_leaves_what_was_changed_by_hand(stacks: Stacks) -> None:
    stacks.create(FIRST)
    (a,) = (name for name, thing in stacks.world.things.items() if thing.get("Kind") == "red")
    stacks.world.things[a]["Size"] = 9
    assert stacks.update(FIRST)["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.world.things[a]["Size"] == 9
    stacks.update(FIRST, RevertDrift=True)
    assert stacks.world.things[a]["Size"] == 1
    # It holds for one update.
    stacks.world.things[a]["Size"] = 9
    stacks.update(FIRST)
    assert stacks.world.things[a]["Size"] == 9


@pytest.mark.parametrize("luck", [0, -1])
def test_killed_at_every_moment_of_a_delete(luck: int) -> None:
    for moment, stacks in every_moment(FIRST):
        killed, again = recovered(stacks, lambda stacks=stacks: stacks.delete(), moment, luck)  # type: ignore[misc]
        if again.stack()["StackStatus"] == "CREATE_COMPLETE":
            again.delete()
        assert again.stack()["StackStatus"] == "DELETE_COMPLETE"
        assert again.world.things == {}
        again.database.close()
        if not killed:
            return
    raise AssertionError("the delete does not end")


NAMED = template(A=box(Name="a", Size=1), B=box(Name="b", Size=2))


@pytest.mark.parametrize(("missing", "status", "taken"), [(None, "IMPORT_COMPLETE", {"A", "B"}), ("b", "IMPORT_ROLLBACK_COMPLETE", set())])
def test_killed_at_every_moment_of_an_import(missing: str | None, status: str, taken: set[str]) -> None:
    for moment, stacks in every_moment():
        for name in {"a", "b"} - {missing}:
            stacks.world.change(lambda name=name, world=stacks.world: world.things.__setitem__(name, {"Size": 7}))  # type: ignore[misc]
        stacks.world.flush()
        before = copy.deepcopy(stacks.world.things)
        killed, again = recovered(stacks, lambda stacks=stacks: stacks.take(NAMED, {"A": "a", "B": "b"}), moment, 0)  # type: ignore[misc]
        stack = again.state.stack(again.id("s"))
        # Whatever happens, nothing about what was there is changed.
        assert again.world.things == before
        if stack is not None and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
            assert stack["StackStatus"] == status
            assert {member.logical_id for member in again.state.members(again.id("s"))} == taken
        again.database.close()
        if not killed:
            return
    raise AssertionError("the import does not end")


def test_an_import_of_another_resource_than_the_template_names_fails(stacks: Stacks) -> None:
    stacks.world.things |= {"a": {}, "b": {}}
    assert stacks.take(NAMED, {"A": "a", "B": "a"})["StackStatus"] == "IMPORT_ROLLBACK_COMPLETE"
    assert "names b, which is not a" in stacks.reasons()["B", "IMPORT_FAILED"]


@pytest.fixture
def stacks(tmp_path: Path) -> Stacks:
    return Stacks(tmp_path)


TWO = template(A=box(Size=1), B=box(Links=[{"Ref": "A"}], Content={"Fn::GetAtt": "A.Arn"}))


def test_events_of_a_create_come_in_awss_order_with_awss_words(stacks: Stacks) -> None:
    stacks.create(TWO)
    assert stacks.statuses() == [
        ("s", "CREATE_IN_PROGRESS"),
        ("A", "CREATE_IN_PROGRESS"),
        ("A", "CREATE_IN_PROGRESS"),
        ("A", "CREATE_COMPLETE"),
        ("B", "CREATE_IN_PROGRESS"),
        ("B", "CREATE_IN_PROGRESS"),
        ("B", "CREATE_COMPLETE"),
        ("s", "CREATE_COMPLETE"),
    ]
    events = stacks.state.events(stacks.id("s"))
    assert [event.get("ResourceStatusReason") for event in events[:4]] == ["User Initiated", None, "Resource creation Initiated", None]
    assert events[1]["PhysicalResourceId"] == ""
    assert events[2]["PhysicalResourceId"].startswith("s-A-")


def test_a_failed_create_says_which_resources_failed_and_deletes_in_reverse_order(stacks: Stacks) -> None:
    broken = template(A=box(), B=box(Links=[{"Ref": "A"}]), C=box(Fail="settle", Links=[{"Ref": "B"}]))
    stack = stacks.create(broken)
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    reasons = stacks.reasons()
    assert reasons["C", "CREATE_FAILED"] == "told to fail"
    assert reasons["s", "ROLLBACK_IN_PROGRESS"] == "The following resource(s) failed to create: [C]. Rollback requested by user."
    deleted = [name for name, status in stacks.statuses() if status == "DELETE_COMPLETE"]
    assert deleted == ["C", "B", "A"]


@pytest.mark.parametrize(
    ("on_failure", "status", "left"),
    [("DO_NOTHING", "CREATE_FAILED", 2), ("DELETE", "DELETE_COMPLETE", 0), ("ROLLBACK", "ROLLBACK_COMPLETE", 0)],
)
def test_on_failure(stacks: Stacks, on_failure: str, status: str, left: int) -> None:
    broken = template(A=box(), B=box(Fail="settle", Links=[{"Ref": "A"}]))
    assert stacks.create(broken, OnFailure=on_failure)["StackStatus"] == status
    assert len(stacks.world.things) == left
    if left:
        assert stacks.begin("ROLLBACK_IN_PROGRESS")["StackStatus"] == "ROLLBACK_COMPLETE"
        assert stacks.world.things == {}


def test_a_name_that_is_taken_fails_the_resource_and_leaves_the_other_alone(stacks: Stacks) -> None:
    stacks.create(template(A=box(Name="taken")), "one")
    assert stacks.create(template(A=box(Name="taken")), "two")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "already exists." in stacks.reasons("two")["A", "CREATE_FAILED"]
    assert "HandlerErrorCode: AlreadyExists" in stacks.reasons("two")["A", "CREATE_FAILED"]
    assert set(stacks.world.things) == {"taken"}


def test_a_replacement_is_made_before_the_old_one_goes(stacks: Stacks) -> None:
    stacks.create(TWO)
    (first,) = [name for name in stacks.world.things if name.startswith("s-A-")]
    changed = template(A=box(Size=1, Kind="blue"), B=box(Links=[{"Ref": "A"}], Content={"Fn::GetAtt": "A.Arn"}))
    stacks.update(changed)
    events = stacks.state.events(stacks.id("s"))[8:]
    assert [(event["LogicalResourceId"], event["ResourceStatus"]) for event in events] == [
        ("s", "UPDATE_IN_PROGRESS"),
        ("A", "UPDATE_IN_PROGRESS"),
        ("A", "UPDATE_IN_PROGRESS"),
        ("A", "UPDATE_COMPLETE"),
        ("B", "UPDATE_IN_PROGRESS"),
        ("B", "UPDATE_COMPLETE"),
        ("s", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"),
        ("A", "DELETE_IN_PROGRESS"),
        ("A", "DELETE_COMPLETE"),
        ("s", "UPDATE_COMPLETE"),
    ]
    assert events[1]["ResourceStatusReason"] == "Requested update requires the creation of a new physical resource; hence creating one."
    assert [events[1]["PhysicalResourceId"], events[7]["PhysicalResourceId"]] == [first, first]
    assert first not in stacks.world.things


def test_a_custom_name_cannot_be_replaced(stacks: Stacks) -> None:
    stacks.create(template(A=box(Name="mine", Kind="red")))
    assert stacks.update(template(A=box(Name="mine", Kind="blue")))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.reasons()["A", "UPDATE_FAILED"] == (
        "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename mine and update the stack again."
    )
    assert stacks.world.things["mine"]["Kind"] == "red"


def test_policies_keep_what_they_are_to_keep(stacks: Stacks) -> None:
    kept = {**box(Name="kept", Kind="red"), "DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    stacks.create(template(A=kept, B=box()))
    stacks.update(template(A={**kept, "Properties": {"Name": "kept2", "Kind": "red"}}, B=box()))
    stacks.update(template(B=box()))
    assert {"kept", "kept2"} <= set(stacks.world.things)
    assert ("A", "DELETE_SKIPPED") in stacks.statuses()
    stacks.delete()
    assert set(stacks.world.things) == {"kept", "kept2"}


@pytest.mark.parametrize(("policy", "left"), [("Delete", set()), ("Retain", {"kept"}), ("RetainExceptOnCreate", set())])
def test_deletion_policy_when_the_create_fails(stacks: Stacks, policy: str, left: set[str]) -> None:
    broken = template(A={**box(Name="kept"), "DeletionPolicy": policy}, B=box(Fail="create", Links=[{"Ref": "A"}]))
    assert stacks.create(broken)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert set(stacks.world.things) == left


def test_retain_except_on_create_keeps_what_was_made(stacks: Stacks) -> None:
    stacks.create(template(A={**box(Name="kept"), "DeletionPolicy": "RetainExceptOnCreate"}))
    assert stacks.delete()["StackStatus"] == "DELETE_COMPLETE"
    assert set(stacks.world.things) == {"kept"}


def test_what_cannot_be_deleted_fails_the_delete_and_can_be_retained(stacks: Stacks) -> None:
    stacks.create(TWO)
    stacks.box.undeletable = {"A"}
    stack = stacks.delete()
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert stack["StackStatusReason"] == "The following resource(s) failed to delete: [A]. "
    assert len(stacks.world.things) == 1
    stacks.state.update_stack(stack["StackId"], RetainResources=["A"])
    assert stacks.delete()["StackStatus"] == "DELETE_COMPLETE"
    assert len(stacks.world.things) == 1


def test_what_cannot_be_deleted_in_a_cleanup_is_left_and_the_update_complete(stacks: Stacks) -> None:
    stacks.create(TWO)
    stacks.box.undeletable = {"B"}
    assert stacks.update(template(A=box(Size=1)))["StackStatus"] == "UPDATE_COMPLETE"
    assert stacks.reasons()["B", "DELETE_FAILED"] == "told not to go"


def test_a_rollback_that_fails_can_be_continued_and_can_skip(stacks: Stacks) -> None:
    stacks.create(TWO)
    before = stacks.live()
    bad = template(A=box(Size=5, Fail="update"), B=box(Links=[{"Ref": "A"}], Content={"Fn::GetAtt": "A.Arn"}))
    stacks.box.unrestorable = True
    stack = stacks.update(bad)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    assert stack["StackStatusReason"] == "The following resource(s) failed to update: [A]. "
    assert stacks.begin("UPDATE_ROLLBACK_IN_PROGRESS")["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    stacks.box.unrestorable = False
    assert stacks.begin("UPDATE_ROLLBACK_IN_PROGRESS")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.live() == before

    stacks.box.unrestorable = True
    stacks.update(bad)
    assert stacks.begin("UPDATE_ROLLBACK_IN_PROGRESS", skip=["A"])["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.delete()["StackStatus"] == "DELETE_COMPLETE"
    assert stacks.world.things == {}


def test_a_stack_whose_rollback_failed_can_be_deleted(stacks: Stacks) -> None:
    stacks.create(TWO)
    stacks.box.unrestorable = True
    changed = template(A=box(Size=5, Fail="update"), C=box(Kind="new"))
    assert stacks.update(changed)["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    assert stacks.delete()["StackStatus"] == "DELETE_COMPLETE"
    assert stacks.world.things == {}


def test_a_failed_update_can_be_kept_and_rolled_back_later(stacks: Stacks) -> None:
    stacks.create(TWO)
    before = stacks.live()
    bad = template(A=box(Size=2), B=box(Links=[{"Ref": "A"}], Size=3, Fail="update"), C=box())
    assert stacks.update(bad, KeepFailedUpdate=True)["StackStatus"] == "UPDATE_FAILED"
    assert stacks.live() != before
    assert stacks.begin("UPDATE_ROLLBACK_IN_PROGRESS")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.live() == before


def test_exports_are_unique_and_kept_while_they_are_imported(stacks: Stacks) -> None:
    exporting = {**TWO, "Outputs": {"O": {"Value": {"Ref": "A"}, "Export": {"Name": "shared"}}}}
    stacks.create(exporting, "one")
    importing = template(X=box(Links=[{"Fn::ImportValue": {"Fn::Sub": "sha${Red}"}}]))
    importing["Parameters"] = {"Red": {"Type": "String", "Default": "red"}}
    assert stacks.create(importing, "two")["StackStatus"] == "CREATE_COMPLETE"
    assert stacks.stack("two")["Imports"] == ["shared"]

    assert stacks.create(exporting, "three")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert stacks.reasons("three")["three", "ROLLBACK_IN_PROGRESS"] == (
        "Export with name shared is already exported by stack one. Rollback requested by user."
    )
    assert stacks.update(TWO, "one")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert stacks.reasons("one")["one", "UPDATE_ROLLBACK_IN_PROGRESS"] == "Export shared cannot be deleted as it is in use by two. "
    assert stacks.delete("one")["StackStatus"] == "DELETE_FAILED"
    assert stacks.stack("one")["StackStatusReason"] == "Delete canceled. Cannot delete export shared as it is in use by two."
    stacks.delete("two")
    assert stacks.delete("one")["StackStatus"] == "DELETE_COMPLETE"
    assert stacks.world.things == {}


def test_an_import_of_nothing_fails_before_anything_is_made(stacks: Stacks) -> None:
    stack = stacks.create(template(A=box(), X=box(Links=[{"Fn::ImportValue": "nothing"}])))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert stacks.reasons()["s", "ROLLBACK_IN_PROGRESS"] == "No export named nothing found. Rollback requested by user."
    assert ("A", "CREATE_IN_PROGRESS") not in stacks.statuses()


def test_stack_tags_reach_resources_that_take_tags_and_theirs_win(stacks: Stacks) -> None:
    tags = [{"Key": "a", "Value": "stack"}, {"Key": "b", "Value": "stack"}]
    stacks.create(template(A=box(Tags=[{"Key": "a", "Value": "own"}])), Tags=tags)
    (thing,) = stacks.world.things.values()
    assert thing["Tags"] == [{"Key": "a", "Value": "own"}, {"Key": "b", "Value": "stack"}]


def test_many_resources_are_worked_on_at_once_and_in_order(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path, workers=8)
    resources = {f"R{i}": box(Links=[{"Ref": f"R{j}"} for j in range(max(i - 3, 0), i, 2)]) for i in range(40)}
    assert stacks.create(template(**resources))["StackStatus"] == "CREATE_COMPLETE"
    assert len(stacks.world.things) == 40
    assert stacks.delete()["StackStatus"] == "DELETE_COMPLETE"
    assert stacks.world.things == {}


def test_generated_names_say_stack_and_resource_and_fit(stacks: Stacks) -> None:
    long_name = "L" * 60
    stacks.create(template(**{long_name: box()}), "a-stack-with-quite-a-long-name-of-its-own")
    (name,) = stacks.world.things
    assert len(name) <= 40
    assert name.startswith("a-")
    assert "-LLLL" in name


def test_a_fault_of_localcloud_fails_the_stack_and_does_not_hang_it(stacks: Stacks, monkeypatch: pytest.MonkeyPatch) -> None:
    stacks.create(TWO)

    def fault(*_: Any) -> None:
        raise KeyError("fault")

    monkeypatch.setattr(type(stacks.box), "update", fault)
    stack = stacks.update(template(A=box(Size=3), B=box(Links=[{"Ref": "A"}], Content={"Fn::GetAtt": "A.Arn"})))
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    assert "Internal Failure (KeyError: 'fault')" in stacks.reasons()["A", "UPDATE_FAILED"]
    monkeypatch.undo()
    assert stacks.begin("UPDATE_ROLLBACK_IN_PROGRESS")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    stacks.world.things |= {"a": {}, "b": {}}
    monkeypatch.setattr(type(stacks.engine), "_forward", fault)
    assert stacks.take(NAMED, {"A": "a", "B": "b"}, "other")["StackStatus"] == "IMPORT_ROLLBACK_FAILED"
