"""A report as one HTML file: no script, no request, readable without either.

Knows no statistics. Everything that models, data or people wrote is escaped; see `markup`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

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
from ringfence.reports.markup import anchor, attribute, shown, table
from ringfence.reports.rates import KINDS, Rate
from ringfence.reports.sample_page import failing_section
from ringfence.reports.verdicts import p_value, verdict

_OPEN_MANIFEST = ("command", "started", "seeds", "limit", "kinds", "data")
MOST_CHANGES = 100


def page(report: Report, figures: Sequence[Drawn] = (), tables: Sequence[str] = ()) -> str:
    """The file. `tables` are further sections, as HTML."""
    names = short_names(report.models)
    suites = "".join(
        f'<a href="#{anchor("suite", one.suite.name)}">{shown(one.suite.name)}</a>'
        for one in report.suites
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        # Nothing may be loaded, whatever a sample says.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">",
        "<title>ringfence report</title>",
        f"<style>{_style()}</style></head><body>",
        "<h1>Evaluation report</h1>",
        f'<p class="dim">{len(report.models)} models, {len(report.suites)} suites. Rates are per '
        "cent with 95 % intervals (Wilson; at the effective sample size where items share a base "
        "prompt or are repeated with other seeds).</p>",
        f'<nav><a href="#run">what was run</a><a href="#together">together</a>'
        f'<a href="#balance">balance</a><a href="#cost">cost</a><a href="#pairs">compared</a>'
        f"{suites}</nav>",
        _manifests(report, names),
        _together(report, names, figures),
        _balances(report, names, figures),
        _costs(report, names, figures),
        _comparisons(report, names),
        *tables,
        *(_suite(one, report, names) for one in report.suites),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _style() -> str:
    return (files("ringfence.reports") / "page.css").read_text("utf-8")


def _manifests(report: Report, names: Mapping[str, str]) -> str:
    parts = ['<section id="run"><h2>What was run</h2>']
    rows = [[shown(names[model]), f'<span class="words">{shown(model)}</span>'] for model in names]
    parts.append(table(["model", "as named"], rows))
    if greedy := no_tries([names[model] for model in report.greedy]):
        parts.append(f"<p>{shown(greedy)}</p>")
    for path, manifest in report.manifests.items():
        facts = "".join(
            f"<dt>{shown(field)}</dt><dd>{shown(_plain(manifest[field]))}</dd>"
            for field in _OPEN_MANIFEST
            if manifest.get(field) is not None
        )
        whole = shown(json.dumps(manifest, indent=1, ensure_ascii=False), 40_000)
        parts.append(
            f"<h3>{shown(path)}</h3><dl class=facts>{facts}</dl>"
            f"<details><summary>all of run.json</summary><pre>{whole}</pre></details>"
        )
    return "".join([*parts, "</section>"])


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _figure(figures: Sequence[Drawn], name: str) -> str:
    for one in figures:
        if one.name == name:
            svg = one.svg.replace("<svg", f'<svg role="img" aria-label="{attribute(one.words)}"', 1)
            return f"<figure>{svg}<figcaption>{shown(one.words)}</figcaption></figure>"
    return ""


def _together(report: Report, names: Mapping[str, str], figures: Sequence[Drawn]) -> str:
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in report.overview)]
    if not kinds:
        apart = shown(made_of([], report.apart))
        return f'<section id="together"><p class="dim">{apart}</p></section>' if apart else ""
    found = {(one.model, one.kind): one for one in report.overview}
    rows = [
        [shown(names[model])]
        + [
            spanned(found[model, kind].interval if (model, kind) in found else None)
            for kind in kinds
        ]
        for model in report.models
    ]
    heads = ["", *("serves the harmless" if kind == "over-refusal" else kind for kind in kinds)]
    parts = [part for one in report.overview for part in one.parts]
    return (
        '<section id="together"><h2>Numbers to be read together</h2>'
        "<p>Means over suites of what stands for each, turned so that high is good. A defence that "
        "refuses everything is robust, and useless: never read one of them alone.</p>"
        + table(heads, rows)
        + _figure(figures, "together")
        + f'<p class="dim">{shown(made_of(parts, report.apart))}</p></section>'
    )


def _balances(report: Report, names: Mapping[str, str], figures: Sequence[Drawn]) -> str:
    rows = [
        [
            shown(f"{one.suite}: {one.twin.name}"),
            shown(names[one.model]),
            f"{shown(one.twin.security)} {spanned(one.security)}",
            f"{shown(one.twin.benign)} {spanned(one.benign)}",
            signed(one.j),
        ]
        for suite in report.suites
        for one in suite.balances
    ]
    if not rows:
        return ""
    heads = ["pair", "model", "attacks resisted", "benign twins served", "J, points"]
    return (
        '<section id="balance"><h2>Security and its benign twin</h2><p>J = security + twin − 1: 0 '
        "for a system that refuses everything or obeys everything, 100 points for one that tells "
        "the two apart.</p>" + table(heads, rows) + _figure(figures, "front") + "</section>"
    )


def _costs(report: Report, names: Mapping[str, str], figures: Sequence[Drawn]) -> str:
    heads = [
        "",
        "replies",
        "errors",
        "tokens processed per committed one",
        "committed per reply",
        "requests per reply",
        "rewinds per reply",
        "seconds p50",
        "seconds p95",
        "refused by the decoder, %",
    ]
    rows = [
        [
            shown(names[one.model]),
            str(one.replies),
            str(one.errors),
            number(one.processed, 2),
            number(one.committed),
            number(one.requests),
            number(one.rewinds, 2),
            number(one.median, 2),
            number(one.slowest, 2),
            percent(one.refused),
        ]
        for one in report.costs
    ]
    drawn = _figure(figures, "cost")
    return f'<section id="cost"><h2>Cost</h2>{table(heads, rows)}{drawn}</section>'


def _comparisons(report: Report, names: Mapping[str, str]) -> str:
    if not report.comparisons:
        return ""
    first = names[report.models[0]]
    parts = [
        f'<section id="pairs"><h2>Compared with {shown(first)}</h2><p>On the same items with the '
        "same seeds. McNemar's exact test (signs of whole clusters are flipped where items share "
        "one), bootstrap of the paired difference, Holm's adjustment over all metrics of a "
        "model. Pairs of a figure are clusters, and its rates are compared although the two may "
        "have other numbers of outcomes.</p>"
    ]
    for model, found in report.comparisons.items():
        rows = [_compared(one, first, names[model]) for one in found]
        heads = ["metric", "pairs", "first", "this", "difference, points", "fixed", "broken"]
        heads += ["p", "p (Holm)", "verdict"]
        parts.append(f"<h3>{shown(names[model])}</h3>{table(heads, rows)}")
    return "".join([*parts, "</section>"])


def _compared(one: Comparison, first: str, second: str) -> list[str]:
    return [
        shown(one.name),
        str(one.pairs),
        percent(one.rate_a),
        percent(one.rate_b),
        signed(one.difference),
        str(one.fixed),
        str(one.broken),
        shown(p_value(one.p)),
        shown(p_value(one.p_holm)),
        f'<div class="words">{shown(verdict(one, first, second))}</div>',
    ]


def _suite(one: SuiteReport, report: Report, names: Mapping[str, str]) -> str:
    suite = one.suite
    static = (
        "These attacks are static: they do not adapt to the defence, so a high rate says nothing "
        "of an attacker who does."
    )
    facts = {
        "measures": suite.measures,
        "threat model": suite.threat_model,
        "does not mean": suite.not_meaning,
        "caveat": static if suite.static else "",
        "source": f"{suite.source} Licence: {suite.licence}",
    }
    described = "".join(
        f"<dt>{shown(name)}</dt><dd>{shown(text)}</dd>" for name, text in facts.items() if text
    )
    seeds = ", ".join(map(str, one.seeds[:20]))
    return (
        f'<section id="{anchor("suite", suite.name)}"><h2>{shown(suite.name)}: '
        f"{shown(suite.title)}</h2>"
        f"<p>{one.items} items, seeds {seeds}, {one.errors} replies that never came.</p>"
        f"<dl class=facts>{described}</dl>{_rates(one, names)}{_spread(one, names)}"
        f"{_tries(one, names)}{failing_section(one.failing, report.logs, names)}</section>"
    )


def _rates(one: SuiteReport, names: Mapping[str, str]) -> str:
    failing = {(found.model, found.name) for found in one.failing}
    metrics = list(dict.fromkeys(rate.metric for rate in one.rates if rate.n))
    found = {(rate.model, rate.metric.name): rate for rate in one.rates}
    rows = []
    for model in one.models:
        cells = [shown(names[model])]
        if (model, "") in failing:
            place = anchor("failing", one.suite.name, model, "")
            cells = [f'{shown(names[model])}<br><a href="#{place}">never came</a>']
        for metric in metrics:
            rate = found[model, metric.name]
            link = ""
            if (model, metric.name) in failing:
                place = anchor("failing", one.suite.name, model, metric.name)
                link = f'<br><a href="#{place}">{rate.failing} failing</a>'
            cells.append(_cell(rate) + link)
        rows.append(cells)
    heads = [
        "",
        *(
            f"{shown(metric.name)}{' *' if metric.name in one.suite.primary else ''}<br>"
            f'<span class="dim">{"high" if metric.better == "higher" else "low"} is good</span>'
            for metric in metrics
        ),
    ]
    words = "".join(
        f"<dt>{shown(metric.name)} ({shown(metric.kind)})</dt><dd>{shown(metric.words)}</dd>"
        for metric in metrics
    )
    note = "* stands for the suite. n: decided replies; n/a: not asked, or not gradable."
    return (
        table(heads, rows, note)
        + f"<details><summary>what each counts</summary><dl class=facts>{words}</dl></details>"
    )


def _cell(rate: Rate) -> str:
    shared = f" in {rate.clusters} clusters" if rate.clustered else ""
    undecided = f", {rate.undecided} n/a" if rate.undecided else ""
    return f'{spanned(rate.interval)}<br><span class="dim">n = {rate.n}{shared}{undecided}</span>'


def _spread(one: SuiteReport, names: Mapping[str, str]) -> str:
    rows = [
        [
            shown(names[rate.model]),
            shown(rate.metric.name),
            percent(min(rate.by_seed.values())),
            percent(max(rate.by_seed.values())),
            ", ".join(percent(value) for value in list(rate.by_seed.values())[:20]),
        ]
        for rate in one.rates
        if rate.primary and len(rate.by_seed) > 1
    ]
    if not rows:
        return ""
    return "<h3>Spread over seeds</h3>" + table(["", "metric", "least", "most", "each"], rows)


def _tries(one: SuiteReport, names: Mapping[str, str]) -> str:
    rows = []
    for tries in one.tries:
        cells = [shown(names[tries.model]), shown(tries.metric.name)]
        for rate in tries.rates:
            known = f"{spanned(rate.rate)}<br>{rate.items} items"
            left = f", {rate.left_out} left out" if rate.left_out else ""
            cells.append(known + left if rate.rate else f"fewer than {rate.k} tries")
        rows.append(cells)
    if not rows:
        return ""
    note = "Tries at an item are its seeds; items with fewer tries than k are left out."
    heads = ["", "metric", "1 try", "10 tries", "100 tries"]
    return "<h3>Attack success by tries</h3>" + table(heads, rows, note)
