"""Which step waits for which, and which may start next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from localcloud.sagemaker.pipelines.definition import Definition, Step, unparsable
from localcloud.sagemaker.pipelines.expressions import ExpressionError, PropertyFileReference, StepReference, references


def step_references(step: Step) -> set[str]:
    """Return the names of the steps that a step's expressions name.

    Raises:
        ExpressionError: An expression is malformed.
    """
    values = [step.arguments, step.function_arn, step.sqs_queue_url]
    return {reference.step for reference in references(values) if isinstance(reference, StepReference | PropertyFileReference)}


def dependencies(definition: Definition) -> dict[str, frozenset[str]]:
    """Return, by step, the steps that must have succeeded before it: named by its expressions or DependsOn, and the condition whose branch it is in.

    Raises:
        DefinitionError: A named step does not exist, or steps wait for each other in a circle.
    """
    found: dict[str, frozenset[str]] = {}
    for step in definition.steps.values():
        try:
            names = step_references(step) | set(step.depends_on)
        except ExpressionError as error:
            raise unparsable(str(error)) from error
        unknown = sorted(names - set(definition.steps))
        if unknown:
            raise unparsable(f"Step '{step.name}' refers to unknown step '{unknown[0]}'.")
        found[step.name] = frozenset(names | ({step.branch.condition} if step.branch else set()))
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        raise unparsable(f"Cycle detected in pipeline step graph: {' -> '.join(error.args[1])}.") from error
    return found


def ancestors(graph: Mapping[str, Iterable[str]], names: Iterable[str]) -> set[str]:
    """Return every step that the named steps wait for, directly or not."""
    found: set[str] = set()
    queue = list(names)
    while queue:
        for name in graph[queue.pop()]:
            if name not in found:
                found.add(name)
                queue.append(name)
    return found


class Outcome(StrEnum):
    """How a step ended, as far as the others are concerned. SKIPPED: never started, and never will be."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"
    SKIPPED = "Skipped"


class Schedule:
    """The state of an execution's graph. No threads, no clock: `take_ready` and `finish` are the whole life of it.

    Args:
        definition: The pipeline.
        graph: Its `dependencies`.
        done: Steps that have ended already (a retried execution's, a selective one's), with the outcomes of conditions in *outcomes*.
        limit: How many steps may run at once.
    """

    def __init__(
        self,
        definition: Definition,
        graph: Mapping[str, frozenset[str]],
        *,
        done: Mapping[str, Outcome] | None = None,
        outcomes: Mapping[str, bool] | None = None,
        limit: int = 50,
    ) -> None:
        self._steps = definition.steps
        self._graph = graph
        self._done: dict[str, Outcome] = dict(done or {})
        self._outcomes: dict[str, bool] = dict(outcomes or {})
        self._running: set[str] = set()
        self._halted = False
        self.limit = limit
        self._skip()

    @property
    def running(self) -> frozenset[str]:
        """The steps that were taken and have not finished."""
        return frozenset(self._running)

    @property
    def done(self) -> Mapping[str, Outcome]:
        """How each ended step ended."""
        return dict(self._done)

    def halt(self) -> None:
        """Start nothing more (the execution is being stopped)."""
        self._halted = True

    def take_ready(self) -> list[str]:
        """Return the steps that may start now, in the definition's order, and count them as running."""
        if self._halted:
            return []
        ready = [
            name
            for name in self._steps
            if name not in self._done
            and name not in self._running
            and all(self._done.get(dependency) is Outcome.SUCCEEDED for dependency in self._graph[name])
        ][: max(self.limit - len(self._running), 0)]
        self._running.update(ready)
        return ready

    def finish(self, name: str, outcome: Outcome, condition: bool | None = None) -> None:
        """Record how a running step ended; anything but success starts nothing more.

        Args:
            name: The step.
            outcome: How it ended.
            condition: A Condition step's outcome.
        """
        self._running.remove(name)
        self._done[name] = outcome
        if condition is not None:
            self._outcomes[name] = condition
        if outcome is not Outcome.SUCCEEDED:
            self._halted = True
        self._skip()

    def _skip(self) -> None:
        """Give up on steps of branches not taken, and on all that waits for a step given up on."""
        changed = True
        while changed:
            changed = False
            for name, step in self._steps.items():
                if name in self._done or name in self._running:
                    continue
                taken = self._outcomes.get(step.branch.condition) if step.branch else None
                left_out = step.branch is not None and taken is not None and taken != step.branch.outcome
                if left_out or any(self._done.get(dependency) is Outcome.SKIPPED for dependency in self._graph[name]):
                    self._done[name] = Outcome.SKIPPED
                    changed = True
