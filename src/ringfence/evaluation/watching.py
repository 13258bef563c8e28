"""How far a run is, as Inspect tells it. Knows nothing of terminals.

Importing this module registers the hook; it does nothing unless somebody watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inspect_ai.hooks import Hooks, RunEnd, SampleEnd, TaskEnd, TaskStart, hooks

from ringfence.evaluation.engines import ENGINES
from ringfence.evaluation.reading import Cell, cell_of


class Count:
    """A fold over what Inspect tells.

    Attributes:
        total: samples of the run.
        done: samples that are finished, those of earlier attempts included.
        now: samples that were finished in this attempt.
        failed: of these, the ones that ended in an error.
        task: what runs at the moment.
    """

    def __init__(self, total: int, changed: Callable[[Count], None]) -> None:
        """`changed` is called whenever something has."""
        self.total, self.done, self.now, self.failed, self.task = total, 0, 0, 0, ""
        self._changed = changed
        self._kept: dict[Cell, int] = {}
        self._closed = 0
        self._open = 0

    def started(self, cell: Cell) -> None:
        """A task begins, or goes on with what an earlier attempt has finished of it."""
        suite, model, _ = cell
        self.task, self._open = f"{suite} · {model}", self._kept.pop(cell, 0)
        self.done = self._closed + self._open
        self._changed(self)

    def finished(self, *, failed: bool) -> None:
        """A sample is finished."""
        self.now += 1
        self._open += 1
        self.failed += failed
        self.done = self._closed + self._open
        self._changed(self)

    def ended(self, samples: int) -> None:
        """A task has ended with so many samples; some may be of an earlier attempt."""
        self._closed += samples
        self._open = 0
        self.done = self._closed
        self._changed(self)

    def skipped(self, samples: int) -> None:
        """A task with so many samples was there already."""
        self.ended(samples)

    def kept(self, cell: Cell, samples: int) -> None:
        """An earlier attempt has finished so many samples of a task, and not the task."""
        self._kept[cell] = samples


_watching: list[Count] = []


@contextmanager
def watched(count: Count) -> Iterator[Count]:
    """Tell `count` what happens in this process."""
    _watching.append(count)
    try:
        yield count
    finally:
        _watching.remove(count)


@hooks(name="ringfence_progress", description="Tells ringfence evaluate how far a run is.")
class Watching(Hooks):
    """Passes on what Inspect tells, and closes our engines in the loop that opened them."""

    def enabled(self) -> bool:
        """Only while somebody watches."""
        return bool(_watching)

    async def on_task_start(self, data: TaskStart) -> None:
        """See `Count.started`."""
        for count in _watching:
            count.started(cell_of(data.spec))

    async def on_sample_end(self, data: SampleEnd) -> None:
        """See `Count.finished`."""
        for count in _watching:
            count.finished(failed=data.sample.error is not None)

    async def on_task_end(self, data: TaskEnd) -> None:
        """See `Count.ended`."""
        samples = data.log.eval.dataset.samples or 0
        for count in _watching:
            count.ended(samples)

    async def on_run_end(self, data: RunEnd) -> None:
        """No more requests will come."""
        await ENGINES.aclose()
