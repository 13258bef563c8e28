"""What a chat template does to rings when nobody helps it. Knows nothing of engines and terminals.

A fixed set of conversations goes through the raw template, without the merging and marking of
`rendering`. Every message says a word that occurs nowhere else, and where the word comes out says
what became of the message.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ringfence.rendering.templates import Allowance, TemplateFailed, TemplateRefused, compiled
from ringfence.rendering.traits import INVENTED, Program, traits
from ringfence.rings import Policy

Fate = Literal["kept", "moved", "merged", "dropped", "refused", "failed"]
ROLES = ("system", "developer", "user", "assistant", "tool")
_CALL = "qzcallqz"
_TOOL = "qztoolqz"
# Some templates want the arguments of a call as text, or no content beside it.
_CALLS: tuple[dict[str, Any], ...] = tuple(
    {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {
                "id": "call00001",
                "type": "function",
                "function": {"name": _TOOL, "arguments": arguments},
            }
        ],
    }
    for content, arguments in itertools.product(
        ("", None), ({"city": _CALL}, f'{{"city": "{_CALL}"}}')
    )
)
# Each costs a run of the template.
_MOST_CONTROL = 400
_LOOKS_CONTROL = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A conversation and the message in it that is watched.

    Attributes:
        name: what people call it.
        roles: of the messages; `call` is an assistant's message that calls a tool.
        watched: position of the message, whose ring may be lost.
    """

    name: str
    roles: tuple[str, ...]
    watched: int


PROBES = (
    Probe(name="leading system", roles=("system", "user"), watched=0),
    Probe(name="leading developer", roles=("developer", "user"), watched=0),
    Probe(name="developer after system", roles=("system", "developer", "user"), watched=1),
    Probe(name="system mid-conversation", roles=("user", "assistant", "system", "user"), watched=2),
    Probe(name="tool call", roles=("user", "call", "tool"), watched=1),
    Probe(name="tool result", roles=("user", "call", "tool"), watched=2),
    Probe(name="consecutive users", roles=("user", "user"), watched=1),
)
_INVENTED = (
    Probe(name="invented role", roles=(INVENTED, "user"), watched=0),
    Probe(name="invented role", roles=("user", INVENTED), watched=1),
    Probe(name="invented role", roles=("user", "assistant", INVENTED), watched=2),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one watched message; `lost` where its text or its ring did not survive."""

    probe: str
    fate: Fate
    detail: str
    lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Two roles of different rings for which the template writes the same text."""

    first: str
    second: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found about one template.

    Attributes:
        name: of model or template.
        policy: by which rings were told apart.
        findings: one a probe.
        alike: roles that look the same.
        invented: the template writes out a role that does not exist.
        empty_system: what an empty system message does: `shown` as an empty turn, `ignored`,
            `refused` or `failed`.
        control: control tokens that stand in a user's text and that the ordinary path, tokenising
            the template's text as a whole, takes for control tokens.
        control_tried: how many were tried; 400 at most.
        steered: control tokens in a user's text that make the template refuse or fail.
    """

    name: str
    policy: str
    findings: tuple[Finding, ...]
    alike: tuple[Alike, ...]
    invented: bool
    empty_system: str
    control: tuple[str, ...]
    control_tried: int
    steered: tuple[str, ...]

    @property
    def lost(self) -> bool:
        """Whether any ring is lost: dropped, merged, or not to be told from another."""
        return any(finding.lost for finding in self.findings) or bool(self.alike)


def audit(
    name: str,
    program: Program,
    control: Sequence[str] = (),
    policy: Policy | None = None,
    parse: Callable[[str], Sequence[str]] | None = None,
    parts: bool | None = None,
) -> Audit:
    """Audit a template.

    Args:
        name: what people call it.
        program: the template.
        control: the tokenizer's control tokens; without, whatever looks like one in the template's
            own text.
        policy: which roles are of different rings.
        parse: the control tokens that the model's own tokenizer finds in a text; without, every
            control token that comes out letter by letter counts as found.
        parts: give content as a list of parts, or as text; found out by trying if None.

    Raises:
        TemplateFailed: it is no template, cannot even render one user's message, or takes more
            than 10 seconds of processor time for everything.
    """
    compiled(program.source)
    policy = policy or Policy.preset("harmony")
    bench = _Bench(program, parts)
    bench.made(("user",))
    tokens = (tuple(control) or bench.looks_control())[:_MOST_CONTROL]
    found, steered = bench.parsed(tokens, parse)
    report = Audit(
        name=name,
        policy=policy.name,
        findings=tuple(bench.finding(probe) for probe in PROBES),
        alike=tuple(bench.alike(policy)),
        invented=any(bench.finding(probe).fate in ("kept", "moved") for probe in _INVENTED),
        empty_system=bench.empty_system(),
        control=found,
        control_tried=len(tokens),
        steered=steered,
    )
    bench.allowance.tick()  # without time a template fails at anything, which says nothing of it
    return report


class _Bench:
    """One template and the conversations that are tried on it."""

    def __init__(self, program: Program, parts: bool | None) -> None:
        self.program = program
        self.allowance = Allowance()
        self.traits = traits(program, re.compile("(?!)"))
        self.parts = self.traits.parts if parts is None else parts

    def made(self, roles: Sequence[str], texts: dict[int, str] | None = None) -> str:
        """The template's text for messages of these roles, each with a word of its own."""
        failure: TemplateFailed | None = None
        made: list[str] = []
        for call in _CALLS if "call" in roles else _CALLS[:1]:
            messages = [
                call if role == "call" else self._message(role, (texts or {}).get(i, _word(i)))
                for i, role in enumerate(roles)
            ]
            try:
                made.append(self.program.text(messages, self.allowance, generate=True))
            except TemplateFailed as error:
                failure = failure or error
                continue
            if _CALL in made[-1]:
                return made[-1]
        if made:
            return made[0]
        assert failure is not None
        raise failure

    def _message(self, role: str, text: str) -> dict[str, Any]:
        content: Any = [{"type": "text", "text": text}] if self.parts else text
        made = {"role": role, "content": content}
        return made | ({"tool_call_id": "call00001", "name": _TOOL} if role == "tool" else {})

    def finding(self, probe: Probe) -> Finding:
        """What became of the watched message."""

        def found(fate: Fate, detail: str = "") -> Finding:
            lost = fate in ("dropped", "merged")
            return Finding(probe=probe.name, fate=fate, detail=detail, lost=lost)

        try:
            text = self.made(probe.roles)
        except TemplateRefused as error:
            return found("refused", str(error))
        except TemplateFailed as error:
            return found("failed", str(error))
        words = [_CALL if role == "call" else _word(i) for i, role in enumerate(probe.roles)]
        places = [text.find(word) for word in words]
        here = places[probe.watched]
        if here < 0:
            return found("dropped")
        known = [place for place in places if place >= 0]
        if known != sorted(known):
            return found("moved", "it stands elsewhere than it was said")
        role = probe.roles[probe.watched]
        for near in (probe.watched - 1, probe.watched + 1):
            if 0 <= near < len(places) and places[near] >= 0:
                first, second = sorted((near, probe.watched))
                between = text[places[first] + len(words[first]) : places[second]]
                if not between.strip() and "call" not in (role, probe.roles[near]):
                    beside = "another" if probe.roles[near] == role else "a"
                    return found("merged", f"into {beside} {probe.roles[near]} message")
        if role not in ("call", "user") and self._inside(probe, text, here):
            return found("kept", "inside a user turn")
        if role == "developer" and not self.traits.developer:
            return found("kept", "as any invented role is")
        return found("kept")

    def _inside(self, probe: Probe, text: str, here: int) -> bool:
        """Whether the message stands in what the template writes around a user's message."""
        roles = list(probe.roles)
        roles[probe.watched] = "user"
        try:
            other = self.made(roles)
        except TemplateFailed:
            return False
        place = other.find(_word(probe.watched))
        if place < 0:
            return False
        start = text.rfind("qz", 0, max(0, here)) + 2 if probe.watched else 0
        before = text[start:here]
        user = other[other.rfind("qz", 0, place) + 2 if probe.watched else 0 : place].strip()
        return bool(user) and user in before

    def alike(self, policy: Policy) -> list[Alike]:
        """Roles of different rings that make the same text, at the beginning or after a reply."""
        found = []
        for where, before, after in (
            ("at the beginning", (), ("user",)),
            ("after a reply", ("user", "assistant"), ()),
        ):
            texts = {}
            for role in ROLES:
                if role not in policy.roles:
                    continue
                try:
                    text = self.made((*before, role, *after))
                except TemplateFailed:
                    continue
                if _word(len(before)) in text:
                    texts[role] = text
            for first, second in itertools.combinations(texts, 2):
                apart = policy.ring_of(first) != policy.ring_of(second)
                if apart and texts[first] == texts[second]:
                    found.append(Alike(first=first, second=second, where=where))
        return found

    def empty_system(self) -> str:
        """What an empty system message does."""
        try:
            empty = self.made(("system", "user"), {0: "", 1: _word(0)})
            without = self.made(("user",))
        except TemplateRefused:
            return "refused"
        except TemplateFailed:
            return "failed"
        return "ignored" if empty == without else "shown"

    def looks_control(self) -> tuple[str, ...]:
        """What looks like a control token in the template's own text."""
        found: dict[str, None] = {}
        for roles in (("user",), *(probe.roles for probe in PROBES)):
            try:
                found |= dict.fromkeys(_LOOKS_CONTROL.findall(self.made(roles)))
            except TemplateFailed:
                continue
        return tuple(found)

    def parsed(
        self, tokens: Sequence[str], parse: Callable[[str], Sequence[str]] | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Control tokens in a user's text that come out as such, and those that steer."""
        found, steered = [], []
        for token in tokens:
            said = f"{_word(0)}{token}{_word(1)}"
            try:
                text = self.made(("user",), {0: said})
            except TemplateFailed:
                steered.append(token)
                continue
            start, stop = text.find(_word(0)), text.rfind(_word(1))
            inner = text[start + len(_word(0)) : stop]
            if start >= 0 and (token in parse(inner) if parse else inner == token):
                found.append(token)
        return tuple(found), tuple(steered)


def _word(index: int) -> str:
    return f"qzword{index}qz"
