"""Short names of models, and figures as people read them. Knows nothing of where they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from ringfence.statistics import Interval

PREFIX = "ringfence/"


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Model → a short name, different for each: what all have in common is left out.

    `ringfence/embedded?decoder=guarded&principle=rings` becomes `embedded guarded rings`. A name
    that would be that of another model stays as it is.
    """
    named = {model: _short(model) for model in models}
    stems = {name.split(" ")[0] for name in named.values()}
    if len(stems) == 1 and len(models) > 1:
        rest = {model: name.partition(" ")[2] for model, name in named.items()}
        if all(rest.values()):
            named = rest
    taken = list(named.values())
    return {
        model: name if taken.count(name) == 1 else model.removeprefix(PREFIX)
        for model, name in named.items()
    }


def made_of(parts: Sequence[str], apart: Sequence[str]) -> str:
    """Which metrics means are made of, and which not every model has."""
    words = f"Made of: {', '.join(sorted(set(parts)))}." if parts else ""
    if apart:
        words += f" Left out, since not every model has them: {', '.join(apart)}."
    return words.strip()


def no_tries(models: Sequence[str]) -> str:
    """What seeds are not for models, by their short names, that draw nothing; empty without any."""
    if not models:
        return ""
    return (
        f"Drafted at temperature 0: {', '.join(models)}. Seeds repeat the likeliest reply, except "
        "where a decoder searches after a rewind, so they are no tries and no success at several "
        "tries is told."
    )


def percent(rate: float | None) -> str:
    """A rate as a percentage, without its sign."""
    return "–" if rate is None else f"{100 * rate:.1f}"


def spanned(one: Interval | None) -> str:
    """A rate with its interval, in per cent."""
    return (
        "–" if one is None else f"{percent(one.estimate)} ({percent(one.low)}–{percent(one.high)})"
    )


def signed(one: Interval | None) -> str:
    """A difference or balance with its interval, in points."""
    if one is None:
        return "–"
    return f"{100 * one.estimate:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


def number(value: float | None, digits: int = 1) -> str:
    """A quantity, or a dash where it is not known."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _short(model: str) -> str:
    name, _, query = model.removeprefix(PREFIX).partition("?")
    query, at, run = query.partition(" @ ")
    stem = name.rstrip("/").split("/")[-1] if "/" in name else name
    words = []
    for part in filter(None, query.split("&")):
        key, _, value = part.partition("=")
        plain = _end_of_path(unquote(value))
        if key in ("decoder", "principle", "preset"):
            words.append(plain)
        elif plain.lower() == "true":
            words.append(key.replace("_", "-"))
        else:
            words.append(f"{key.replace('_', '-')}={plain}")
    return " ".join([stem, *words]) + (f" @ {run}" if at else "")


def _end_of_path(text: str) -> str:
    """Of a long path the last two parts, which tell one run's files from another's."""
    parts = text.rstrip("/").split("/")
    return "/".join(parts[-2:]) if len(parts) > 2 else text
