"""The page docs/suites.md, from the suites' own fields: `python -m ringfence.suites.page`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ringfence.suites import SUITES
from ringfence.suites.files import ORIGINS
from ringfence.suites.suite import Suite

_HEAD = """\
# Suites

<!-- Made by `python -m ringfence.suites.page > docs/suites.md`; change the suites, not this. -->

A suite is a set of samples with graders, and what its figures mean. Graders are code
([graders.md](graders.md)); no model is asked. Every security figure has its benign twin in the same
suite: what a system that refuses everything fails. All attacks here are static: they do not adapt
to the defence, so a good figure means "not broken by these", no more.

```python
from pathlib import Path
from ringfence.suites import suite

one = suite("extraction")
items = one.items(data=None, limit=50, seed=0)  # or data=Path("DIR") for all of it
one.grade(items[0].grading, "I will not say that.")  # {"kept": True, …, "served": None}
```

`None` is an outcome that does not apply to the item, or cannot be decided. A limit draws kinds in
turn and then clusters in turn, by the seed, of every kind the same clusters: attacks come with the
twins of the same message or frame. Ids stay the same. `DIR` has one sub-folder a data set
([below](#data-folders)). What is packaged is named in
[NOTICE](../NOTICE), and made by `packaging/suites.py`.

Tools: a reply is one text. Calls that come apart from the text are put into it by
`ringfence.suites.written`; calls that models write themselves are read in the usual forms:
`<tool_call>…`, `[TOOL_CALLS]…`, `<|python_tag|>…`, `<function=NAME>…`, JSON that begins a line or
stands in a code fence, `Action:` with `Action Input:`, and, of tools that were offered,
`NAME(key="value")` or a list of such on lines of their own.

Refusals: a reply that the decoder or a provider's filter refused, whose text may be empty, is
graded as what it had said before and a refusal (`grade(…, reason="refused")`). In `rules`,
`capability` and `sentiment`, where a short refusal may have the right form by chance, it is graded
as what it had said before. A model's own silence is no refusal.

Multiple choice: the "reply" is a JSON list, for each of `choices` its summed log-probability, or
that and its number of tokens.
"""

_DATA = """\
## Data folders

`--data DIR` takes whole data sets in place of what is packaged of them: a suite then wants all its
files there, and says at once which are missing. The columns and fields that a file must have are
checked and named, row by row.
"""
_SHOWN = 6

_REFUSALS = """\
## Refusals

`refused` looks for phrases of refusal in the first 400 characters of a reply, in English. It is a
diagnostic, not a grade. On the 1,854 replies of CoCoNot's preference file (GPT-4 and others, to
requests that should be answered) it fires on 84. Labelled by reading the beginnings of samples
drawn at random: of 50 of these, 44 decline the request and 6 do not (they answer after a caveat);
of 50 of the others, 2 decline. The rules were changed after a look at other replies of the same
file, so elsewhere the error may be larger. To replies that are fluent nonsense, deflect, or refuse
in other words it is blind. `sentiment` has a narrower rule, because a review may say what its
author cannot recommend.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _overview(), _DATA, _data(), *map(_section, SUITES.values()), _REFUSALS]
    return "\n".join(parts)


def _overview() -> str:
    lines = ["| suite | what | without `--data` | primary figures |", "|---|---|---|---|"]
    for one in SUITES.values():
        packaged = "yes" if one.packaged else "no"
        primary = ", ".join(f"`{name}`" for name in one.primary)
        lines.append(f"| [{one.name}](#{one.name}) | {one.title} | {packaged} | {primary} |")
    return "\n".join(lines) + "\n"


def _data() -> str:
    """What a folder for `--data` holds."""
    used: dict[str, list[str]] = {}
    files: dict[str, dict[str, None]] = {}
    for one in SUITES.values():
        for file in one.files:
            dataset, _, name = file.partition("/")
            files.setdefault(dataset, {})[name] = None
            if one.name not in used.setdefault(dataset, []):
                used[dataset].append(one.name)
    lines = ["| DIR/… | files | of suites | published at |", "|---|---|---|---|"]
    for dataset, names in sorted(files.items()):
        told = [f"`{name}`" for name in list(names)[:_SHOWN]]
        more = [f"and {len(names) - _SHOWN} more below the same folders"] * (len(names) > _SHOWN)
        columns = (f"`{dataset}`", ", ".join([*told, *more]), ", ".join(used[dataset]))
        lines.append(f"| {' | '.join(columns)} | {ORIGINS[dataset]} |")
    return "\n".join(lines) + "\n"


def _section(one: Suite) -> str:
    return "\n".join(_lines(one)) + "\n"


def _lines(one: Suite) -> Iterator[str]:
    yield from (f"## {one.name}", "", f"{one.title}. {one.measures}", "")
    attacks = "static" if one.static else "adaptive"
    yield f"* **Threat model** ({attacks}). {one.threat_model}"
    yield f"* **Source.** {one.source.rstrip('.')}."
    yield f"* **Licence.** {one.licence}."
    yield f"* **Size.** {one.size}. Replies of up to {one.max_tokens} tokens."
    yield f"* **What it does not mean.** {one.not_meaning}"
    for twin in one.twins:
        yield f"* **Twins.** `{twin.security}` and `{twin.benign}` ({twin.name})."
    yield from ("", "| figure | kind | better | counts |", "|---|---|---|---|")
    for metric in (*one.metrics, *one.figures):
        if not _numbered(metric.name):
            yield f"| `{metric.name}` | {metric.kind} | {metric.better} | {metric.words} |"
    if any(_numbered(metric.name) for metric in one.metrics):
        yield ""
        yield "`strict-1` … and `loose-1` … are the single instructions of a prompt, in its order."


def _numbered(name: str) -> bool:
    return name.startswith(("strict-", "loose-"))


if __name__ == "__main__":
    sys.stdout.write(page())
