"""Rings of privilege and who sits in which. Knows nothing of tokens, templates or models.

A ring is the privilege of whoever wrote a message, as in the protection rings of an operating
system: a smaller number overrules a larger one. The order is that of *The Instruction Hierarchy*
(arXiv 2404.13208, section 3.1) unless a policy says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ringfence.errors import InputError


@dataclass(frozen=True, slots=True, order=True)
class Ring:
    """A privilege. `level` 0 is the highest; rings are ordered by it."""

    level: int
    name: str

    def overrules(self, other: Ring) -> bool:
        """Whether an instruction of this ring wins against a conflicting one of `other`."""
        return self.level < other.level


@dataclass(frozen=True, slots=True)
class Policy:
    """The order of rings and which role sits in which ring.

    Attributes:
        name: what people call the policy.
        rings: highest privilege first; levels are their positions.
        roles: role → name of its ring.

    Raises:
        InputError: fewer than two rings, a ring named twice, or a role in an unknown ring.
    """

    name: str
    rings: tuple[Ring, ...]
    roles: Mapping[str, str]

    def __post_init__(self) -> None:
        """Check that every role has a ring and levels are positions."""
        names = [ring.name for ring in self.rings]
        if len(names) < 2 or len(set(names)) != len(names):
            raise InputError(f"policy {self.name}: needs two or more rings of different names")
        if [ring.level for ring in self.rings] != list(range(len(names))):
            raise InputError(f"policy {self.name}: ring levels must count up from 0")
        for role, ring in self.roles.items():
            if ring not in names:
                raise InputError(
                    f"policy {self.name}: role {role!r} sits in ring {ring!r}, which does not "
                    f"exist. Rings: {', '.join(names)}."
                )
        object.__setattr__(self, "roles", MappingProxyType(dict(self.roles)))

    @classmethod
    def of(cls, name: str, rings: Sequence[str], roles: Mapping[str, str]) -> Policy:
        """A policy from ring names, highest privilege first."""
        return cls(name, tuple(Ring(level, ring) for level, ring in enumerate(rings)), roles)

    @classmethod
    def preset(cls, name: str) -> Policy:
        """One of the policies that ship.

        Raises:
            InputError: there is no preset of that name.
        """
        if name not in PRESETS:
            raise InputError(f"unknown policy {name!r}. Presets: {', '.join(sorted(PRESETS))}.")
        return PRESETS[name]

    def ring_of(self, role: str) -> Ring:
        """The ring a role sits in.

        Raises:
            InputError: the policy does not know the role.
        """
        if role not in self.roles:
            raise InputError(
                f"unknown role {role!r} under policy {self.name!r}. "
                f"Roles: {', '.join(sorted(self.roles))}."
            )
        wanted = self.roles[role]
        return next(ring for ring in self.rings if ring.name == wanted)


PRESETS: Mapping[str, Policy] = MappingProxyType(
    {
        # Section 3.1: the application developer writes the system message.
        "paper": Policy.of(
            "paper",
            ("system", "user", "assistant", "tool"),
            {
                "system": "system",
                "developer": "system",
                "user": "user",
                "assistant": "assistant",
                "tool": "tool",
            },
        ),
        "harmony": Policy.of(
            "harmony",
            ("system", "developer", "user", "assistant", "tool"),
            {role: role for role in ("system", "developer", "user", "assistant", "tool")},
        ),
        # Root is the model maker's own; no message of a conversation speaks for it. What the
        # assistant said and what tools return have no authority of their own.
        "model-spec": Policy.of(
            "model-spec",
            ("root", "system", "developer", "user", "guideline", "no authority"),
            {
                "system": "system",
                "developer": "developer",
                "user": "user",
                "assistant": "no authority",
                "tool": "no authority",
            },
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message with the ring of whoever wrote it.

    Attributes:
        role: as in chat APIs.
        ring: the privilege of the writer.
        content: text; hostile unless you wrote it.
        source: where it comes from (a tool's name, a URL, …), for people.
    """

    role: str
    ring: Ring
    content: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages under a policy, oldest first; never empty.

    Raises:
        InputError: there is no message.
    """

    messages: tuple[Message, ...]
    policy: Policy

    def __post_init__(self) -> None:
        """An empty conversation asks for nothing."""
        if not self.messages:
            raise InputError("messages: the conversation is empty; it needs at least one message")

    @classmethod
    def of(
        cls, messages: Iterable[Mapping[str, Any]], policy: Policy | str = "harmony"
    ) -> Conversation:
        """From chat API messages: `role`, `content`, and optionally `name` or `source`.

        Content may be a string or a list of `{"type": "text", "text": …}` parts, as in the OpenAI
        API.

        Raises:
            InputError: a role the policy does not know, or content that is not text; the message
                names the position.
        """
        if isinstance(policy, str):
            policy = Policy.preset(policy)
        return cls(
            tuple(_message(index, item, policy) for index, item in enumerate(messages)), policy
        )


def _message(index: int, item: Mapping[str, Any], policy: Policy) -> Message:
    where = f"messages[{index}]"
    if not isinstance(item, Mapping):
        raise InputError(f"{where}: must be an object with role and content")
    role = item.get("role")
    if not isinstance(role, str):
        raise InputError(f"{where}.role: must be a string, not {type(role).__name__}")
    try:
        ring = policy.ring_of(role)
    except InputError as error:
        raise InputError(f"{where}.role: {error}") from None
    source = item.get("source") or item.get("name") or ""
    if not isinstance(source, str):
        raise InputError(f"{where}.source: must be a string, not {type(source).__name__}")
    return Message(role=role, ring=ring, content=_text(where, item.get("content")), source=source)


def _text(where: str, content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
            for part in content
        ]
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if isinstance(part, str))
    raise InputError(f"{where}.content: must be text, or a list of parts of type 'text'")
