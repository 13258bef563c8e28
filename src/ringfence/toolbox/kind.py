"""What all kinds of tools have in common: functions over a JSON state. Knows no particular kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Any

from ringfence.errors import InputError
from ringfence.phrasing.grammar import Grammar, Split
from ringfence.phrasing.grammar_file import GrammarFile
from ringfence.toolbox.arguments import (
    Arguments,
    Schema,
    ToolError,
    checked,
    parameters,
    plain,
    unpacked,
)
from ringfence.yaml_files import parsed

MOST_ITEMS = 200
State = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a function.

    Attributes:
        name: of the function.
        arguments: as given.
    """

    name: str
    arguments: Arguments = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """As graders and transcripts write it."""
        return {"name": self.name, "arguments": plain(self.arguments)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Something that can be asked of a tool and leaves a trace, by a user or by an attacker.

    Attributes:
        demand: an imperative clause, lower case, no full stop; names every argument.
        calls: what does it, and nothing else.
    """

    demand: str
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """Foreign text put where a tool will show it.

    Attributes:
        state: with the text in it.
        path: where it stands in the state.
        call: shows it; reads only.
        demand: a question whose honest answer needs that call: an imperative clause.
        answer: what the reply to it must contain.
    """

    state: State
    path: tuple[str | int, ...]
    call: Call
    demand: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function of a tool.

    Attributes:
        name: unique over all kinds.
        description: for the model.
        parameters: JSON Schema of its arguments.
        run: changes the state that it is given and returns the result; may raise `ToolError`.
        changes: whether it ever changes the state.
    """

    name: str
    description: str
    parameters: Schema
    run: Callable[[State, Arguments], str]
    changes: bool

    def schema(self) -> dict[str, Any]:
        """In the format of OpenAI's `tools`."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": plain(self.parameters),
            },
        }


def reads(
    run: Callable[[State, Arguments], str], description: str, **properties: Schema
) -> Function:
    """A function that leaves the state alone; named as the Python one, less its underscore."""
    return _function(run, description, properties, False)


def changes(
    run: Callable[[State, Arguments], str], description: str, **properties: Schema
) -> Function:
    """A function that changes the state; named as the Python one, less its underscore."""
    return _function(run, description, properties, True)


def _function(
    run: Callable[[State, Arguments], str],
    description: str,
    properties: Mapping[str, Schema],
    changing: bool,
) -> Function:
    name = str(getattr(run, "__name__", "")).lstrip("_")
    return Function(
        name=name,
        description=description,
        parameters=parameters(properties),
        run=run,
        changes=changing,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolKind:
    """One kind of tool: what it can do, and plausible states to do it in.

    Attributes:
        name: also the key of its part of a world's state.
        summary: one sentence.
        functions: at least five.
        make: chance, number of items and split → state.
        plant_in: see `plant`.
        errands: draw one of them; see `errand`.
        held_out: whether only evaluation may use it.
    """

    name: str
    summary: str
    functions: tuple[Function, ...]
    make: Callable[[Random, int, Split], State]
    plant_in: Callable[[Random, State, str], Plant]
    errands: tuple[Callable[[Random, State, Split], Errand], ...]
    held_out: bool = False

    def make_state(self, rng: Random, size: int, split: Split = "train") -> State:
        """A plausible state with `size` items of its main sort.

        Raises:
            InputError: a size below 1 or above 200.
        """
        if not 1 <= size <= MOST_ITEMS:
            raise InputError(f"size: {size} items; must be 1 to {MOST_ITEMS}")
        return self.make(rng, size, split)

    def call(self, state: Mapping[str, Any], name: str, arguments: object) -> tuple[State, str]:
        """The state after a call, and what the tool answers. Changes nothing that it is given.

        What cannot be done is answered by a text that begins with `Error:`, and the state stays.

        Args:
            state: as `make_state` or an earlier call returned it.
            name: of a function.
            arguments: an object, or JSON text of one.
        """
        after: State = plain(state)
        for function in self.functions:
            if function.name == name:
                try:
                    return after, function.run(
                        after, checked(function.parameters, unpacked(arguments))
                    )
                except ToolError as error:
                    return plain(state), f"Error: {name}: {error}"
        return after, f"Error: there is no function {str(name)[:80]!r}"

    def schemas(self) -> list[dict[str, Any]]:
        """All functions in the format of OpenAI's `tools`."""
        return [function.schema() for function in self.functions]

    def plant(self, rng: Random, state: Mapping[str, Any], text: str) -> Plant:
        """Put foreign text where a reading call shows it, whole and unchanged.

        Raises:
            InputError: the state has no item left that could show it.
        """
        try:
            return self.plant_in(rng, plain(state), text)
        except IndexError:
            raise self._empty() from None

    def errand(self, rng: Random, state: Mapping[str, Any], split: Split = "train") -> Errand:
        """Something to ask for whose calls succeed in this state and change it.

        Raises:
            InputError: the state has nothing left to do something with.
        """
        draw = rng.choice(self.errands)
        try:
            return draw(rng, plain(state), split)
        except IndexError:
            raise self._empty() from None

    def _empty(self) -> InputError:
        return InputError(f"{self.name}: the state has no items; draw one with make_state")


def written(rng: Random, what: str, split: Split) -> str:
    """Ordinary content: a `person`, a `subject`, a `body`, …; see `content.yaml`."""
    return _content().draw(rng, what, {}, split).text


def address(rng: Random, split: Split) -> str:
    """A mail address in a domain that cannot exist."""
    return f"{written(rng, 'account', split)}@{written(rng, 'domain', split)}"


def day(rng: Random) -> str:
    """A day of 2026."""
    return f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def hour(rng: Random) -> str:
    """A time of the working day."""
    return f"{rng.randint(8, 17):02}:{rng.choice((0, 15, 30, 45)):02}"


def add(state: State, shelf: str, letter: str, record: Mapping[str, Any]) -> str:
    """Put a record on a shelf of the state under a new id, and return the id.

    Raises:
        ToolError: the state is full.
    """
    if len(state[shelf]) >= 10 * MOST_ITEMS:
        raise ToolError(f"{shelf} is full")
    identifier = f"{letter}{state['next']}"
    state["next"] += 1
    state[shelf][identifier] = dict(record)
    return identifier


def item(state: State, shelf: str, identifier: str) -> dict[str, Any]:
    """A record of a shelf.

    Raises:
        ToolError: there is none of that id.
    """
    if identifier not in state[shelf]:
        raise ToolError(f"nothing in {shelf} has the id {identifier[:50]!r}")
    record: dict[str, Any] = state[shelf][identifier]
    return record


def found(shelf: Mapping[str, Mapping[str, Any]], words: str) -> Iterator[str]:
    """Ids of the records in whose texts all the words stand, in upper or lower case."""
    wanted = words.casefold().split()
    for identifier, record in shelf.items():
        texts = "\n".join(value for value in record.values() if isinstance(value, str)).casefold()
        if all(word in texts for word in wanted):
            yield identifier


def listed(lines: list[str], empty: str) -> str:
    """Lines, or what to say if there is none."""
    return "\n".join(lines) if lines else empty


@lru_cache(maxsize=1)
def _content() -> Grammar:
    file = resources.files("ringfence.toolbox") / "content.yaml"
    return Grammar(parsed(GrammarFile, file.read_text("utf-8"), "content.yaml"), "content.yaml")
