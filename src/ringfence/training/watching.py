"""What goes on beside the steps: progress, metrics, a stop on request or on a broken loss."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from ringfence.training.metrics import Metrics, checked

# Seconds between two lines of progress.
_PAUSE = 5.0
Say = Callable[[str], None]


class Stop:
    """A request to stop after the step in hand."""

    def __init__(self) -> None:
        """Not asked for."""
        self.asked = 0

    @contextmanager
    def on_signals(self, say: Say) -> Iterator[None]:
        """Take Ctrl-C and a scheduler's SIGTERM as such requests; a second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, _frame: Any) -> None:
            if self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = number
            say("stopping after this step, with a checkpoint; Ctrl-C again stops at once")

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Watch(TrainerCallback):
    """Progress on stderr, metrics into a file.

    Attributes:
        seconds: that steps took in this process.
        tokens: that they processed, on all devices.
    """

    def __init__(
        self,
        *,
        tokens: list[int],
        metrics: Metrics | None,
        stop: Stop,
        say: Say,
        way_out: str,
    ) -> None:
        """Watch a run.

        Args:
            tokens: of every step.
            metrics: where measurements go; None in all processes but the first.
            stop: asked for by whoever runs this.
            say: takes a line for people.
            way_out: what to do after a broken loss.
        """
        self.seconds = 0.0
        self.tokens = 0
        self._of_step, self._metrics, self._stop = tokens, metrics, stop
        self._say, self._way_out = say, way_out
        self._began = self._shown = time.monotonic()
        self._first = 0
        self._loss = float("nan")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._began = self._shown = time.monotonic()
        self._first = state.global_step
        if self._first:
            self._say(f"goes on after step {self._first} of {state.max_steps}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count, and stop where that was asked for, in all processes at once."""
        step = state.global_step
        if step <= len(self._of_step):
            self.tokens += self._of_step[step - 1]
        self.seconds = time.monotonic() - self._began
        if _anywhere(self._stop.asked):
            self._stop.asked = self._stop.asked or signal.SIGTERM
            control.should_save = control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Check the loss, write the step down, tell how far it is."""
        values = dict(logs or {})
        if "loss" not in values:
            return
        step = state.global_step
        checked(values, step, self._way_out)
        self._loss = values["loss"]
        if self._metrics is not None:
            self._metrics.add(
                {
                    "step": step,
                    **values,
                    "batch_tokens": self._of_step[step - 1] if step <= len(self._of_step) else 0,
                    "seconds": round(self.seconds, 3),
                }
            )
        now = time.monotonic()
        if now - self._shown >= _PAUSE or step in (self._first + 1, state.max_steps):
            self._shown = now
            self._tell(step, state.max_steps)

    def _tell(self, step: int, total: int) -> None:
        done = step - self._first
        speed = self.tokens / max(self.seconds, 1e-9)
        left = (total - step) * self.seconds / max(done, 1)
        self._say(
            f"step {step} of {total}  loss {self._loss:.4f}  {speed:,.0f} tokens/s  "
            f"ETA {_duration(left)}"
        )


def _anywhere(asked: int) -> bool:
    """Whether any process was asked to stop: all must save the same checkpoint."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return bool(asked)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    flag = torch.tensor([int(bool(asked))], device=device)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag.item())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
