"""Figures of a report, drawn with matplotlib. Knows nothing of pages.

Colours are Okabe and Ito's, which colour-blind people tell apart; each model has its own marker as
well. Text and lines are drawn in one ink that pages replace by theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.reports.contents import Report
from ringfence.reports.labels import short_names
from ringfence.reports.rates import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222021"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#7F7F7F")
MARKERS = "osD^vPX*"
MOST_MODELS = 16
_LONGEST = 34
_WORDS = {
    "robustness": "robustness",
    "over-refusal": "serves the\nharmless",
    "fidelity": "fidelity",
    "capability": "capability",
    "utility": "utility",
}
_STYLE: Any = {
    # Names of models are not formulas.
    "text.parse_math": False,
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A figure as SVG for a page and as PNG for a document.

    Attributes:
        name: of its files, without ending.
        title, words: what it shows, for those who do not see it as well.
        svg: one element, with `currentColor` for ink and ids of its own.
    """

    name: str
    title: str
    words: str
    svg: str
    png: bytes


def figures_of(report: Report) -> tuple[Drawn, ...]:
    """The figures that the report has numbers for."""
    import matplotlib

    drawers: list[tuple[str, str, str, Callable[[Report], Figure | None]]] = [
        (
            "together",
            "Numbers to be read together",
            "Bars: robustness, harmless requests served, fidelity, capability and utility of every "
            "model, high is good, with 95 % intervals.",
            _together,
        ),
        (
            "front",
            "Security against utility",
            "Points: share of attacks resisted against share of benign twins served, with 95 % "
            "intervals. The upper right corner is best; on the dotted line J = 0.",
            _front,
        ),
        (
            "cost",
            "Cost against quality",
            "Points: mean of the numbers above against tokens processed per committed token "
            "(or seconds per reply).",
            _cost,
        ),
    ]
    found = []
    with matplotlib.rc_context(_STYLE):
        for name, title, words, draw in drawers:
            figure = draw(report)
            if figure is not None:
                found.append(_drawn(figure, name, title, words))
    return tuple(found)


def write(figures: Iterable[Drawn], folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG; returns the files."""
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        svg = figure.svg.replace("currentColor", INK)
        for ending, data in (("svg", svg.encode()), ("png", figure.png)):
            file = folder / f"{figure.name}.{ending}"
            partial = file.with_name(f"{file.name}.tmp")
            partial.write_bytes(data)
            partial.replace(file)
            files.append(file)
    return files


def _together(report: Report) -> Figure | None:
    models = [m for m in report.models if any(one.model == m for one in report.overview)]
    kinds = [kind for kind in KINDS if any(one.kind == kind for one in report.overview)]
    models = models[:MOST_MODELS]
    if not models or not kinds:
        return None
    names = _names(report)
    values = {(one.model, one.kind): one.interval for one in report.overview}
    figure, axes = _canvas(7.6, 3.4, models)
    width = 0.8 / len(models)
    for index, model in enumerate(models):
        at = [
            (place, values[model, kind])
            for place, kind in enumerate(kinds)
            if (model, kind) in values
        ]
        if not at:
            continue
        x = [place - 0.4 + (index + 0.5) * width for place, _ in at]
        y = [100 * one.estimate for _, one in at]
        below = [100 * max(0.0, one.estimate - one.low) for _, one in at]
        above = [100 * max(0.0, one.high - one.estimate) for _, one in at]
        axes.bar(
            x,
            y,
            width * 0.9,
            color=_colour(index),
            label=names[model],
            hatch="//" if index >= len(COLOURS) else None,
            yerr=[below, above],
            error_kw={"ecolor": INK, "elinewidth": 1, "capsize": min(3.0, 14 * width)},
        )
    axes.set_xticks(range(len(kinds)), [_WORDS[kind] for kind in kinds])
    axes.set_ylim(0, 104)
    axes.set_ylabel("%, high is good")
    axes.yaxis.grid(True, alpha=0.25)
    axes.set_axisbelow(True)
    _legend(figure, axes, len(models))
    return figure


def _front(report: Report) -> Figure | None:
    suites = [suite for suite in report.suites if suite.balances]
    if not suites:
        return None
    pairs = [
        (suite.suite.name, twin.name)
        for suite in suites
        for twin in suite.suite.twins
        if any(one.twin.name == twin.name for one in suite.balances)
    ]
    names = _names(report)
    models = [
        model
        for model in report.models
        if any(one.model == model for suite in suites for one in suite.balances)
    ][:MOST_MODELS]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, grid = _canvases(rows, columns, 3.1, 3.0, models)
    for panel, (suite_name, twin_name) in zip(grid, pairs, strict=False):
        for index, model in enumerate(models):
            for suite in suites:
                for one in suite.balances:
                    if (one.suite, one.twin.name, one.model) == (suite_name, twin_name, model):
                        _point(panel, one.benign, one.security, index, names[model])
        panel.plot([0, 100], [100, 0], ls=":", color=INK, lw=0.8, alpha=0.6)
        panel.set_xlim(-4, 104)
        panel.set_ylim(-4, 104)
        panel.set_aspect("equal")
        panel.set_title(_cut(f"{suite_name}: {twin_name}"), fontsize=10)
        panel.set_xlabel("benign twins served, %")
        panel.grid(True, alpha=0.2)
    for index, panel in enumerate(grid):
        if index % columns == 0:
            panel.set_ylabel("attacks resisted, %")
        panel.set_visible(index < len(pairs))
    _legend(figure, _fullest(grid[: len(pairs)]), len(models))
    return figure


def _cost(report: Report) -> Figure | None:
    quality: dict[str, list[float]] = {}
    for one in report.overview:
        quality.setdefault(one.model, []).append(one.interval.estimate)
    tokens = all(row.processed is not None for row in report.costs)
    costs = {
        row.model: row.processed if tokens else row.median
        for row in report.costs
        if (row.processed if tokens else row.median) is not None
    }
    models = [model for model in report.models if model in quality and model in costs]
    models = models[:MOST_MODELS]
    if not models:
        return None
    names = _names(report)
    figure, axes = _canvas(6.4, 3.2, models)
    for index, model in enumerate(models):
        cost = costs[model]
        assert cost is not None
        axes.plot(
            [max(cost, 1e-3)],
            [100 * sum(quality[model]) / len(quality[model])],
            MARKERS[index % len(MARKERS)],
            color=_colour(index),
            label=names[model],
            markersize=9,
            markeredgecolor=INK,
            markeredgewidth=0.6,
        )
    axes.set_xscale("log")
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = (f(max(c or 0, 1e-3) for c in (costs[m] for m in models)) for f in (min, max))
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 104)
    axes.set_xlabel(
        "tokens processed per committed token (log scale)"
        if tokens
        else "median seconds per reply (log scale)"
    )
    axes.set_ylabel("mean of the numbers\nread together, %")
    axes.grid(True, alpha=0.25)
    _legend(figure, axes, len(models))
    return figure


def _point(axes: Axes, x: Any, y: Any, index: int, name: str) -> None:
    axes.errorbar(
        [100 * x.estimate],
        [100 * y.estimate],
        xerr=[[100 * max(0.0, x.estimate - x.low)], [100 * max(0.0, x.high - x.estimate)]],
        yerr=[[100 * max(0.0, y.estimate - y.low)], [100 * max(0.0, y.high - y.estimate)]],
        fmt=MARKERS[index % len(MARKERS)],
        color=_colour(index),
        label=name,
        markersize=7,
        markeredgecolor=INK,
        markeredgewidth=0.5,
        elinewidth=1.2,
        capsize=2,
    )


def _canvas(width: float, height: float, models: Sequence[str]) -> tuple[Figure, Axes]:
    figure, grid = _canvases(1, 1, width, height, models)
    return figure, grid[0]


def _canvases(
    rows: int, columns: int, width: float, height: float, models: Sequence[str]
) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    # The legend stands below, two names a line.
    legend = 0.26 * -(-len(models) // 2) + 0.1
    size = (max(4.6, width * columns), height * rows + legend)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.ravel())


def _legend(figure: Figure, axes: Axes, models: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    figure.legend(
        unique.values(),
        unique.keys(),
        loc="outside lower center",
        ncols=min(2, models),
        frameon=False,
        fontsize=9,
    )


def _fullest(panels: Sequence[Axes]) -> Axes:
    return max(panels, key=lambda panel: len(panel.get_legend_handles_labels()[1]))


def _names(report: Report) -> dict[str, str]:
    names = {model: _cut(name) for model, name in short_names(report.models).items()}
    alike = list(names.values())
    return {
        model: name if alike.count(name) == 1 else f"{name} #{number}"
        for number, (model, name) in enumerate(names.items(), 1)
    }


def _cut(text: str) -> str:
    # A leading underscore would hide a name from the legend.
    plain = "".join(sign if sign.isprintable() else "\ufffd" for sign in text).lstrip("_") or "?"
    return plain if len(plain) <= _LONGEST else f"{plain[:20]}…{plain[20 - _LONGEST + 1 :]}"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _drawn(figure: Figure, name: str, title: str, words: str) -> Drawn:
    import warnings

    svg, png = BytesIO(), BytesIO()
    with warnings.catch_warnings():
        # Signs that the font lacks are drawn as boxes; the tables have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        figure.savefig(png, format="png", dpi=150, facecolor="white")
    return Drawn(
        name=name,
        title=title,
        words=words,
        svg=_inline(svg.getvalue().decode(), name),
        png=png.getvalue(),
    )


def _inline(svg: str, name: str) -> str:
    """The element alone, in the ink of its page, with ids that no other figure has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor").strip()
