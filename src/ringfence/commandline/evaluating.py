"""The command `evaluate`: progress while a run folder is made, and the table at its end.

How it is made is the business of `ringfence.evaluation`.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringfence.commandline import terminal
from ringfence.commandline.escaping import one_line
from ringfence.commandline.failures import say, say_if_new
from ringfence.commandline.progress import Progress
from ringfence.errors import InputError
from ringfence.evaluation.names import PREFIX, full_name, is_ours, parse, with_options
from ringfence.evaluation.reading import LOGS, load_run
from ringfence.records import Record
from ringfence.reports.observations import Observation, decided, observations, suite_of
from ringfence.reports.tables import filled, layout
from ringfence.statistics import Interval, clustered_rate
from ringfence.suites import SUITES, suite
from ringfence.suites.files import missing

if TYPE_CHECKING:
    from ringfence.evaluation.running import Plan
    from ringfence.evaluation.watching import Count

_MOST_FAILURES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of the table: `hits` of `n` outcomes.

    `interval` is as in reports: Wilson's 95 % at the effective sample size; None of nothing.
    """

    suite: str
    metric: str
    model: str
    hits: int
    n: int
    interval: Interval | None

    def described(self) -> dict[str, Any]:
        """As JSON; a rate of nothing is null."""
        return {
            "suite": self.suite,
            "metric": self.metric,
            "model": self.model,
            "hits": self.hits,
            "n": self.n,
            "rate": self.interval.estimate if self.interval else None,
            "low": self.interval.low if self.interval else None,
            "high": self.interval.high if self.interval else None,
        }


# Samples side by side. A few keep the cores busy, and with each further one llama.cpp's attention
# runs over more cells: 48 prompts of 350 tokens took a fifth longer at 16 than at 4.
_FEW, _MANY = 4, 16


def planned(
    *,
    model: str,
    suites: str | None,
    table: str | None,
    options: Mapping[str, Any],
    seeds: int,
    limit: int | None,
    kinds: str | None = None,
    data: Path | None,
    samples: int | None,
    command: list[str],
) -> Plan:
    """What the options of the command ask for.

    `options` go into the query of every model of ours; without `suites`, all are meant, or those
    that a paper's table shows.

    Raises:
        InputError: names the option.
    """
    import importlib.util

    if importlib.util.find_spec("inspect_ai") is None:
        raise InputError("evaluate needs Inspect: pip install 'ringfence[eval]'")
    from ringfence.evaluation.running import Plan, chosen

    given = {key: value for key, value in options.items() if value is not None and value != []}
    models = chosen(model, [])
    if given and (others := [name for name in models if not is_ours(name)]):
        raise InputError(f"--{next(iter(given))}: means nothing to {others[0]}")
    if data is not None and not data.is_dir():
        raise InputError(f"--data {data}: there is no such folder")
    names = tuple(full_name(with_options(name, given)) for name in models)
    here = any(name.removeprefix(PREFIX).startswith("embedded") for name in names)
    plan = Plan(
        models=names,
        suites=_suites(suites, table, data) or chosen(str(suites), list(SUITES)),
        seeds=seeds,
        limit=limit,
        kinds=chosen(kinds, []) if kinds else (),
        data=data,
        samples=samples or (_FEW if here else _MANY),
        command=("ringfence", *command),
    )
    if data is not None:
        files = (file for name in plan.suites for file in suite(name).files)
        if away := missing(data, files):
            raise InputError(f"--data {data}: {away}")
    for name in _greedy(names) if seeds > 1 else ():
        say(
            f"--seeds {seeds}: {name.removeprefix(PREFIX)} drafts at temperature 0, so that seeds "
            "repeat its replies and are no tries; temperature=0.7 makes them tries"
        )
    return plan


def _greedy(names: Sequence[str]) -> list[str]:
    """Models of ours whose drafts are the likeliest ones; the tree search samples in any case."""
    found = []
    for name in names:
        settings = parse(name).settings if is_ours(name) else None
        if settings and settings.options.temperature == 0 and settings.decoder != "rain":
            found.append(name)
    return found


def _suites(named: str | None, table: str | None, data: Path | None) -> tuple[str, ...]:
    """All suites, or those of a table, without what is not there; none where some are named."""
    if named not in (None, "all"):
        return ()
    wanted = layout(table).suites if table and named is None else tuple(SUITES)
    if data is not None:
        return wanted
    if away := [name for name in wanted if not SUITES[name].packaged]:
        say(f"left out, since they need --data: {', '.join(away)}")
    return tuple(name for name in wanted if SUITES[name].packaged)


def evaluate(out: Path, plan: Plan, *, resume: bool, table: str | None = None) -> dict[str, Any]:
    """Make or complete a run folder; returns what is told at the end.

    Raises:
        RingfenceError: see `running`.
    """
    from ringfence.evaluation import running

    began = time.monotonic()
    paper = layout(table) if table else None
    say_if_new(out, resume=resume)
    with running.opened(out, plan, resume=resume), _progress() as changed:
        count = running.run(out, plan, changed)
    records = load_run(out).records
    failures = [record for record in records if record.error]
    return {
        "out": str(out),
        "logs": str(out / LOGS),
        "samples": len(records),
        "made_now": count.now,
        "missing": count.total - len(records),
        "failed": [_failure(record) for record in failures],
        "rows": [row.described() for row in rows(records)],
        "seconds": round(time.monotonic() - began, 3),
        "next": f"ringfence report {out}",
        "table": filled(paper, records).as_data() if paper else None,
        "table_text": filled(paper, records).as_markdown() if paper else None,
    }


def rows(records: tuple[Record, ...]) -> list[Row]:
    """Rates of every metric and figure of every suite under every model, over all seeds."""
    cells: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if not record.error:
            cells[record.suite, record.model].append(record)
    made = []
    for (name, model), members in sorted(cells.items()):
        seen = observations(suite_of(name, members), members)
        for metric in {name: None for record in members for name in record.outcomes}:
            if metric not in seen:  # a run may be older than the suites
                seen[metric] = [
                    Observation(
                        item=record.item,
                        seed=record.seed,
                        cluster=record.cluster,
                        value=record.outcomes.get(metric),
                    )
                    for record in members
                ]
        made += [_row(name, metric, model, decided(one)) for metric, one in seen.items() if one]
    return sorted(made, key=lambda row: row.suite)


def _row(name: str, metric: str, model: str, known: Sequence[Observation]) -> Row:
    values = [bool(one.value) for one in known]
    # Items of one prompt, and one item under several seeds, are no independent trials.
    interval = clustered_rate(values, [one.cluster for one in known]) if known else None
    return Row(
        suite=name, metric=metric, model=model, hits=sum(values), n=len(values), interval=interval
    )


def told(summary: Mapping[str, Any], console: Console, *, as_json: bool) -> None:
    """The table, what failed, where the logs are, and what to do next."""
    if as_json:
        terminal.emit(json.dumps(summary))
        return
    console.print(_table(summary["rows"]))
    if summary["table_text"]:
        console.print(terminal.shown_lines(summary["table_text"]))
    failed = summary["failed"]
    for failure in failed[:_MOST_FAILURES]:
        say(
            f"failed: {failure['suite']}/{failure['item']}, seed {failure['seed']}, "
            f"{failure['model']}: {failure['error'][:300]}"
        )
    if len(failed) > _MOST_FAILURES:
        say(f"… and {len(failed) - _MOST_FAILURES} more failed samples")
    if failed or summary["missing"]:
        say(f"{len(failed)} failed, {summary['missing']} missing: --resume tries them again")
    say(f"{summary['samples']} samples, {summary['made_now']} of them now; logs: {summary['logs']}")
    say(f"next: {summary['next']}")


def _table(figures: list[dict[str, Any]]) -> Table:
    """Suites and metrics down, models across."""
    models = list(dict.fromkeys(figure["model"] for figure in figures))
    table = Table(title="rate in %, 95 % (clustered), number of replies", title_justify="left")
    table.add_column("suite")
    table.add_column("metric")
    for model in models:
        table.add_column(Text(one_line(model.removeprefix("ringfence/"))), justify="right")
    cells = {(one["suite"], one["metric"], one["model"]): one for one in figures}
    for name, metric in dict.fromkeys((one["suite"], one["metric"]) for one in figures):
        shown = [_cell(cells.get((name, metric, model))) for model in models]
        table.add_row(Text(one_line(name)), Text(one_line(metric)), *shown)
    return table


def _cell(figure: Mapping[str, Any] | None) -> Text:
    if figure is None or figure["rate"] is None:
        return Text("-", terminal.DIM)
    rate, low, high = (100 * figure[name] for name in ("rate", "low", "high"))
    return Text(f"{rate:.1f} [{low:.1f}, {high:.1f}] {figure['n']}")


def _failure(record: Record) -> dict[str, Any]:
    names = ("model", "suite", "item", "seed", "error")
    return {name: getattr(record, name) for name in names}


@contextmanager
def _progress() -> Iterator[Callable[[Count], None]]:
    """Shows how far it is; the clock starts with the first task, what comes before is opening."""
    progress = Progress()
    task = ""

    def changed(count: Count) -> None:
        nonlocal task
        if count.task != task:
            task = count.task
            progress.begin(count.done, task)
        progress.show(count.done, count.total, f", {count.failed} failed" if count.failed else "")

    yield changed
    progress.end()
