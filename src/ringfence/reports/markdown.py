"""A report as Markdown: the tables, without samples. Knows no statistics."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from ringfence.reports.comparison import Comparison
from ringfence.reports.contents import Report, SuiteReport
from ringfence.reports.figures import Drawn
from ringfence.reports.labels import (
    made_of,
    no_tries,
    number,
    percent,
    short_names,
    signed,
    spanned,
)
from ringfence.reports.rates import KINDS
from ringfence.reports.verdicts import p_value, verdict

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&$@])")


def cell(text: object) -> str:
    """Somebody's text on one line: nothing in it is markup, nothing is hidden."""
    plain = "".join(
        sign if not unicodedata.category(sign).startswith(("C", "Zl", "Zp")) else " "
        for sign in str(text)
    )
    return _SPECIAL.sub(r"\\\1", " ".join(plain.split()))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def markdown(report: Report, figures: Sequence[Drawn] = (), tables: Sequence[str] = ()) -> str:
    """The report; figures are linked as `figures/NAME.png`, `tables` are further sections."""
    names = {model: cell(name) for model, name in short_names(report.models).items()}
    drawn = {
        one.name: f"![{one.title}](figures/{one.name}.png)\n\n{one.words}\n" for one in figures
    }
    greedy = no_tries([names[model] for model in report.greedy])
    parts = [
        "# Evaluation report\n",
        "Rates are per cent with 95 % intervals (Wilson; at the effective sample size where items "
        "share a base prompt or are repeated with other seeds).\n",
        table(["model", "as named"], [[names[model], cell(model)] for model in report.models]),
        *([f"{greedy}\n"] if greedy else []),
        *_together(report, names),
        drawn.get("together", ""),
        *_balances(report, names),
        drawn.get("front", ""),
        *_costs(report, names),
        drawn.get("cost", ""),
        *_comparisons(report, names),
        *tables,
    ]
    for one in report.suites:
        parts.extend(_suite(one, names))
    return "\n".join(part for part in parts if part)


def compared(found: Sequence[Comparison], a: str, b: str) -> str:
    """A comparison as a table with its verdicts."""
    heads = ["metric", "pairs", "A", "B", "difference, points", "p", "p (Holm)", "verdict"]
    rows = [
        [
            cell(one.name),
            str(one.pairs),
            percent(one.rate_a),
            percent(one.rate_b),
            signed(one.difference),
            cell(p_value(one.p)),
            cell(p_value(one.p_holm)),
            cell(verdict(one, a, b)),
        ]
        for one in found
    ]
    return table(heads, rows)


def _together(report: Report, names: Mapping[str, str]) -> list[str]:
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in report.overview)]
    parts = [part for one in report.overview for part in one.parts]
    words = cell(made_of(parts, report.apart))
    if not kinds:
        return [f"{words}\n"] if words else []
    found = {(one.model, one.kind): one.interval for one in report.overview}
    rows = [
        [names[model], *(spanned(found.get((model, kind))) for kind in kinds)]
        for model in report.models
    ]
    heads = ["", *("serves the harmless" if kind == "over-refusal" else kind for kind in kinds)]
    return ["## Numbers to be read together\n", "High is good.\n", table(heads, rows), f"{words}\n"]


def _balances(report: Report, names: Mapping[str, str]) -> list[str]:
    rows = [
        [
            cell(f"{one.suite}: {one.twin.name}"),
            names[one.model],
            spanned(one.security),
            spanned(one.benign),
            signed(one.j),
        ]
        for suite in report.suites
        for one in suite.balances
    ]
    heads = ["pair", "model", "attacks resisted", "benign twins served", "J, points"]
    return ["## Security and its benign twin\n", table(heads, rows)] if rows else []


def _costs(report: Report, names: Mapping[str, str]) -> list[str]:
    heads = ["", "replies", "errors", "tokens processed per committed", "requests", "rewinds"]
    heads += ["seconds p50", "seconds p95"]
    rows = [
        [
            names[one.model],
            str(one.replies),
            str(one.errors),
            number(one.processed, 2),
            number(one.requests),
            number(one.rewinds, 2),
            number(one.median, 2),
            number(one.slowest, 2),
        ]
        for one in report.costs
    ]
    return ["## Cost\n", table(heads, rows)]


def _comparisons(report: Report, names: Mapping[str, str]) -> list[str]:
    plain = short_names(report.models)
    first = report.models[0]
    parts = []
    for model, found in report.comparisons.items():
        parts.append(f"## {names[model]} (B) compared with {names[first]} (A)\n")
        parts.append(compared(found, plain[first], plain[model]))
    return parts


def _suite(one: SuiteReport, names: Mapping[str, str]) -> list[str]:
    suite = one.suite
    metrics = list(dict.fromkeys(rate.metric for rate in one.rates if rate.n))
    found = {(rate.model, rate.metric.name): rate for rate in one.rates}
    rows = []
    for model in one.models:
        cells = [names[model]]
        for metric in metrics:
            rate = found[model, metric.name]
            undecided = f", {rate.undecided} n/a" if rate.undecided else ""
            cells.append(f"{spanned(rate.interval)}, n = {rate.n}{undecided}")
        rows.append(cells)
    heads = [
        "",
        *(f"{cell(metric.name)} ({metric.kind}, {metric.better} is good)" for metric in metrics),
    ]
    static = " Its attacks are static: they do not adapt to the defence." if suite.static else ""
    return [
        f"## {cell(suite.name)}: {cell(suite.title)}\n",
        f"{one.items} items, seeds {', '.join(map(str, one.seeds[:20]))}, {one.errors} replies "
        "that never came.\n",
        f"Threat model: {cell(suite.threat_model)}{static}\n",
        f"What the numbers do not mean: {cell(suite.not_meaning)}\n",
        table(heads, rows),
    ]
