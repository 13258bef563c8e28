"""What the strength of an adapter buys and costs, as a figure and as JSON.

    python benchmarks/dial.py 0=RUN[,RUN…] 0.5=RUN[,RUN…] … [--out docs/dial.svg] [--json FILE]

RUN is a folder of `ringfence evaluate` of one model at that strength (suites extraction, hierarchy
and capability; what is not there is left out). Intervals are 95 %, by clusters where items share a
prompt; J = kept + served - 1 of extraction.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ringfence.commandline.evaluating import rows
from ringfence.evaluation.reading import load_run

LINES = (
    ("extraction", "kept", "extraction: secret not told", "o-"),
    ("extraction", "served", "extraction: its twin served", "s-"),
    ("hierarchy", "right", "hierarchy suite: right", "^-"),
    ("capability", "strict", "capability: IFEval, strict", "D-"),
    ("over-refusal", "complied", "over-refusal: complied", "v:"),
)


def measured(runs: list[Path]) -> dict[str, dict[str, float]]:
    """Suite and metric → rate, its interval, and of how many replies."""
    records = tuple(record for run in runs for record in load_run(run).records)
    return {
        f"{row.suite}.{row.metric}": {
            "rate": row.interval.estimate,
            "low": row.interval.low,
            "high": row.interval.high,
            "n": row.n,
        }
        for row in rows(records)
        if row.interval and any((row.suite, row.metric) == line[:2] for line in LINES)
    }


def draw(points: dict[float, dict[str, Any]], out: Path) -> None:
    """One line a metric over the strengths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4))
    for suite, metric, label, style in LINES:
        told = {
            at: point[f"{suite}.{metric}"]
            for at, point in points.items()
            if f"{suite}.{metric}" in point
        }
        if not told:
            continue
        rates = [100 * one["rate"] for one in told.values()]
        spans = [
            [rate - 100 * one["low"] for rate, one in zip(rates, told.values(), strict=True)],
            [100 * one["high"] - rate for rate, one in zip(rates, told.values(), strict=True)],
        ]
        number = max(one["n"] for one in told.values())
        axes.errorbar(list(told), rates, spans, fmt=style, capsize=3, label=f"{label} ({number})")
    axes.set(xlabel="strength of the rings (--rings-strength)", ylabel="%", ylim=(0, 103))
    axes.set_xticks(list(points))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(out, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    """Read the runs, write figure and numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", nargs="+", metavar="STRENGTH=RUN[,RUN…]")
    parser.add_argument("--out", type=Path, default=Path("docs/dial.svg"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    pairs = sorted(
        (float(at), runs) for at, _, runs in (one.partition("=") for one in given.points)
    )
    points = {at: measured([Path(run) for run in runs.split(",")]) for at, runs in pairs}
    draw(points, given.out)
    text = json.dumps(points, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
