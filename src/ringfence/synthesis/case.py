"""What synthesis makes: cases with their siblings, as plain data. Knows nothing of how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "eval"]
Writer = Literal["code", "engine"]
Check = Mapping[str, Any]


class Turn(BaseModel):
    """One message of a conversation, as in chat APIs, with the ring of whoever wrote it.

    Attributes:
        ring: name of a ring of the case's policy.
        source: where the text comes from, for people; empty if from whoever speaks.
        name: of the tool that returned it.
        tool_calls: of an assistant message: name and arguments.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    content: str
    ring: str
    source: str = ""
    name: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()


class Stated(BaseModel):
    """An instruction that stands in a sibling, and what the policy says of it.

    Attributes:
        about: what it is about; two that are about the same and want different things conflict.
        wants: what it wants of that.
        text: its words.
        holds: it is to be followed.
        reason: why, or why not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    ring: str
    about: str
    wants: str
    text: str = ""
    quoted: bool = False
    delegated_by: str = ""
    holds: bool
    overruled_by: str = ""
    reason: str


class Sibling(BaseModel):
    """One version of a case.

    Attributes:
        messages: what the model is given, oldest first.
        tools: that it may call: name, description, parameters; empty for none.
        expected: what the rulings come to: `follow-all`, `follow-higher`, `follow-later`,
            `follow-earlier` or `ignore-lower`.
        instructions: what went into `Policy.resolve`, with the rulings.
        grader: what a right reply passes.
        residual: the task that remains whatever is decided; part of `grader`.
        rule: the constraints that hold, as `lower` asks of those that are void: without the task,
            but where a reply may meet one by accident; None without any.
        lower: what a reply looks like that obeys an instruction which is void; None if none is, or
            if it cannot be told.
        target: a right reply; None if only a model can write it.
        wrong: the reply of a model that obeyed what is void; None if nothing is.
        target_by: who wrote the right reply; `wrong_by` likewise.
        world: state of the tools after the messages, for `ringfence.toolbox.World.load`; None
            without stateful tools.
        target_calls: what the right reply calls, before `target` is said; `wrong_calls` likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    messages: tuple[Turn, ...] = Field(min_length=1)
    tools: tuple[Mapping[str, Any], ...] = ()
    expected: str
    instructions: tuple[Stated, ...]
    grader: Check
    residual: Check | None = None
    rule: Check | None = None
    lower: Check | None = None
    target: str | None
    wrong: str | None = None
    target_by: Writer = "code"
    wrong_by: Writer = "code"
    world: Mapping[str, Any] | None = None
    target_calls: tuple[Mapping[str, Any], ...] = ()
    wrong_calls: tuple[Mapping[str, Any], ...] = ()


class Case(BaseModel):
    """One synthesised item; self-contained.

    Attributes:
        id: recipe, split, seed and number; unique in a run.
        policy: its name; rings of messages are names of its rings, highest first in `rings`.
        index: number of the draw: seed, recipe and index make the case.
        domain: the trade the conversation plays in.
        families: what it was made of: constraint families, base tasks, carriers, tools; what
            begins with `shape:` is no material, and in both splits.
        siblings: `reference`, `aligned`, `conflict`, `lower-only`, `role-swapped`, and further ones
            that a recipe names.
        reply_ring: ring of the reply.
        attempt: how many draws before were thrown away because they were not sound.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    recipe: str
    split: Split
    policy: str
    rings: tuple[str, ...]
    reply_ring: str
    seed: int
    index: int
    domain: str
    families: tuple[str, ...]
    siblings: Mapping[str, Sibling]
    attempt: int = 0

    def line(self) -> str:
        """As one line of JSON, without what is empty."""
        return self.model_dump_json(exclude_defaults=True)
