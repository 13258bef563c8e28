"""The wording of a conversation: who says what where, the same in all siblings of a case.

Knows nothing of which instruction holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ringfence.errors import InputError
from ringfence.rings import Policy
from ringfence.synthesis.case import Split, Turn
from ringfence.synthesis.constraints import Constraint
from ringfence.synthesis.draw import Draw

SPEAKERS = ("system", "developer", "user", "tool")
# A tool that only reads, one a split.
READERS: Mapping[Split, Mapping[str, object]] = {
    "train": {
        "name": "open_page",
        "description": "Read a page of the house's collection.",
        "parameters": {
            "type": "object",
            "properties": {"page": {"type": "string"}},
            "required": ["page"],
        },
    },
    "eval": {
        "name": "fetch_document",
        "description": "Fetch a document by its title.",
        "parameters": {
            "type": "object",
            "properties": {"title": {"type": "string"}},
            "required": ["title"],
        },
    },
}


class Scene:
    """Everything in a conversation but the rules. Drawn once a case.

    Attributes:
        seed: of the wording of rules.
        persona: how the system message begins.
        known: statements of the system message.
    """

    def __init__(self, draw: Draw, context: str = "") -> None:
        """Draw persona, passages and manners.

        Args:
            draw: of the case.
            context: of its task: stands in the system message, or before a request without one.
        """
        self.draw = draw
        self._context = context
        self.seed = draw.rng.getrandbits(32)
        self.persona = draw.opening("persona")
        self.known = draw.known(draw.length())
        self._about = [known.text for known in self.known]
        self._place = draw.number(0, len(self._about))
        self._developer = draw.opening("developer")
        self._page = draw.statements(draw.number(2, 4) + draw.length() // 2)
        self._page_place = draw.number(0, len(self._page))
        self._noun = draw.words["noun"] = draw.opening("noun")
        self._rule_first = draw.chance(0.3)
        self._said: dict[tuple[str, str, int], str] = {}

    def say(self, constraint: Constraint, speaker: str, time: int = 0) -> str:
        """A constraint as a speaker puts it; another `time` is put in other words."""
        key = (constraint.about + constraint.wants, speaker, time)
        if key not in self._said:
            texts = list(constraint.texts)
            start = self.seed % len(texts)
            text = texts[(start + time + SPEAKERS.index(speaker)) % len(texts)]
            self._said[key] = self.draw.opening("rule", rule=text)
        return self._said[key]

    def turns(
        self,
        ask: str,
        rules: Mapping[str, Sequence[str]],
        *,
        persona: bool = True,
        history: Sequence[Turn] = (),
    ) -> tuple[Turn, ...]:
        """The conversation.

        Args:
            ask: the user's request.
            rules: speaker → what is said by it besides.
            persona: with a system message; without, everything is said by the user.
            history: turns before the request.
        """
        turns = []
        if not persona and self._context:
            ask = f"{self._context}\n{ask}"
        if persona:
            turns.append(self.turn("system", self._system(rules.get("system", ()))))
            if rules.get("developer"):
                text = "\n".join([self._developer, *rules["developer"]])
                turns.append(self.turn("developer", text))
        turns += history
        request = self._asked(ask, rules.get("user", ()))
        if "tool" not in rules:
            return (*turns, self.turn("user", request))
        page = [*self._page[: self._page_place], *rules["tool"], *self._page[self._page_place :]]
        return (*turns, *self.looked_up(request, "\n".join(page)))

    def turn(self, role: str, content: str, **fields: object) -> Turn:
        """One message, in the ring of its role."""
        ring = self.draw.policy.ring_of(role).name
        return Turn.model_validate({"role": role, "content": content, "ring": ring, **fields})

    def tools(self) -> tuple[dict[str, object], ...]:
        """The tool that `turns` uses where a tool speaks."""
        return (dict(READERS[self.draw.split]),)

    def _system(self, rules: Sequence[str]) -> str:
        about = [" ".join(self._about[: self._place]), " ".join(self._about[self._place :])]
        parts = [self.persona, self._context, about[0], *rules, about[1]]
        return "\n".join(part for part in parts if part)

    def _asked(self, ask: str, rules: Sequence[str]) -> str:
        parts = [*rules, ask] if self._rule_first else [ask, *rules]
        text = parts[0]
        for part in parts[1:]:
            # What ends without a full stop may end with the very words that are wanted.
            apart = len(ask) > 200 or text[-1:] not in (".", "!", "?")
            text += ("\n" if apart else " ") + part
        return text

    def looked_up(self, request: str, page: str) -> list[Turn]:
        """A request, the call of a reading tool, and the page that it returns."""
        tool = READERS[self.draw.split]
        parameter = "page" if self.draw.split == "train" else "title"
        call = {"name": tool["name"], "arguments": {parameter: self._noun}}
        return [
            self.turn("user", request),
            self.turn("assistant", "", tool_calls=(call,)),
            self.turn("tool", page, name=tool["name"], source=self._noun),
        ]


def speakers(policy: Policy) -> tuple[str, ...]:
    """Roles of the policy that cases can use, in the order they speak.

    Raises:
        InputError: one that no case can do without is missing.
    """
    for role in ("system", "user", "assistant"):
        if role not in policy.roles:
            raise InputError(
                f"policy {policy.name}: roles: synthesis needs the role {role!r}. "
                f"Roles: {', '.join(sorted(policy.roles))}."
            )
    return tuple(role for role in SPEAKERS if role in policy.roles)


def draw_speakers(draw: Draw, *, tools: bool = True) -> tuple[str, str]:
    """Two of them, the first speaking first; system and user as often as all others."""
    roles = speakers(draw.policy)
    pairs = [
        (one, two)
        for place, one in enumerate(roles)
        for two in roles[place + 1 :]
        if tools or two != "tool"
    ]
    return ("system", "user") if draw.chance(0.5) else draw.choice(pairs)
