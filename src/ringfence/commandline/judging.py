"""The command `judge check`, and the gate that `serve` opens with it."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ringfence.commandline import terminal
from ringfence.commandline.failures import say
from ringfence.commandline.progress import Progress
from ringfence.commandline.workplace import Workplace
from ringfence.errors import InputError, JudgeError
from ringfence.judge_check import (
    JudgeReport,
    check_judge,
    check_judge_once,
)
from ringfence.judged_items import drawn, load_items, packaged_items


async def measured(place: Workplace, data: Path | None, limit: int | None) -> JudgeReport:
    """Measure the judge on labelled replies, `limit` at most; on those that ship without `data`."""
    if place.judge is None or place.principle is None:
        raise InputError("judge check needs --principle NAME")
    items = load_items(data) if data else packaged_items(place.principle.name)
    items = items if limit is None else drawn(items, limit)
    progress = Progress()
    progress.begin(words="judged")
    try:
        card = place.judge_engine.card
        return await check_judge(place.judge, card, items, progress=progress.show)
    finally:
        progress.end()


async def admitted(
    place: Workplace, *, force: bool, option: str = "--force", unmeasured: bool = False
) -> None:
    """Let a judge decide if it can tell good from bad, or if it is forced.

    Args:
        place: with the judge.
        force: a judge at chance is let in, with a warning.
        option: by which the user forces it.
        unmeasured: so is one of a principle that no labelled replies are packaged for.

    Raises:
        InputError: there is nothing to measure it on.
        JudgeError: it is at chance; with the figures.
    """
    assert place.judge is not None and place.principle is not None
    name = place.principle.name
    try:
        items = packaged_items(name)
    except InputError as error:
        if not (force or unmeasured):
            raise InputError(
                f"{error} Measure it with `ringfence judge check --principle … --data FILE`, then "
                f"go on with {option}."
            ) from None
        say(
            f"principle {name}: its judge was not measured; `ringfence judge check --principle … "
            "--data FILE` does it"
        )
        return
    say(f"principle {name}: measuring its judge, unless that was done before …")
    report = await check_judge_once(place.judge, place.principle, place.judge_engine.card, items)
    if report.at_chance and force:
        say(f"warning: {report.refusal()}")
        return
    if report.at_chance:
        raise JudgeError(f"{report.refusal()} {option} goes on anyway.")
    say(f"principle {name}: AUROC {report.auroc.estimate:.2f}, accuracy {report.accuracy:.0%}")


def show(report: JudgeReport, console: Console, *, as_json: bool) -> None:
    """The figures, as a table or as JSON."""
    if as_json:
        terminal.emit(json.dumps(report.to_json()))
        return
    area = report.auroc
    flips = report.swap_flip_rate
    figures = {
        "items": f"{report.n}, {report.positives} of them good",
        "AUROC": f"{area.estimate:.3f}  (95 % interval {area.low:.3f} to {area.high:.3f})",
        "accuracy": f"{report.accuracy:.1%} at the threshold {report.threshold:g}, "
        f"{report.accuracy_at_zero:.1%} at 0",
        "TPR at 1 % FPR": f"{report.tpr_at_1_fpr:.1%}",
        "swap-flip rate": "no swap" if flips is None else f"{flips:.1%}",
        "lean": f"{report.lean:+.2f}  (mean over good and bad; 0 favours neither)",
        "calibration error": f"{report.calibration_error:.3f}",
        "cost of a verdict": f"{report.requests:.1f} requests, {report.fed:.0f} tokens, "
        f"{report.seconds * 1000:.0f} ms",
    }
    table = Table(show_header=False, border_style="dim")
    table.add_column(style="bold")
    table.add_column()
    for name, figure in figures.items():
        table.add_row(name, figure)
    bins = Table(title="reliability", border_style="dim")
    for name in ("judged good with", "items", "stated", "were good"):
        bins.add_column(name, justify="right")
    for one in report.reliability:
        span = f"{one.low:.1f} to {one.high:.1f}"
        bins.add_row(span, str(one.n), f"{one.stated:.2f}", f"{one.happened:.2f}")
    parts = Table(title="part by part", border_style="dim")
    for name in ("items with", "items", "good", "AUROC (95 % interval)"):
        parts.add_column(name, justify="left" if name == "items with" else "right")
    for part in report.parts:
        found = part.auroc
        words = f"{found.estimate:.2f} ({found.low:.2f} to {found.high:.2f})" if found else "–"
        what = terminal.shown(f"{part.by}: {part.value}")
        parts.add_row(what, str(part.n), str(part.positives), words)
    title = terminal.shown(f"{report.judge} on {report.engine}", terminal.COMMITTED)
    verdict = Text("At chance: do not use it.", "bold red") if report.at_chance else Text()
    shown: list[RenderableType] = [title, table, bins, *([parts] if report.parts else []), verdict]
    console.print(Group(*shown), soft_wrap=False)
