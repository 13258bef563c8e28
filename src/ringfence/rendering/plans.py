"""Ways to place a conversation in a template's messages. Knows nothing of how they are tried."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Literal

from ringfence.rendering.traits import Traits
from ringfence.rings import Conversation

# Ids of calls as Mistral's templates want them.
NINE = re.compile("[A-Za-z0-9]{9}")
_System = Literal["keep", "middle", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One way to place a conversation; the plan without any of these is as it stands.

    Attributes:
        developer: merge developers' messages into the system message.
        system: put system messages of the middle, or all, into user turns.
        join: join neighbours of one role.
        arguments_as_text: pass a call's arguments as text instead of as an object.
        no_content: pass None where a message that calls tools has no text.
        new_ids: give calls and results ids of nine letters and digits.
        tools_as_text: write tool definitions, calls and results into the text of messages.
    """

    developer: bool = False
    system: _System = "keep"
    join: bool = False
    arguments_as_text: bool = False
    no_content: bool = False
    new_ids: bool = False
    tools_as_text: bool = False

    @property
    def cost(self) -> int:
        """How far the conversation is changed; smaller is better."""
        moved = {"keep": 0, "middle": 8, "all": 16}[self.system]
        # Tools as text cost more than all other changes together: they are the last resort.
        return (
            32 * self.tools_as_text
            + moved
            + 4 * (self.developer + self.join)
            + 2 * self.arguments_as_text
            + self.no_content
            + self.new_ids
        )


def plans(conversation: Conversation, traits: Traits) -> list[Plan]:
    """Every way to place a conversation, the least changed first.

    Tools become text only where the template does not show definitions, calls and results itself.
    """
    roles = [message.role for message in conversation.messages]
    calls = [message for message in conversation.messages if message.tool_calls]
    made = [
        replace(plan, arguments_as_text=arguments, no_content=no_content, new_ids=new_ids)
        for plan, arguments, no_content, new_ids in itertools.product(
            _placings(roles, traits),
            _ways(any(call.parsed is not None for m in calls for call in m.tool_calls)),
            _ways(any(not message.content.strip() for message in calls)),
            _ways(not all(map(NINE.fullmatch, _ids(conversation)))),
        )
    ]
    if not traits.tools and (conversation.tools or calls or "tool" in roles):
        told = ["user" if role == "tool" else role for role in roles]
        told = ["system", *told] if conversation.tools else told
        made += [replace(plan, tools_as_text=True) for plan in _placings(told, traits)]
    return sorted(made, key=lambda plan: plan.cost)


def _ids(conversation: Conversation) -> list[str]:
    """Ids of calls, and of the calls that results answer; empty where there is none."""
    messages = conversation.messages
    made = [call.id for message in messages for call in message.tool_calls]
    return made + [message.tool_call_id for message in messages if message.role == "tool"]


def _placings(roles: list[str], traits: Traits) -> list[Plan]:
    """Every way to place messages of these roles, whatever they call."""
    developer: tuple[bool, ...] = (False,)
    if "developer" in roles:
        developer = (False, True) if traits.developer else (True,)
    system: tuple[_System, ...] = ("keep",)
    if {"system", "developer"} & set(roles):
        system = ("keep", "middle", "all")
    alike = any(a == b for a, b in itertools.pairwise(roles)) or len(system) > 1
    return [
        Plan(developer=d, system=s, join=j)
        for d, s, j in itertools.product(developer, system, _ways(alike))
    ]


def _ways(both: bool) -> tuple[bool, ...]:
    return (False, True) if both else (False,)
