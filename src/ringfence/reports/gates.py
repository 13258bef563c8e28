"""Conditions on which a comparison fails: `extraction.kept drops > 2 points significantly`.

Knows nothing of command lines or files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ringfence.errors import InputError
from ringfence.reports.comparison import Comparison
from ringfence.reports.verdicts import left_out, points, verdict

MOST_LEFT_OUT = 0.2
"""Share of the items that may be missing or undecided on one side before a gate fails for it."""
GRAMMAR = "SUITE[.METRIC] drops|rises|changes|worsens|improves > POINTS [points] [significantly]"
_GATE = re.compile(
    r"\s*(?P<name>\S+)\s+(?P<verb>drops|rises|changes|differs|worsens|improves)\s*"
    r"(?P<sign>>=|>|≥)\s*(?P<points>\d{1,3}(?:\.\d{1,6})?)\s*(?:points?|%)?\s*"
    r"(?P<sure>significantly)?\s*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A condition that a release must not meet.

    Attributes:
        text: as the user wrote it.
        suite: its name.
        metric: its name; None for the primary ones of the suite.
        verb: `drops` and `rises` go by the rate itself, `changes` by its distance, `worsens` and
            `improves` by what is better for the metric. `differs` is `changes`.
        points: percentage points.
        inclusive: a difference of exactly so many points counts.
        significantly: only where the difference stands by McNemar's test after Holm's adjustment.
    """

    text: str
    suite: str
    metric: str | None
    verb: str
    points: float
    inclusive: bool
    significantly: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """A gate on one metric; `holds` means that the release fails.

    That is so, too, where too much is missing to tell: what broke most may be what never came.
    """

    gate: Gate
    comparison: Comparison
    holds: bool

    @property
    def incomplete(self) -> bool:
        """Whether too few items were compared, whatever they say."""
        one = self.comparison
        return one.difference is None or one.left_out > MOST_LEFT_OUT * one.asked

    @property
    def words(self) -> str:
        """What was found."""
        one = self.comparison
        if one.difference is None or one.rate_a is None or one.rate_b is None:
            return f"{one.name}: {verdict(one)}"
        number = f"{one.clusters} clusters" if one.figure else f"{one.pairs} pairs"
        words = (
            f"{one.name}: {100 * one.rate_a:.1f} → {100 * one.rate_b:.1f} %, "
            f"{points(one.difference.estimate)} points over {number}"
        )
        if one.left_out:
            words += f"; {left_out(one)}"
        return f"{words}, more than a fifth: too many to pass on" if self.incomplete else words


def parse_gate(text: str) -> Gate:
    """A condition as the user wrote it.

    Raises:
        InputError: it is not of the grammar.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise InputError(
            f"--fail-if {text!r}: write {GRAMMAR}, such as 'extraction.kept drops > 2'"
        )
    suite, _, metric = match["name"].partition(".")
    return Gate(
        text=text.strip(),
        suite=suite,
        metric=metric or None,
        verb="changes" if match["verb"] == "differs" else match["verb"],
        points=float(match["points"]),
        inclusive=match["sign"] != ">",
        significantly=match["sure"] is not None,
    )


def judged(gate: Gate, comparisons: Sequence[Comparison]) -> tuple[GateResult, ...]:
    """The gate on every metric it is about.

    Raises:
        InputError: nothing compared has that name; with the names there are.
    """
    suite = [one for one in comparisons if one.suite == gate.suite]
    if not suite:
        names = list(dict.fromkeys(one.suite for one in comparisons))
        raise InputError(_unknown(gate, "suite", gate.suite, names))
    if gate.metric is None:
        chosen = [one for one in suite if one.primary] or suite
    else:
        chosen = [one for one in suite if one.metric.name == gate.metric]
        if not chosen:
            metrics = [one.metric.name for one in suite]
            raise InputError(_unknown(gate, "metric", gate.metric, metrics))
    results = [GateResult(gate=gate, comparison=one, holds=_holds(gate, one)) for one in chosen]
    return tuple(replace(one, holds=one.holds or one.incomplete) for one in results)


def _holds(gate: Gate, one: Comparison) -> bool:
    change = 100 * one.difference.estimate if one.difference else 0.0
    worse = -change if one.metric.better == "higher" else change
    distance = {
        "drops": -change,
        "rises": change,
        "changes": abs(change),
        "worsens": worse,
        "improves": -worse,
    }[gate.verb]
    # A tolerance, for a gate of 2 points is not to hang on the last digit of a float.
    beyond = distance - gate.points
    met = beyond >= -1e-9 if gate.inclusive else beyond > 1e-9
    return met and (one.significant or not gate.significantly)


def _unknown(gate: Gate, kind: str, name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"--fail-if {gate.text!r}: no {kind} {name!r} was compared.{hint} "
        f"Compared: {', '.join(names)}."
    )
