"""Tables of papers with their published figures, and ours beside them. Layouts are data files.

A cell of ours is a rate of one metric over the items whose id matches a pattern; where nothing was
run it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ringfence.errors import InputError
from ringfence.records import Record
from ringfence.reports.labels import short_names, spanned
from ringfence.reports.markdown import cell as plain
from ringfence.reports.markdown import table as markdown_table
from ringfence.reports.markup import shown
from ringfence.reports.markup import table as html_table
from ringfence.reports.observations import Observation, good, grouped, observations, suite_of
from ringfence.statistics import Interval, clustered_rate
from ringfence.suites import Suite
from ringfence.yaml_files import parsed

PAPERS = ("instruction-hierarchy", "rain")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ours(_Data):
    """Where our figure comes from.

    Attributes:
        suite: its name; metric: of the suite, turned so that high is good.
        items: shell pattern of item ids.
        note: how it differs from what the paper measured.
    """

    suite: str
    metric: str
    items: str = "*"
    note: str = ""


class Row(_Data):
    """One row: published figures in per cent by column, and where ours come from, if anywhere."""

    label: str
    published: dict[str, float] = Field(default_factory=dict)
    ours: Ours | None = None
    unmeasured: str = ""


class Section(_Data):
    """Rows under a heading, as the paper groups them."""

    title: str
    rows: tuple[Row, ...]


class Layout(_Data):
    """A paper's tables. `columns`: keys of `published` and their headings."""

    name: str
    title: str
    source: str
    caveat: str
    columns: dict[str, str]
    sections: tuple[Section, ...]

    @property
    def suites(self) -> tuple[str, ...]:
        """That fill it."""
        rows = [row for section in self.sections for row in section.rows]
        return tuple(dict.fromkeys(row.ours.suite for row in rows if row.ours))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A layout with our figures.

    Attributes:
        models: short names, in order.
        cells: (section, row, model) by their places → interval and number of replies; missing where
            nothing was measured.
    """

    layout: Layout
    models: tuple[str, ...]
    cells: Mapping[tuple[int, int, int], tuple[Interval, int]]

    def as_data(self) -> dict[str, Any]:
        """As JSON: published figures in per cent, ours as rates."""
        return {
            "name": self.layout.name,
            "source": self.layout.source,
            "models": list(self.models),
            "rows": [
                {
                    "section": section.title,
                    "row": row.label,
                    "published": dict(row.published),
                    "note": row.ours.note if row.ours else row.unmeasured,
                    "ours": [self._data(s, r, m) for m in range(len(self.models))],
                }
                for s, section in enumerate(self.layout.sections)
                for r, row in enumerate(section.rows)
            ],
        }

    def as_markdown(self) -> str:
        """A section of a page."""
        layout = self.layout
        parts = [f"## {layout.title}\n", f"{layout.source} {layout.caveat}\n"]
        heads = ["", *layout.columns.values(), *(plain(name) for name in self.models), "note"]
        for place, section in enumerate(layout.sections):
            rows = [[plain(one) for one in line] for line in self._lines(place)]
            parts += [f"### {section.title}\n", markdown_table(heads, rows)]
        return "\n".join(parts)

    def as_html(self) -> str:
        """A section of a page."""
        layout = self.layout
        parts = [f"<section><h2>{shown(layout.title)}</h2>"]
        parts.append(f"<p>{shown(layout.source)} {shown(layout.caveat)}</p>")
        heads = ["", *map(shown, layout.columns.values()), *map(shown, self.models), "note"]
        for place, section in enumerate(layout.sections):
            rows = []
            for line in self._lines(place):
                *figures, note = [shown(one) for one in line]
                rows.append([*figures, f'<div class="words">{note}</div>'])
            parts.append(f"<h3>{shown(section.title)}</h3>{html_table(heads, rows)}")
        return "".join([*parts, "</section>"])

    def _lines(self, s: int) -> list[list[str]]:
        lines = []
        for r, row in enumerate(self.layout.sections[s].rows):
            figures = [
                f"{row.published[key]:.1f}" if key in row.published else "–"
                for key in self.layout.columns
            ]
            ours = [self._words(s, r, m) for m in range(len(self.models))]
            lines.append(
                [row.label, *figures, *ours, row.ours.note if row.ours else row.unmeasured]
            )
        return lines

    def _words(self, s: int, r: int, m: int) -> str:
        row = self.layout.sections[s].rows[r]
        if (s, r, m) in self.cells:
            interval, n = self.cells[s, r, m]
            return f"{spanned(interval)}, n = {n}"
        return "not measured" if row.ours or row.unmeasured else "–"

    def _data(self, s: int, r: int, m: int) -> dict[str, float] | None:
        if (s, r, m) not in self.cells:
            return None
        interval, n = self.cells[s, r, m]
        return {
            "estimate": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "n": n,
        }


def layout(name: str) -> Layout:
    """A paper's layout.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PAPERS:
        raise InputError(f"no table {name!r}. Tables: {', '.join(PAPERS)}.")
    file = files("ringfence.reports") / "papers" / f"{name}.yaml"
    return parsed(Layout, file.read_text("utf-8"), str(file))


def filled(
    layout: Layout, records: Sequence[Record], catalogue: Mapping[str, Suite] | None = None
) -> Filled:
    """A layout with the figures of records."""
    models = list(dict.fromkeys(record.model for record in records))
    seen: dict[tuple[str, str], dict[str, list[Observation]]] = {}
    suites: dict[str, Suite] = {}
    wanted = {row.ours.suite for one in layout.sections for row in one.rows if row.ours}
    for name, members in grouped(records).items():
        if name in wanted:
            every = [record for one in members.values() for record in one]
            suites[name] = suite_of(name, every, catalogue)
            for model, own in members.items():
                seen[name, model] = observations(suites[name], own)
    cells: dict[tuple[int, int, int], tuple[Interval, int]] = {}
    for s, section in enumerate(layout.sections):
        for r, row in enumerate(section.rows):
            for m, model in enumerate(models):
                if row.ours and (row.ours.suite, model) in seen:
                    found = _cell(row.ours, suites[row.ours.suite], seen[row.ours.suite, model])
                    if found is not None:
                        cells[s, r, m] = found
    names = short_names(models)
    return Filled(layout=layout, models=tuple(names[model] for model in models), cells=cells)


def _cell(
    ours: Ours, suite: Suite, seen: Mapping[str, Sequence[Observation]]
) -> tuple[Interval, int] | None:
    metrics = {metric.name: metric for metric in (*suite.metrics, *suite.figures)}
    if ours.metric not in metrics:
        return None
    metric = metrics[ours.metric]
    known = [
        one
        for one in seen[ours.metric]
        if one.value is not None and fnmatchcase(one.item, ours.items)
    ]
    if not known:
        return None
    values = [good(metric, bool(one.value)) for one in known]
    return clustered_rate(values, [one.cluster for one in known]), len(known)
