"""Carries out stack operations: create, update, delete and their rollbacks, in the background, one at a time per stack.

What must hold: before anything is changed in the world it is written down what will be, and before a status says that something is done it is. So
whatever moment the process ends at, the next start finds the stack's status and its members' instances, and goes on from there: a create or update is
rolled back; a rollback, clean-up or delete is finished. Every step can be repeated.
"""

from __future__ import annotations

import graphlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from localcloud.cloudformation.blueprint import Blueprint, Registry
from localcloud.cloudformation.comparison import Compare, compare
from localcloud.cloudformation.errors import Stopping
from localcloud.cloudformation.live import BeforeLive, StackLive
from localcloud.cloudformation.parameters import ParameterValue, declared
from localcloud.cloudformation.provider import Place
from localcloud.cloudformation.recorder import Recorder
from localcloud.cloudformation.resources import Resources, for_rollback, same_physical
from localcloud.cloudformation.schedule import Operation, run_all
from localcloud.cloudformation.state import State
from localcloud.cloudformation.template import parse_template
from localcloud.database import Document
from localcloud.errors import ServiceError

log = logging.getLogger(__name__)

Json = Any
#: Resources of one stack that are worked on at once.
WORKERS = 8
#: What an update replaces in the stack's document, and its rollback puts back.
VERSIONED = ("TemplateBody", "Description", "Parameters", "Capabilities", "Tags", "RoleARN", "NotificationARNs", "Outputs", "Imports")
_INTERRUPTED = "localcloud was stopped while this was in progress"
#: What a status becomes when localcloud itself fails: one from which the user can go on.
_GIVEN_UP = {
    "CREATE_IN_PROGRESS": "CREATE_FAILED",
    "ROLLBACK_IN_PROGRESS": "ROLLBACK_FAILED",
    "DELETE_IN_PROGRESS": "DELETE_FAILED",
    "UPDATE_IN_PROGRESS": "UPDATE_ROLLBACK_FAILED",
    "UPDATE_ROLLBACK_IN_PROGRESS": "UPDATE_ROLLBACK_FAILED",
    "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS": "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS": "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_IN_PROGRESS": "IMPORT_ROLLBACK_FAILED",
    "IMPORT_ROLLBACK_IN_PROGRESS": "IMPORT_ROLLBACK_FAILED",
}


def pseudo_parameters(place: Place, stack: Mapping[str, Json]) -> dict[str, Json]:
    """Return the pseudo parameters of a stack."""
    return {
        "AWS::AccountId": place.account,
        "AWS::NotificationARNs": list(stack.get("NotificationARNs") or []),
        "AWS::Partition": place.partition,
        "AWS::Region": place.region,
        "AWS::StackId": stack["StackId"],
        "AWS::StackName": stack["StackName"],
        "AWS::URLSuffix": "amazonaws.com",
    }


class Engine:
    """Runs stack operations.

    Args:
        state: Where everything is remembered.
        registry: Finds providers.
        clients: boto3 clients for them, by the document of the stack that they work for.
        place: Region and account.
        flush: Makes durable what the region's other services have done; called before a status says that an operation is complete.
        publish: Told of every event (stack, event), after it is recorded; must not block.
        workers: Resources of one stack that are worked on at once.
        compare: Compares a resource with reality.
    """

    def __init__(
        self,
        state: State,
        registry: Registry,
        clients: Callable[[Document], Callable[[str], Any]],
        place: Place,
        *,
        flush: Callable[[], None] = lambda: None,
        publish: Callable[[Document, Document], None] = lambda stack, event: None,
        workers: int = WORKERS,
        compare: Compare = compare,
    ) -> None:
        self.state = state
        self.recorder = Recorder(state, publish)
        self.registry = registry
        self.clients = clients
        self.place = place
        self._flush = flush
        self._workers = workers
        self._compare = compare
        self._stopping = threading.Event()
        self._operations: dict[str, Operation] = {}
        self._threads: list[threading.Thread] = []

    # --- beginning and ending -----------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up every operation that a previous process left unfinished."""
        for stack in self.state.stacks():
            if stack["StackStatus"].endswith("_IN_PROGRESS") and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
                log.warning("stack %s was left in %s; going on from there", stack["StackName"], stack["StackStatus"])
                self.run(stack["StackId"], resumed=True)

    def stop(self) -> None:
        """End all operations where they are; the next start takes them up."""
        self._stopping.set()
        with self.state.lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(10)

    def begin_create(self, stack: Document, blueprint: Blueprint) -> None:
        """Write a new stack and begin to create it. Call it with the state's lock."""
        self.state.put_stack(stack)
        self.recorder.stack(stack["StackId"], "CREATE_IN_PROGRESS", "User Initiated")
        self.run(stack["StackId"], blueprint)

    def begin_import(self, stack: Document, blueprint: Blueprint) -> None:
        """Write a new stack and begin to take existing resources, `Importing` by logical id, into it. Call it with the state's lock."""
        self.state.put_stack(stack)
        self.recorder.stack(stack["StackId"], "IMPORT_IN_PROGRESS", "User Initiated")
        self.run(stack["StackId"], blueprint)

    def begin_update(self, stack_id: str, fields: Mapping[str, Json], blueprint: Blueprint, **changes: Json) -> None:
        """Begin to update a stack. Call it with the state's lock.

        Args:
            stack_id: The stack.
            fields: What is new of the fields that a rollback puts back.
            blueprint: The new template with its parameters.
            changes: Further fields of the stack's document.
        """
        now = self.state.stack(stack_id)
        assert now is not None
        previous = {key: now.get(key) for key in VERSIONED}
        self.state.update_stack(stack_id, **fields, Previous=previous, LastUpdatedTime=datetime.now(UTC), RetainResources=None, **changes)
        self.recorder.stack(stack_id, "UPDATE_IN_PROGRESS", "User Initiated")
        self.run(stack_id, blueprint)

    def run(self, stack_id: str, blueprint: Blueprint | None = None, *, resumed: bool = False, skip: Iterable[str] = ()) -> None:
        """Carry out, in the background, what the stack's status says is in progress.

        Args:
            stack_id: The stack; its document says what is wanted.
            blueprint: Its template with its parameters, when the caller has it.
            resumed: The operation was begun by a process that ended in the middle of it.
            skip: Logical ids that a continued rollback leaves as they are.
        """
        operation = Operation(stack_id, self._stopping)
        with self.state.lock:
            self._operations[stack_id] = operation
        self._launch(lambda: self._run(operation, blueprint, resumed, frozenset(skip)), f"stack {stack_id}")

    def _launch(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        with self.state.lock:
            self._threads = [thread, *(other for other in self._threads if other.is_alive())]
            thread.start()

    def operation(self, stack_id: str) -> Operation | None:
        """Return the operation that is under way on a stack."""
        return self._operations.get(stack_id)

    def _run(self, operation: Operation, blueprint: Blueprint | None, resumed: bool, skip: frozenset[str]) -> None:
        stack = self._stack(operation)
        try:
            match stack["StackStatus"]:
                case "CREATE_IN_PROGRESS" if resumed:
                    self._mark_interrupted(operation, "CREATE_FAILED")
                    self._create_failed(operation, f"{_INTERRUPTED}. ")
                case "CREATE_IN_PROGRESS":
                    self._create(operation, blueprint)
                case "ROLLBACK_IN_PROGRESS":
                    self._rollback_create(operation)
                case "UPDATE_IN_PROGRESS" if resumed:
                    self._mark_interrupted(operation, "UPDATE_FAILED")
                    self._update_failed(operation, f"{_INTERRUPTED}. ")
                case "UPDATE_IN_PROGRESS":
                    self._update(operation, blueprint)
                case "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS":
                    self._clean_up_update(operation)
                case "UPDATE_ROLLBACK_IN_PROGRESS":
                    self._rollback_update(operation, skip)
                case "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS":
                    self._clean_up_rollback(operation)
                case "IMPORT_IN_PROGRESS":
                    # Interrupted or not: it only looks at what is there, so that it can begin anew.
                    self._import(operation, blueprint)
                case "IMPORT_ROLLBACK_IN_PROGRESS":
                    self._rollback_import(operation)
                case "DELETE_IN_PROGRESS":
                    self._delete(operation)
        except Stopping:
            log.info("stack %s is left in %s", stack["StackName"], self._stack(operation)["StackStatus"])
        except Exception as error:  # the thread's boundary: a fault of localcloud must not leave the stack in progress for ever
            log.exception("the operation on stack %s failed inside localcloud", stack["StackName"])
            status = _GIVEN_UP[self._stack(operation)["StackStatus"]]
            self.recorder.stack(
                operation.stack_id, status, f"Internal failure of localcloud ({type(error).__name__}: {error}); its log has the traceback"
            )
        finally:
            operation.ended.set()
            with self.state.lock:
                if self._operations.get(operation.stack_id) is operation:
                    del self._operations[operation.stack_id]

    # --- create -------------------------------------------------------------------------------------------------------------------------------

    def _create(self, operation: Operation, blueprint: Blueprint | None) -> None:
        stack = self._stack(operation)
        if stack.get("TimeoutInMinutes"):
            operation.deadline = time.monotonic() + 60 * stack["TimeoutInMinutes"]
        reason, outputs, _ = self._forward(operation, blueprint, Resources.add)
        with self.state.lock:
            # Together: a delete that is asked for now comes either before the end of the create or after it.
            deleting = operation.delete_next
            reason = reason or self._export_conflict(stack, outputs)
            if not deleting and not reason:
                self.state.update_stack(operation.stack_id, Outputs=outputs, Imports=sorted(operation.imports))
                for member in self.state.members(operation.stack_id):
                    member.touched = False
                    self.state.put_member(member)
                self.recorder.stack(operation.stack_id, "CREATE_COMPLETE")
                return
        if deleting:
            self._delete(operation)
        else:
            self._create_failed(operation, reason)

    def _create_failed(self, operation: Operation, reason: str) -> None:
        on_failure = self._stack(operation).get("OnFailure", "ROLLBACK")
        with self.state.lock:
            deleting = operation.delete_next
            if not deleting and on_failure == "DO_NOTHING":
                self.recorder.stack(operation.stack_id, "CREATE_FAILED", reason)
            elif not deleting and on_failure == "DELETE":
                self.recorder.stack(operation.stack_id, "DELETE_IN_PROGRESS", f"{reason}Delete requested by user.")
            elif not deleting:
                self.recorder.stack(operation.stack_id, "ROLLBACK_IN_PROGRESS", f"{reason}Rollback requested by user.")
        if deleting or on_failure == "DELETE":
            self._delete(operation)
        elif on_failure != "DO_NOTHING":
            self._rollback_create(operation)

    def _rollback_create(self, operation: Operation) -> None:
        failures = self._delete_members(operation, rollback=True)
        if failures:
            self.recorder.stack(operation.stack_id, "ROLLBACK_FAILED", _failed("delete", failures))
            return
        self.state.update_stack(operation.stack_id, Imports=[], Outputs=[])
        self.recorder.stack(operation.stack_id, "ROLLBACK_COMPLETE")

    # --- import -------------------------------------------------------------------------------------------------------------------------------

    def _import(self, operation: Operation, blueprint: Blueprint | None) -> None:
        stack = self._stack(operation)
        identifiers: Mapping[str, str] = stack["Importing"]

        def take(resources: Resources, known: Blueprint, name: str) -> None:
            resources.take(known, name, identifiers[name])

        reason, _, _ = self._forward(operation, blueprint, take)
        if not reason:
            self.recorder.stack(operation.stack_id, "IMPORT_COMPLETE")
            return
        self.recorder.stack(operation.stack_id, "IMPORT_ROLLBACK_IN_PROGRESS", reason)
        self._rollback_import(operation)

    def _rollback_import(self, operation: Operation) -> None:
        # What was taken stays where it is: it was there before.
        for member in self.state.members(operation.stack_id):
            self.state.forget_member(member)
        self.recorder.stack(operation.stack_id, "IMPORT_ROLLBACK_COMPLETE")

    # --- update -------------------------------------------------------------------------------------------------------------------------------

    def _update(self, operation: Operation, blueprint: Blueprint | None) -> None:
        reason, outputs, blueprint = self._forward(operation, blueprint, Resources.change)
        with self.state.lock:
            stack = self._stack(operation)
            reason = reason or ("User Initiated" if operation.user_cancelled else self._export_conflict(stack, outputs))
            if not reason:
                assert blueprint is not None
                removed = [
                    member.logical_id for member in self.state.members(operation.stack_id) if member.logical_id not in blueprint.resources
                ]
                # The turning point: from here on the new state is the stack's, and what it no longer has is cleaned up.
                self.state.update_stack(operation.stack_id, Outputs=outputs, Imports=sorted(operation.imports), Removed=removed)
                self.recorder.stack(operation.stack_id, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        if reason:
            self._update_failed(operation, reason)
        else:
            self._clean_up_update(operation)

    def _update_failed(self, operation: Operation, reason: str) -> None:
        if self._stack(operation).get("KeepFailedUpdate") and not operation.user_cancelled:
            self.recorder.stack(operation.stack_id, "UPDATE_FAILED", reason)
            return
        self.recorder.stack(operation.stack_id, "UPDATE_ROLLBACK_IN_PROGRESS", reason)
        self._rollback_update(operation, frozenset())

    def _clean_up_update(self, operation: Operation) -> None:
        removed = set(self._stack(operation).get("Removed") or [])
        for member in self.state.members(operation.stack_id):
            before, current = member.before, member.current
            if before is not None and current is not None and not same_physical(before, current) and not current.recreated:
                # The new template's UpdateReplacePolicy says what becomes of the old one.
                member.garbage.append(replace(before, deletion_policy=current.update_replace_policy))
            if member.logical_id in removed and member.current is not None:
                member.garbage.append(member.current)
                member.current = None
            if member.current is not None:
                member.current.recreated = False
            member.before, member.touched = None, False
            self.state.put_member(member)
        # What cannot be deleted is reported and left, as AWS does.
        self._delete_garbage(operation)
        self._end_update(operation, "UPDATE_COMPLETE")

    def _rollback_update(self, operation: Operation, skip: frozenset[str]) -> None:
        resources = self._resources(operation)
        touched = {member.logical_id: member for member in self.state.members(operation.stack_id) if member.before is not None}
        for name in sorted(skip & set(touched)):
            self.recorder.member(touched[name], "UPDATE_COMPLETE", "Resource was skipped during the rollback")
        restored = set(skip)

        def restore(name: str) -> None:
            resources.restore(touched[name])
            restored.add(name)

        waits_for = {
            name: set(member.before.dependencies) & set(touched) - skip
            for name, member in touched.items()
            if member.before and name not in skip
        }
        failures = run_all(operation, waits_for, restore, workers=self._workers, keep_going=True)
        self._flush()
        for name in sorted(restored & set(touched)):
            resources.settle_restored(touched[name], self._stack(operation))
        if failures:
            self.recorder.stack(operation.stack_id, "UPDATE_ROLLBACK_FAILED", _failed("update", failures))
            return
        self.state.update_stack(operation.stack_id, **(self._stack(operation).get("Previous") or {}))
        self.recorder.stack(operation.stack_id, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        self._clean_up_rollback(operation)

    def _clean_up_rollback(self, operation: Operation) -> None:
        for member in self.state.members(operation.stack_id):
            if member.touched:
                # Made by the update that failed.
                if member.current is not None:
                    member.garbage.append(for_rollback(member.current, self._stack(operation)))
                member.current, member.touched = None, False
                self.state.put_member(member)
        self._delete_garbage(operation)
        self._end_update(operation, "UPDATE_ROLLBACK_COMPLETE")

    def _end_update(self, operation: Operation, status: str) -> None:
        self._flush()
        for member in self.state.members(operation.stack_id):
            if member.current is None:
                self.state.forget_member(member)
            elif member.garbage:
                member.garbage = []
                self.state.put_member(member)
        self.state.update_stack(operation.stack_id, Previous=None, Removed=None)
        self.recorder.stack(operation.stack_id, status)

    # --- delete -------------------------------------------------------------------------------------------------------------------------------

    def _delete(self, operation: Operation) -> None:
        operation.deadline = None
        stack = self._stack(operation)
        in_use = self._export_in_use(stack, {})
        if in_use:
            self.recorder.stack(
                stack["StackId"], "DELETE_FAILED", f"Delete canceled. Cannot delete export {in_use[0]} as it is in use by {in_use[1]}."
            )
            return
        failures = self._delete_members(operation)
        if failures:
            self.recorder.stack(stack["StackId"], "DELETE_FAILED", _failed("delete", failures))
            return
        self.state.update_stack(stack["StackId"], DeletionTime=datetime.now(UTC), Outputs=[], Imports=[], Previous=None, Removed=None)
        self.recorder.stack(stack["StackId"], "DELETE_COMPLETE")

    def _delete_members(self, operation: Operation, rollback: bool = False) -> dict[str, str]:
        """Delete every physical resource of the stack; return why each member that still has one does."""
        stack = self._stack(operation)
        for member in self.state.members(operation.stack_id):
            if member.before is not None and (member.current is None or not same_physical(member.before, member.current)):
                member.garbage.append(member.before)
            if member.current is not None:
                member.garbage.append(for_rollback(member.current, stack) if rollback else member.current)
            member.current, member.before, member.touched = None, None, False
            self.state.put_member(member)
        failures = self._delete_garbage(operation)
        self._flush()
        for member in self.state.members(operation.stack_id):
            if member.garbage and not failures:
                member.garbage = []
                self.state.put_member(member)
            elif any(instance.deleted for instance in member.garbage):
                member.garbage = [instance for instance in member.garbage if not instance.deleted]
                self.state.put_member(member)
        return failures

    def _delete_garbage(self, operation: Operation) -> dict[str, str]:
        """Delete what members have as garbage, dependents first; return why each member that keeps some does."""
        resources, stack = self._resources(operation), self._stack(operation)
        members = {
            m.logical_id: m
            for m in self.state.members(operation.stack_id)
            if m.garbage or (m.current is None and m.status != "DELETE_COMPLETE")
        }
        # Turned round: a resource goes after those that refer to it.
        waits_for: dict[str, set[str]] = {name: set() for name in members}
        for name, member in members.items():
            for instance in member.garbage:
                for dependency in set(instance.dependencies) & set(waits_for) - {name}:
                    waits_for[dependency].add(name)
        try:
            graphlib.TopologicalSorter(waits_for).prepare()
        except graphlib.CycleError:
            # Instances of different templates can refer to each other in a circle; then any order is as good.
            waits_for = {name: set() for name in members}
        return run_all(
            operation, waits_for, lambda name: resources.delete_garbage(members[name], stack), workers=self._workers, keep_going=True
        )

    # --- what all have in common --------------------------------------------------------------------------------------------------------------

    def _forward(
        self, operation: Operation, blueprint: Blueprint | None, step: Callable[[Resources, Blueprint, str], None]
    ) -> tuple[str, list[dict[str, str]], Blueprint | None]:
        """Take *step* for every resource; return why the operation is not to go on (empty: it is), the outputs, and the blueprint."""
        resources = self._resources(operation)
        outputs: list[dict[str, str]] = []
        try:
            known = blueprint or self.blueprint(self._stack(operation))
            # An import that cannot be had fails the operation before anything is made.
            before = BeforeLive(self.state, operation)
            for name in known.resources:
                known.properties(name, before)
            failures = run_all(
                operation,
                {name: wanted.dependencies for name, wanted in known.resources.items()},
                lambda name: step(resources, known, name),
                workers=self._workers,
            )
            reason = self._failure_reason(operation, failures)
            if not reason:
                outputs = known.evaluated_outputs(StackLive(self.state, operation))
                self._flush()
        except ServiceError as error:
            return f"{error.message}. ", [], blueprint
        return reason, outputs, known

    def _failure_reason(self, operation: Operation, failures: Mapping[str, str]) -> str:
        """Return AWS's sentence for a create or update that is not to go on; empty when it is."""
        if operation.timed_out:
            return "Stack creation time exceeded the specified timeout. "
        if operation.user_cancelled or operation.delete_next:
            return "User Initiated"
        created = [
            name for name in failures if (member := self.state.member(operation.stack_id, name)) and member.status == "CREATE_FAILED"
        ]
        changed = set(failures) - set(created)
        verb = "import" if self._stack(operation)["StackStatus"] == "IMPORT_IN_PROGRESS" else "update"
        return (_failed("create", created) if created else "") + (_failed(verb, changed) if changed else "")

    def _mark_interrupted(self, operation: Operation, status: str) -> None:
        for member in self.state.members(operation.stack_id):
            if member.status.endswith("_IN_PROGRESS"):
                self.recorder.member(member, "CREATE_FAILED" if member.status == "CREATE_IN_PROGRESS" else status, _INTERRUPTED)

    def _export_conflict(self, stack: Document, outputs: list[dict[str, str]]) -> str:
        """Return why outputs cannot become the stack's; empty when they can."""
        exports = {output["ExportName"]: output["OutputValue"] for output in outputs if "ExportName" in output}
        for name, _, other in self.state.exports():
            if name in exports and other["StackId"] != stack["StackId"]:
                return f"Export with name {name} is already exported by stack {other['StackName']}. "
        in_use = self._export_in_use(stack, exports)
        if in_use:
            return f"Export {in_use[0]} cannot be {'updated' if in_use[0] in exports else 'deleted'} as it is in use by {in_use[1]}. "
        return ""

    def _export_in_use(self, stack: Document, keep: Mapping[str, Json]) -> tuple[str, str] | None:
        """Return an export of a stack, and a stack that imports it, when *keep* has it no more or with another value."""
        for output in stack.get("Outputs") or []:
            name = output.get("ExportName")
            if name is not None and keep.get(name) != output["OutputValue"]:
                for other in self.state.stacks():
                    if name in (other.get("Imports") or []) and other["StackId"] != stack["StackId"]:
                        return name, other["StackName"]
        return None

    def blueprint(self, stack: Document) -> Blueprint:
        """Return the blueprint of a stack as its document has it."""
        template = parse_template(stack["TemplateBody"])
        parameters = {name: ParameterValue.of(document) for name, document in stack["Parameters"].items()}
        return Blueprint(
            template, declared(template.parameters), parameters, pseudo_parameters(self.place, stack), self.registry, stack["Tags"]
        )

    def _resources(self, operation: Operation) -> Resources:
        clients = self.clients(self._stack(operation))
        return Resources(operation, self.state, self.recorder, self.registry, clients, self.place, self._compare)

    def _stack(self, operation: Operation) -> Document:
        stack = self.state.stack(operation.stack_id)
        assert stack is not None
        return stack


def _failed(verb: str, names: Iterable[str]) -> str:
    return f"The following resource(s) failed to {verb}: [{', '.join(sorted(names))}]. "
