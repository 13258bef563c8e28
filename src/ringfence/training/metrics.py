"""Measurements of a run, one line a step, and what is read from them. Knows no torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.errors import RingfenceError

Json = dict[str, Any]
METRICS, FIGURE = "metrics.jsonl", "loss.png"


class DivergedError(RingfenceError):
    """The loss or its gradient is no longer a number; nothing is saved after that."""


class Metrics:
    """The file of a run, one JSON object a step: what TRL logs, and tokens and seconds so far."""

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        """Go on after a step; lines of later ones, which a resumed run does again, are cut off."""
        self._path = folder / METRICS
        kept = [line for line in read(folder) if line["step"] <= after]
        partial = self._path.with_suffix(".partial")
        partial.write_text("".join(_line(line) for line in kept), "utf-8")
        os.replace(partial, self._path)

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(values))


def read(folder: Path) -> list[Json]:
    """All whole lines of a run's metrics; none if there is no file."""
    try:
        lines = (folder / METRICS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:  # torn by a crash
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            found.append(value)
    return found


def checked(values: Mapping[str, Any], step: int, way_out: str) -> None:
    """Stop at a loss or gradient that is no number.

    Raises:
        DivergedError: names the step and the way out.
    """
    for name in ("loss", "grad_norm"):
        value = values.get(name)
        if isinstance(value, int | float) and not math.isfinite(value):
            raise DivergedError(
                f"step {step}: {name} is {value}; training stops, and nothing is saved from here "
                f"on. Lower learning_rate, lower clip, or look at the data. {way_out}"
            )


def figure(lines: Sequence[Json], path: Path, title: str) -> None:
    """Draw loss and learning rate over steps; for preferences the accuracy and the margin, too."""
    from matplotlib.figure import Figure

    steps = [line["step"] for line in lines]
    panels = [("loss", "loss"), ("learning_rate", "learning rate")]
    if any("rewards/accuracies" in line for line in lines):
        panels[1:1] = [
            ("rewards/accuracies", "chosen above rejected"),
            ("rewards/margins", "margin of rewards"),
        ]
    drawing = Figure(figsize=(7.2, 2.2 * len(panels) + 0.5), layout="constrained")
    axes = drawing.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axis, (key, label) in zip(axes[:, 0], panels, strict=True):
        values = [line.get(key, math.nan) for line in lines]
        axis.plot(
            steps, values, color="#9ab4d0", linewidth=0.8, marker="." if len(steps) < 20 else ""
        )
        if len(steps) >= 20 and key != "learning_rate":
            axis.plot(steps, _smooth(values), color="#1f4e79", linewidth=1.6, label="mean of 20")
            axis.legend(frameon=False, loc="best")
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_title(title, loc="left")
    axes[-1, 0].set_xlabel("step")
    partial = path.with_suffix(".partial.png")
    drawing.savefig(partial, dpi=120)
    os.replace(partial, path)


def _smooth(values: Sequence[float], width: int = 20) -> list[float]:
    found = []
    for place in range(len(values)):
        window = values[max(0, place - width + 1) : place + 1]
        found.append(sum(window) / len(window))
    return found


def _line(values: Mapping[str, Any]) -> str:
    """JSON has no NaN: what is no number becomes null."""
    clean = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return json.dumps(clean) + "\n"
