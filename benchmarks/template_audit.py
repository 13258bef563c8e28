"""Audits every chat template that a TRL wheel carries, and compares masks with its markers.

    pip download trl==1.16 --no-deps -d DIR && unzip DIR/trl-*.whl -d DIR
    python benchmarks/template_audit.py DIR/trl/chat_templates

Writes docs/measurements/template_audit.json and docs/template_audit.md. The comparison of masks
needs transformers, whose own tracking of `{% generation %}` is the other side.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ringfence.audit import Audit, audit
from ringfence.engine import EngineCard
from ringfence.errors import RenderingError
from ringfence.rendering import render
from ringfence.rendering.marks import control_pattern
from ringfence.rendering.prices import Allowance
from ringfence.rendering.traits import Program, traits
from ringfence.rings import Conversation
from ringfence.vocabulary import Vocabulary

BOS, EOS = "<s>", "</s>"
# Only where the first control token after a reply does not end the turn.
ENDS = {"<|END_OF_TURN_TOKEN|>"}
BY_HAND = {
    "leading developer": 13,
    "developer after system": 14,
    "system mid-conversation": 4,
    "tool result": 3,
    "invented role": 19,
}
TALKS = (
    [("user", "One?"), ("assistant", "1")],
    [
        ("system", "Be kind."),
        ("user", "One?"),
        ("assistant", "1"),
        ("user", "Two?"),
        ("assistant", "2"),
    ],
    [("user", "One?"), ("assistant", "A longer\n\nreply."), ("user", "Two?"), ("assistant", "2")],
)
# Special texts look like this; a tokenizer would know them all.
SPECIAL = re.compile(r"<[|｜/]?[A-Za-z_▁0-9]+[|｜]?>|<\|\|?[^<>\s]+?>|\[/?INST\]|\[gMASK\]")


def audits(folder: Path) -> list[Audit]:
    """Every template that is not one of TRL's training versions."""
    files = sorted(file for file in folder.glob("*.jinja") if not file.stem.endswith("_training"))
    return [
        audit(file.stem, Program(source=file.read_text("utf-8"), bos=BOS, eos=EOS))
        for file in files
    ]


def dropped(reports: list[Audit], probe: str) -> list[str]:
    """Names of templates that drop the watched message."""
    return [
        report.name
        for report in reports
        for finding in report.findings
        if finding.probe == probe and finding.fate == "dropped"
    ]


def as_text(folder: Path) -> dict[str, list[str]]:
    """The same count with content as text everywhere, and the invented role first only."""
    names: dict[str, list[str]] = {}
    for file in sorted(folder.glob("*.jinja")):
        if file.stem.endswith("_training"):
            continue
        program = Program(source=file.read_text("utf-8"), bos=BOS, eos=EOS)
        report = audit(file.stem, program, parts=False) if _runs(program) else None
        for finding in report.findings if report else ():
            if finding.fate == "dropped":
                names.setdefault(finding.probe, []).append(file.stem)
        messages = [{"role": "qzrole", "content": "qztwo"}, {"role": "user", "content": "one"}]
        if "qztwo" in (program.tried(messages, Allowance()) or ""):
            names.setdefault("invented role", []).append(file.stem)
    return names


def _runs(program: Program) -> bool:
    return program.tried([{"role": "user", "content": "x"}], Allowance()) is not None


def compared(folder: Path) -> dict[str, Any]:
    """Our masks beside what TRL's markers say, on its training templates."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered: Any = render_jinja_template

    kinds: Counter[str] = Counter()
    others = []
    for file in sorted(folder.glob("*.jinja")):
        source = file.read_text("utf-8")
        if "endgeneration" not in source:
            continue
        special = sorted(set(SPECIAL.findall(source)) | {BOS, EOS})
        vocabulary = Vocabulary.characters(special)
        card = EngineCard(
            name=file.stem,
            tokenizer=vocabulary,
            template=source,
            ends=frozenset(vocabulary.control[text] for text in special if text in ENDS),
            context=100_000,
            slots=1,
            bos=BOS,
            eos=EOS,
        )
        known = traits(Program(source=source, bos=BOS, eos=EOS), control_pattern(special))
        for talk in TALKS:
            messages: list[dict[str, Any]] = [{"role": r, "content": c} for r, c in talk]
            try:
                rendering = render(Conversation.of(messages), card, generate=False)
            except RenderingError as error:
                kinds["not rendered"] += 1
                others.append(f"{file.stem}: {error}")
                continue
            if known.parts:
                for message in messages:
                    message["content"] = [{"type": "text", "text": message["content"]}]
            try:
                texts, places = rendered(
                    [messages],
                    chat_template=source,
                    return_assistant_tokens_mask=True,
                    bos_token=BOS,
                    eos_token=EOS,
                )
            except Exception as error:  # a template may raise anything
                kinds["TRL's side refuses"] += 1
                others.append(f"{file.stem}: {error}")
                continue
            ours = [
                vocabulary.decode(rendering.tokens[r.start : r.stop]) for r in rendering.replies
            ]
            theirs = [texts[0][start:stop] for start, stop in _together(places[0])]
            kind = _kind(ours, theirs, known.header)
            kinds[kind] += 1
            if kind == "other":
                others.append(f"{file.stem}: ours {ours!r}, TRL {theirs!r}")
    return {"conversations": dict(kinds), "others": others}


def _together(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, stop in places:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def _kind(ours: list[str], theirs: list[str], header: str) -> str:
    """How TRL's marked texts differ from ours."""
    if ours == theirs:
        return "equal"
    if len(ours) != len(theirs):
        return "other"
    if ours == [text.rstrip("\n") for text in theirs]:
        return "TRL adds the line break after the turn"
    for mine, text in zip(ours, theirs, strict=True):
        at = text.find(mine)
        if at < 0 or text[at + len(mine) :].strip("\n"):
            return "other"
        if text[:at].strip() and not header.endswith(text[:at]) and text[:at] not in header:
            return "other"
    return "TRL adds part of the header"


def table(reports: list[Audit]) -> str:
    """One line a template."""
    probes = [finding.probe for finding in reports[0].findings]
    lines = [
        f"| template | {' | '.join(probes)} | invented role | empty system | same text |",
        f"|---|{'---|' * (len(probes) + 3)}",
    ]
    for report in reports:
        cells = [
            f"**{f.fate}**"
            if f.lost
            else f.fate + (f" ({f.detail})" if f.fate == "kept" and f.detail else "")
            for f in report.findings
        ]
        alike = "; ".join(f"{a.first} = {a.second} {a.where}" for a in report.alike)
        accepted = "accepted" if report.invented else "no"
        cells = [report.name, *cells, accepted, report.empty_system, alike]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    reports = audits(options.folder)
    counts: dict[str, dict[str, Any]] = {}
    text_only = as_text(options.folder)
    for probe, by_hand in BY_HAND.items():
        if probe == "invented role":
            names = [report.name for report in reports if report.invented]
        else:
            names = dropped(reports, probe)
        counts[probe] = {
            "count": len(names),
            "names": names,
            "by_hand": by_hand,
            "with_content_as_text": text_only.get(probe, []),
        }
    try:
        masks = compared(options.folder)
    except ImportError:
        masks = {"conversations": {}, "others": ["transformers is not installed"]}
    record = {
        "templates": len(reports),
        "counts": counts,
        "masks": masks,
        "audits": [asdict(report) | {"lost": report.lost} for report in reports],
    }
    target = options.out / "measurements" / "template_audit.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", "utf-8")
    (options.out / "template_audit.md").write_text(page(reports, counts, masks), "utf-8")
    for probe, count in counts.items():
        print(f"{probe:26} {count['count']:3} (by hand {count['by_hand']})")
    print(masks["conversations"])


def page(reports: list[Audit], counts: dict[str, Any], masks: dict[str, Any]) -> str:
    """docs/template_audit.md."""
    lost = sum(report.lost for report in reports)
    refused = Counter(f.probe for r in reports for f in r.findings if f.fate == "refused")
    rows = "\n".join(
        f"| {probe} | {count['by_hand']} | {count['count']} | {refused.get(probe, 0)} | "
        f"{', '.join(count['names'])} |"
        for probe, count in counts.items()
    )
    text = ", ".join(str(len(count["with_content_as_text"])) for count in counts.values())
    kinds = "\n".join(f"| {kind} | {n} |" for kind, n in masks["conversations"].items())
    return PAGE.format(
        templates=len(reports), lost=lost, rows=rows, text=text, kinds=kinds, table=table(reports)
    )


PAGE = """# What the chat templates of TRL 1.16 do to rings

`ringfence audit`, run over the {templates} chat templates that TRL 1.16 carries (its training
versions left out). Made by `benchmarks/template_audit.py`; the figures are in
[measurements/template_audit.json](measurements/template_audit.json).

**{lost} of {templates} templates lose a ring**: a message is dropped without a word, merged into
another one, or two roles of different rings make the same text.

| dropped without a word (last line: accepted) | by hand | audit | refused aloud | templates |
|---|---|---|---|---|
{rows}

The audit gives every template the form of content that it takes. Given content as text throughout,
and the invented role in the first message only, it comes to the counts by hand exactly: {text}.
idefics3 and smolvlm take content as a list of parts only, and show no message of any role
otherwise; given parts, they drop neither developer nor system messages and write out invented
roles. gemma and gemma3 refuse an invented role at the beginning and after a reply, since turns must
alternate, but write it out after a question.

Every one of these templates writes control tokens that stand in a user's text letter by letter, so
a tokenizer that parses the whole text takes them for control tokens.

## One by one

`kept (inside a user turn)` means that a tool's result stands in what the template writes around a
user's message. `kept (as any invented role is)` means that the template writes the role's name
into its header without knowing it.

{table}

## Masks

`assistant_mask` against the `{{% generation %}}` markers of TRL's training templates, by
conversation.

| | conversations |
|---|---|
{kinds}

TRL's markers often take in the line break after the token that ends a turn, which a model never
writes, since decoding stops before; and in some templates part of the header, which the template
writes for the model. The others are phi3 and phi3_5, where they take in a second token after the
last turn.
"""


if __name__ == "__main__":
    main()
