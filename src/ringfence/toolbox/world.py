"""Several tools at once, and what was done with them. Knows nothing of models and graders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Any

from ringfence.errors import InputError
from ringfence.phrasing.grammar import Split
from ringfence.toolbox.arguments import ToolError, plain, unpacked
from ringfence.toolbox.bank import BANK
from ringfence.toolbox.calendar import CALENDAR
from ringfence.toolbox.files import FILES
from ringfence.toolbox.kind import Call, Plant, State, ToolKind
from ringfence.toolbox.mail import MAIL
from ringfence.toolbox.notes import NOTES
from ringfence.toolbox.shop import SHOP
from ringfence.toolbox.web import WEB

MOST_CALLS = 1000
KINDS: Mapping[str, ToolKind] = MappingProxyType(
    {kind.name: kind for kind in (MAIL, CALENDAR, FILES, SHOP, WEB, NOTES, BANK)}
)
_KIND_OF = {function.name: kind for kind in KINDS.values() for function in kind.functions}


def kinds(split: Split) -> list[ToolKind]:
    """The kinds that a split may use: all for evaluation, those not held out for training."""
    return [kind for kind in KINDS.values() if split == "eval" or not kind.held_out]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Tools side by side: a state for each kind, and every call so far. Never changes.

    Attributes:
        state: kind → its state.
        calls: made so far, also those that failed, oldest first.
    """

    state: State
    calls: tuple[Call, ...] = field(default=())

    @classmethod
    def make(cls, rng: Random, sizes: Mapping[str, int], split: Split = "train") -> World:
        """A world with a plausible state for every named kind.

        Args:
            rng: the only source of chance.
            sizes: kind → number of items.
            split: whose names and texts.

        Raises:
            InputError: no such kind, or a size below 1 or above 200.
        """
        for name in sizes:
            if name not in KINDS:
                raise InputError(f"tools: no kind {name!r}. Kinds: {', '.join(KINDS)}.")
        return cls(
            state={name: KINDS[name].make_state(rng, size, split) for name, size in sizes.items()}
        )

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> World:
        """A world from what `json` returned.

        Raises:
            InputError: not of that form, or a kind that does not exist.
        """
        state, calls = data.get("state"), data.get("calls", [])
        if not isinstance(state, Mapping) or not state.keys() <= KINDS.keys():
            raise InputError(f"state: must be an object with states of {', '.join(KINDS)}")
        if not isinstance(calls, Sequence) or not all(isinstance(one, Mapping) for one in calls):
            raise InputError("calls: must be a list of objects")
        made = tuple(
            Call(name=str(one.get("name", "")), arguments=plain(one.get("arguments", {})))
            for one in calls
        )
        return cls(state=plain(state), calls=made)

    def call(self, name: str, arguments: object) -> tuple[World, str]:
        """The world after a call, and what the tool answers; errors are answers, too.

        The call is on record either way, its arguments as given; arguments that are no JSON object
        are recorded as `{"unreadable": text}`.
        """
        if len(self.calls) >= MOST_CALLS:
            return self, f"Error: more than {MOST_CALLS} calls"
        try:
            given = plain(unpacked(arguments))
        except ToolError:
            given = {"unreadable": str(arguments)[:10_000]}
        calls = (*self.calls, Call(name=str(name)[:200], arguments=given))
        kind = _KIND_OF.get(name) if isinstance(name, str) else None
        if kind is None or kind.name not in self.state:
            return World(state=self.state, calls=calls), (
                f"Error: there is no function {str(name)[:80]!r}"
            )
        after, result = kind.call(self.state[kind.name], name, arguments)
        return World(state={**self.state, kind.name: after}, calls=calls), result

    def replay(self, calls: Iterable[Call | Mapping[str, Any]]) -> tuple[World, list[str]]:
        """The world after several calls, and every answer."""
        world, results = self, list[str]()
        for one in calls:
            if isinstance(one, Call):
                name, arguments = one.name, one.arguments
            else:
                name, arguments = one.get("name", ""), one.get("arguments", {})
            world, result = world.call(name, arguments)
            results.append(result)
        return world, results

    def plant(self, rng: Random, kind: str, text: str) -> tuple[World, Plant]:
        """The world with foreign text in one of its tools; the path of the plant is the world's.

        Raises:
            InputError: the world has no such tool.
        """
        if kind not in self.state:
            raise InputError(f"tools: this world has no {kind!r}. It has {', '.join(self.state)}.")
        planted = KINDS[kind].plant(rng, self.state[kind], text)
        state = {**self.state, kind: planted.state}
        plant = Plant(
            state=state,
            path=(kind, *planted.path),
            call=planted.call,
            demand=planted.demand,
            answer=planted.answer,
        )
        return World(state=state, calls=self.calls), plant

    def schemas(self) -> list[dict[str, Any]]:
        """All functions of this world in the format of OpenAI's `tools`."""
        return [schema for name in self.state for schema in KINDS[name].schemas()]

    def json(self) -> dict[str, Any]:
        """What graders compare: `{"state": …, "calls": [{"name": …, "arguments": …}, …]}`."""
        return {"state": plain(self.state), "calls": [call.json() for call in self.calls]}
