"""The commands `report`, `compare` and `export`: read runs, write files, say what was found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ringfence.commandline import terminal
from ringfence.commandline.failures import say
from ringfence.errors import InputError
from ringfence.records import Record, Run
from ringfence.reports.as_data import comparison_as_data, gates_as_data, report_as_data
from ringfence.reports.ci_files import junit, sarif
from ringfence.reports.comparison import Comparison, compare
from ringfence.reports.contents import Report, report_of
from ringfence.reports.gates import GateResult, judged, parse_gate
from ringfence.reports.labels import percent, short_names, signed, spanned
from ringfence.reports.observations import merged
from ringfence.reports.regrading import Regraded, regraded
from ringfence.reports.verdicts import p_value, verdict

_MOST_SHOWN = 10


def report(
    paths: Sequence[Path],
    console: Console,
    *,
    out: Path | None,
    samples: int | None,
    tables: Sequence[str],
    as_json: bool,
) -> None:
    """Write report.html, report.md, report.json and figures; print the tables.

    Raises:
        InputError: a folder that is no run, an unknown table, or matplotlib is missing.
    """
    from ringfence.reports.markdown import markdown
    from ringfence.reports.page import page
    from ringfence.reports.tables import filled, layout

    layouts = [layout(name) for name in tables]
    runs = [_opened(path) for path in paths]
    found = report_of(runs, most=samples)
    papers = [filled(one, merged(runs)) for one in layouts]
    folder = out or paths[0] / "report"
    figures = _figures(found, folder / "figures")
    data = report_as_data(found) | {"tables": [paper.as_data() for paper in papers]}
    _write(folder / "report.html", page(found, figures, [one.as_html() for one in papers]))
    _write(folder / "report.md", markdown(found, figures, [one.as_markdown() for one in papers]))
    _write(folder / "report.json", json.dumps(data, indent=1) + "\n")
    if as_json:
        terminal.emit(json.dumps(data | {"written": str(folder)}))
        return
    _show_rates(found, console)
    failed = [record for run in runs for record in run.records if record.error]
    if failed:
        total = sum(len(run.records) for run in runs)
        say(
            f"{len(failed)} of {total} samples failed and count in no rate; the first: "
            f"{failed[0].suite}/{failed[0].item}: {failed[0].error}"
        )
    for paper in papers:
        console.print(terminal.shown_lines(paper.as_markdown()))
    say(f"wrote {folder / 'report.html'}, report.md, report.json and figures")


def regrade(paths: Sequence[Path], console: Console, *, data: Path | None, as_json: bool) -> bool:
    """Grade stored replies again; whether some outcome is another today.

    Raises:
        InputError: nothing can be graded again.
    """
    results = [_regraded(run, run.records, data) for run in map(_opened, paths)]
    whole = Regraded(
        replies=sum(one.replies for one in results),
        left_out={
            reason: sum(one.left_out.get(reason, 0) for one in results)
            for one in results
            for reason in one.left_out
        },
        differing=tuple(each for one in results for each in one.differing),
    )
    if as_json:
        terminal.emit(json.dumps(whole.to_json()))
        return bool(whole.differing)
    console.print(f"{whole.replies} replies graded again, {len(whole.differing)} outcomes differ")
    for reason, count in whole.left_out.items():
        console.print(terminal.shown(f"{count} left out: {reason}"))
    for one in whole.differing[:100]:
        where = f"{one.suite}/{one.item}, seed {one.seed}, {one.model}"
        words = f"{one.metric}: stored {_word(one.stored)}, now {_word(one.now)}"
        console.print(terminal.shown(f"  {where}: {words}"))
    return bool(whole.differing)


def compared(
    path_a: Path,
    path_b: Path,
    console: Console,
    *,
    model_a: str | None,
    model_b: str | None,
    fail_if: Sequence[str],
    junit_file: Path | None,
    sarif_file: Path | None,
    regrade: bool = False,
    data: Path | None = None,
    as_json: bool,
) -> bool:
    """Compare two models on the same items; whether a condition of `fail_if` holds.

    With `regrade` the stored replies of both are graded by the graders of today first.

    Raises:
        InputError: no shared items, an unknown model, suite or metric, a condition that cannot be
            read.
    """
    gates = [parse_gate(text) for text in fail_if]
    run_a, run_b = _opened(path_a), _opened(path_b)
    same = path_a.resolve() == path_b.resolve()
    name_a = _model(run_a, model_a, "--model-a", needed=same)
    name_b = _model(run_b, model_b, "--model-b", needed=same)
    ours, theirs = _of(run_a, name_a), _of(run_b, name_b)
    ungraded: frozenset[tuple[str, str, int]] = frozenset()
    if regrade:
        again = [_regraded(run_a, ours, data), _regraded(run_b, theirs, data)]
        ours, theirs = (one.records for one in again)
        ungraded = again[0].ungraded | again[1].ungraded
    found = compare(ours, theirs, ungraded=ungraded)
    results = [result for gate in gates for result in judged(gate, found)]
    a, b = _sides(run_a, run_b, name_a, name_b)
    if junit_file:
        _write(junit_file, junit(found, results, a, b))
    if sarif_file:
        log = sarif(found, results, a, b, quote((path_b / "records.jsonl").as_posix()))
        _write(sarif_file, json.dumps(log, indent=1) + "\n")
    failed = any(one.holds for one in results)
    if as_json:
        told = {
            "a": {"run": str(path_a), "model": name_a},
            "b": {"run": str(path_b), "model": name_b},
            "comparisons": [comparison_as_data(one, a, b) for one in found],
            "gates": gates_as_data(results),
            "failed": failed,
        }
        terminal.emit(json.dumps(told))
        return failed
    _show_comparisons(found, results, a, b, console)
    return failed


def export(kind: str, *, url: str, model: str, out: Path, force: bool, as_json: bool) -> None:
    """Write a configuration of another tool that points at our server.

    Raises:
        InputError: an unknown tool, a URL that is none, or a file that is there without `force`.
    """
    if out.exists() and not force:
        raise InputError(f"--out {out} exists; --force replaces it")
    from ringfence.reports.exports import exported

    export = exported(kind, url, model)
    _write(out, export.text)
    if as_json:
        terminal.emit(json.dumps({"written": str(out), "run": export.command(out)}))
    else:
        say(f"wrote {out}; run it with: {export.command(out)}")


def _opened(path: Path) -> Run:
    from ringfence.evaluation.reading import load_run

    return load_run(path)


def _figures(found: Report, folder: Path) -> tuple[Any, ...]:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        say("matplotlib is not installed: no figures. Install it with: pip install matplotlib")
        return ()
    from ringfence.reports.figures import figures_of, write

    figures = figures_of(found)
    write(figures, folder)
    return figures


def _write(file: Path, text: str) -> None:
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.tmp")
    partial.write_text(text, "utf-8", errors="backslashreplace")
    partial.replace(file)


def _model(run: Run, wanted: str | None, option: str, *, needed: bool) -> str:
    models = list(dict.fromkeys(record.model for record in run.records))
    listed = ", ".join(models) or "none"
    if wanted is None:
        if len(models) == 1 and not needed:
            return models[0]
        raise InputError(f"{option}: name one of the models of {run.path}: {listed}")
    if wanted in models:
        return wanted
    short = [model for model, name in short_names(models).items() if name == wanted]
    if len(short) == 1:
        return short[0]
    raise InputError(f"{option}: {run.path} has no model {wanted!r}. Models: {listed}")


def _of(run: Run, model: str) -> Sequence[Record]:
    return [record for record in run.records if record.model == model]


def _regraded(run: Run, records: Sequence[Record], data: Path | None) -> Regraded:
    limit = run.manifest.get("limit")
    return regraded(records, data, limit if isinstance(limit, int) else None)


def _sides(run_a: Run, run_b: Run, name_a: str, name_b: str) -> tuple[str, str]:
    """What to call them in sentences."""
    if name_a != name_b:
        names = short_names([name_a, name_b])
        return names[name_a], names[name_b]
    if run_a.path.name != run_b.path.name:
        return run_a.path.name, run_b.path.name
    return "A", "B"


def _show_rates(found: Report, console: Console) -> None:
    names = short_names(found.models)
    for suite in found.suites:
        table = Table(title=terminal.shown(suite.suite.name), border_style="dim")
        for head in ("metric", "model", "rate, % (95 %)", "n", "n/a"):
            table.add_column(head, justify="left" if head in ("metric", "model") else "right")
        for one in suite.rates:
            if one.n:
                star = " *" if one.primary else ""
                table.add_row(
                    terminal.shown(one.metric.name + star),
                    terminal.shown(names[one.model]),
                    spanned(one.interval),
                    str(one.n),
                    str(one.undecided),
                )
        console.print(table, soft_wrap=False)


def _show_comparisons(
    found: Sequence[Comparison], gates: Iterable[GateResult], a: str, b: str, console: Console
) -> None:
    console.print(terminal.shown(f"A: {a}   B: {b}   + fixed / - broken in B"))
    for suite, compared in groupby(found, lambda one: one.suite):
        console.print(_compared(suite, compared), soft_wrap=False)
    for one in found:
        if one.primary or one.significant:
            console.print(terminal.shown(f"{one.name}: {verdict(one, a, b)}"))
        if one.primary:
            _show_changes(one, console)
    for gate in gates:
        word = "FAILED" if gate.holds else "passed"
        console.print(terminal.shown(f"{word}: {gate.gate.text}: {gate.words}"))


def _compared(suite: str, found: Iterable[Comparison]) -> Table:
    # Eighty columns, those of a build's log, have to hold it.
    table = Table(
        title=terminal.shown(suite), border_style="dim", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for head in ("metric", "pairs", "A", "B", "points (95 %)", "+ / -", "p", "Holm"):
        first = head == "metric"
        # A name that is cut in two cannot be copied into --fail-if.
        table.add_column(head, justify="left" if first else "right", overflow="fold", no_wrap=first)
    for one in found:
        table.add_row(
            terminal.shown(one.metric.name),
            str(one.pairs),
            percent(one.rate_a),
            percent(one.rate_b),
            signed(one.difference),
            f"{one.fixed}/{one.broken}",
            p_value(one.p),
            p_value(one.p_holm),
        )
    return table


def _show_changes(one: Comparison, console: Console) -> None:
    for word, wanted in (("broken", False), ("fixed", True)):
        items = [f"{c.item} (seed {c.seed})" for c in one.changes if c.fixed is wanted]
        if items:
            more = f" and {len(items) - _MOST_SHOWN} more" if len(items) > _MOST_SHOWN else ""
            console.print(terminal.shown(f"  {word}: {', '.join(items[:_MOST_SHOWN])}{more}"))


def _word(value: bool | None) -> str:
    return "undecided" if value is None else str(value).lower()
