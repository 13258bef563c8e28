"""Rings of privilege and who sits in which. Knows nothing of tokens, templates or models.

A ring is the privilege of whoever wrote a message, as in the protection rings of an operating
system: a smaller number overrules a larger one. The order is that of *The Instruction Hierarchy*
(arXiv 2404.13208, section 3.1) unless a policy says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ringfence.errors import InputError
from ringfence.resolution import Instruction as Instruction
from ringfence.resolution import Resolution as Resolution
from ringfence.resolution import Resolver
from ringfence.resolution import Ring as Ring
from ringfence.resolution import Ruling as Ruling
from ringfence.tool_calls import ToolCall as ToolCall
from ringfence.tool_calls import calls_of, name_in, tools_of

_MOST_RINGS = 12


@dataclass(frozen=True, slots=True)
class Policy:
    """The order of rings, which role sits in which, and what else decides between instructions.

    Attributes:
        name: what people call the policy.
        rings: highest privilege first, 2 to 12; levels are their positions.
        roles: role → name of its ring.
        supersession: of two conflicting instructions of one authority the later one holds;
            otherwise the earlier one.
        delegation: an instruction may lend its authority to quoted text or to a lower ring.
        silent: names of rings without authority of their own: what stands there is information,
            unless somebody delegates to it.

    Raises:
        InputError: too few or too many rings, a ring named twice, a role or a silent ring that
            does not exist, or no ring with authority.
    """

    name: str
    rings: tuple[Ring, ...]
    roles: Mapping[str, str]
    supersession: bool = True
    delegation: bool = True
    silent: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check that names match and levels are positions."""
        names = [ring.name for ring in self.rings]
        listed = f"Rings: {', '.join(names)}."
        if not 2 <= len(names) <= _MOST_RINGS or len(set(names)) != len(names):
            raise InputError(
                f"policy {self.name}: rings: needs 2 to {_MOST_RINGS} rings of different names"
            )
        if [ring.level for ring in self.rings] != list(range(len(names))):
            raise InputError(f"policy {self.name}: rings: levels must count up from 0")
        for role, ring in self.roles.items():
            if ring not in names:
                raise InputError(
                    f"policy {self.name}: roles: {role!r} sits in ring {ring!r}, which does not "
                    f"exist. {listed}"
                )
        for ring in sorted(self.silent - set(names)):
            raise InputError(f"policy {self.name}: silent: no ring {ring!r}. {listed}")
        if self.silent == set(names):
            raise InputError(f"policy {self.name}: silent: one ring must have authority")
        object.__setattr__(self, "roles", MappingProxyType(dict(self.roles)))

    @classmethod
    def of(
        cls,
        name: str,
        rings: Sequence[str],
        roles: Mapping[str, str],
        *,
        supersession: bool = True,
        delegation: bool = True,
        silent: Iterable[str] = (),
    ) -> Policy:
        """A policy from ring names, highest privilege first."""
        return cls(
            name,
            tuple(Ring(level, ring) for level, ring in enumerate(rings)),
            roles,
            supersession,
            delegation,
            frozenset(silent),
        )

    @classmethod
    def preset(cls, name: str) -> Policy:
        """One of the policies that ship; `tiers(n)` with a number, such as `tiers(5)`.

        Raises:
            InputError: there is no preset of that name.
        """
        if match := re.fullmatch(r"tiers\(([0-9]{1,3})\)", name):
            return cls.tiers(int(match[1]))
        if name not in PRESETS:
            raise InputError(
                f"unknown policy {name!r}. Presets: {', '.join(sorted(PRESETS))}, tiers(N)."
            )
        return PRESETS[name]

    @classmethod
    def tiers(cls, count: int) -> Policy:
        """`count` nameless rings, for long hierarchies.

        Chat roles do not go so far: the system role sits in tier 0, the user in tier 1, and what
        the assistant and tools say in the last one. Messages of other tiers get their ring by
        `Conversation.of(…, rings=…)`.

        Raises:
            InputError: fewer than 2 or more than 12.
        """
        if not 2 <= count <= _MOST_RINGS:
            raise InputError(f"tiers({count}): a policy has 2 to {_MOST_RINGS} rings")
        last = f"tier {count - 1}"
        roles = {"system": "tier 0", "user": "tier 1", "assistant": last, "tool": last}
        return cls.of(f"tiers({count})", [f"tier {level}" for level in range(count)], roles)

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
        return self.ring(self.roles[role])

    def ring(self, name: str) -> Ring:
        """A ring by its name.

        Raises:
            InputError: the policy has no such ring.
        """
        for ring in self.rings:
            if ring.name == name:
                return ring
        raise InputError(
            f"policy {self.name}: no ring {name!r}. "
            f"Rings: {', '.join(ring.name for ring in self.rings)}."
        )

    def resolve(self, instructions: Sequence[Instruction]) -> Resolution:
        """Which instructions hold, which are void, and why. Oldest first.

        The higher authority holds; between equals supersession decides. An instruction has the
        authority of its ring; in a silent ring or in quoted text it has none. One that is delegated
        to speaks in the ring of whoever delegates, if that one holds, and never against words that
        somebody of that ring wrote.

        Raises:
            InputError: two instructions of one id, a ring of another policy, or a delegation by an
                instruction that is not there.
        """
        return Resolver(self, instructions).resolution()


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
            silent=("tool",),
        ),
        "harmony": Policy.of(
            "harmony",
            ("system", "developer", "user", "assistant", "tool"),
            {role: role for role in ("system", "developer", "user", "assistant", "tool")},
            silent=("tool",),
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
            silent=("no authority",),
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
        tool_calls: that the message makes; an assistant's only.
        tool_call_id: of the call that a tool's message answers; may be empty.
        name: of the tool whose message it is, for templates that print it.
        verbatim: a reasoning part (`<think>…</think>`) of the content is text like all else;
            otherwise templates that show reasoning apart get it so, and may drop it.
    """

    role: str
    ring: Ring
    content: str
    source: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages under a policy, oldest first; never empty.

    Attributes:
        tools: definitions of the tools that the assistant may call; see `tool_calls.tools_of`.

    Raises:
        InputError: there is no message.
    """

    messages: tuple[Message, ...]
    policy: Policy
    tools: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """An empty conversation asks for nothing."""
        if not self.messages:
            raise InputError("messages: the conversation is empty; it needs at least one message")

    @property
    def tools_ring(self) -> Ring:
        """The ring of tool definitions: whoever builds the application writes them."""
        roles = self.policy.roles
        builder = next((role for role in ("developer", "system") if role in roles), None)
        return self.policy.ring_of(builder) if builder else self.policy.rings[0]

    @classmethod
    def of(
        cls,
        messages: Iterable[Mapping[str, Any]],
        policy: Policy | str = "harmony",
        rings: Sequence[str] | None = None,
        tools: object = None,
    ) -> Conversation:
        """From chat API messages: `role`, `content`, and optionally `name` or `source`.

        Content may be a string or a list of `{"type": "text", "text": …}` parts, as in the OpenAI
        API. An assistant's message may carry `tool_calls`, and then no content; a tool's message
        `tool_call_id` and `name`.

        Args:
            messages: oldest first.
            policy: or the name of a preset.
            rings: the name of each message's ring, where the role does not say it. Never take these
                from whoever wrote the messages.
            tools: definitions, as in chat APIs.

        Raises:
            InputError: a role the policy does not know, or content that is not text; the message
                names the position.
        """
        if isinstance(policy, str):
            policy = Policy.preset(policy)
        items = list(messages)
        if rings is not None and len(rings) != len(items):
            raise InputError(f"rings: {len(rings)} names for {len(items)} messages")
        return cls(
            tuple(
                _message(index, item, policy, rings[index] if rings else None)
                for index, item in enumerate(items)
            ),
            policy,
            tools_of(tools),
        )


def _message(index: int, item: Mapping[str, Any], policy: Policy, ring_name: str | None) -> Message:
    where = f"messages[{index}]"
    if not isinstance(item, Mapping):
        raise InputError(f"{where}: must be an object with role and content")
    role = item.get("role")
    if not isinstance(role, str):
        raise InputError(f"{where}.role: must be a string, not {type(role).__name__}")
    try:
        ring = policy.ring_of(role) if ring_name is None else policy.ring(ring_name)
    except InputError as error:
        field = "role" if ring_name is None else "ring"
        raise InputError(f"{where}.{field}: {error}") from None
    source = item.get("source") or item.get("name") or ""
    if not isinstance(source, str):
        raise InputError(f"{where}.source: must be a string, not {type(source).__name__}")
    calls = calls_of(where, item.get("tool_calls"))
    if calls and role != "assistant":
        raise InputError(f"{where}.tool_calls: only an assistant's message may call tools")
    # The API leaves the content out where there are calls; a name matters to templates for tools.
    content = "" if calls and item.get("content") is None else _text(where, item.get("content"))
    return Message(
        role=role,
        ring=ring,
        content=content,
        source=source,
        tool_calls=calls,
        tool_call_id=name_in(f"{where}.tool_call_id", item.get("tool_call_id")),
        name=name_in(f"{where}.name", item.get("name")) if role == "tool" else "",
    )


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
