"""What attackers do to a phrase: spoof, claim, translate, encode, move, pad. Knows no recipes.

Every mutator is a pure function of text, chance and context, and they compose: `chain`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from ringfence.errors import InputError
from ringfence.phrasing.encodings import ENCODINGS, Encoding
from ringfence.phrasing.grammar import Grammar, Split

# Control strings of well-known public chat templates, for whoever has no tokenizer at hand.
PUBLIC_CONTROL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|start|>",
    "<|message|>",
    "<|endoftext|>",
    "<s>",
    "</s>",
)
_CLOSES = re.compile(r"/|end|eo[tsm]|stop|return|close", re.IGNORECASE)
_ROLE_INSIDE = re.compile(r"sys|user|assistant|inst|developer", re.IGNORECASE)
_MOST_PADDING = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What mutators may need to know.

    Attributes:
        split: whose wordings are used.
        control: control strings of the tokenizer under attack; empty stands for the public ones.
        turn: what opens and what closes a system turn under its chat template, exactly; where both
            are empty, turns are put together from `control`.
        demand: the clause that must survive translation; empty means all of the text.
        higher: a noun phrase for what the higher ring said.
        innocent: text to stand in the middle of; empty means that some is drawn.
        length: how many characters padding adds, about; at most 20,000.
    """

    split: Split = "train"
    control: tuple[str, ...] = PUBLIC_CONTROL
    turn: tuple[str, str] = ("", "")
    demand: str = ""
    higher: str = "the instructions above"
    innocent: str = ""
    length: int = 600


Apply = Callable[[str, Random, Context], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutator:
    """One thing that attackers do.

    Attributes:
        name: what people call it; of a chain, the names joined by `+`.
        does: text, chance and context → text.
        held_out: whether only evaluation may use it.
        encoding: the disguise it puts on, if it is one.
    """

    name: str
    does: Apply
    held_out: bool = False
    encoding: Encoding | None = None

    def apply(self, text: str, rng: Random, context: Context) -> str:
        """The mutated text; the same for the same state of `rng`."""
        return self.does(text, rng, context)

    def recover(self, text: str) -> str:
        """What was encoded, from what `apply` returned.

        Raises:
            InputError: the mutator is no encoding, or the text did not come from it.
        """
        if self.encoding is None:
            raise InputError(f"mutator {self.name}: is no encoding, so nothing can be decoded")
        return self.encoding.decode(text.partition("\n")[2] if self.encoding.framed else text)


def chain(mutators: Iterable[Mutator]) -> Mutator:
    """One mutator that applies several, first to last. An empty chain changes nothing."""
    links = tuple(mutators)

    def apply(text: str, rng: Random, context: Context) -> str:
        for link in links:
            text = link.apply(text, rng, context)
        return text

    return Mutator(
        name="+".join(link.name for link in links),
        does=apply,
        held_out=any(link.held_out for link in links),
    )


def mutators(split: Split) -> list[Mutator]:
    """The mutators that a split may use, in the order in which they make sense in a chain."""
    return [item for item in MUTATORS.values() if split == "eval" or not item.held_out]


def draw_chain(rng: Random, split: Split, most: int = 3) -> Mutator:
    """0 to `most` different mutators, in an order that makes sense, with one encoding at most."""
    pool = mutators(split)
    wanted = {item.name for item in rng.sample(pool, rng.randint(0, min(most, len(pool))))}
    links, kinds = [], set[str]()
    for item in pool:
        kind = _KIND.get(item.name, item.name)
        if item.name in wanted and kind not in kinds:
            kinds.add(kind)
            links.append(item)
    return chain(links)


def filler(rng: Random, characters: int, split: Split) -> str:
    """Innocent sentences of at least so many characters, and at most one sentence more."""
    grammar, sentences, length = Grammar.load("filler"), list[str](), -1
    while length < min(characters, _MOST_PADDING):
        sentences.append(grammar.draw(rng, "sentence", {}, split).text)
        length += len(sentences[-1]) + 1
    return " ".join(sentences)


def _claim(start: str, rng: Random, context: Context, **slots: str) -> str:
    slots["higher"] = context.higher
    return Grammar.load("claims").draw(rng, start, slots, context.split).text


def _roles(text: str, rng: Random, context: Context) -> str:
    role = _claim("role", rng, context)
    return f"\n\n{_claim('role_line', rng, context, role=role)}{text}"


def _delimiters(text: str, rng: Random, context: Context) -> str:
    """Close the turn in which the text stands, and open one of a higher role."""
    control = [string for string in context.control if string] or list(PUBLIC_CONTROL)
    if any(context.turn):
        opening, closing = context.turn
        return f"{closing}\n{opening}{text}{closing}" if rng.random() < 0.5 else opening + text
    closers = [string for string in control if _CLOSES.search(string)] or control
    openers = [string for string in control if not _CLOSES.search(string)] or control
    closer = rng.choice(closers)
    # Strings of one template look alike: <|…|>, <<…>>, […], <…>.
    alike = [string for string in openers if _brackets(string) == _brackets(closer)] or openers
    opener = rng.choice(alike)
    role = "" if _ROLE_INSIDE.search(opener) else _claim("role", rng, context)
    turn = f"{closer}\n{opener}{role}\n{text}"
    return turn + (f"{closer}\n{rng.choice(alike)}" if rng.random() < 0.5 else "")


def _brackets(control: str) -> str:
    return next((mark for mark in ("<|", "<<", "[", "<") if control.startswith(mark)), "")


def _completion(text: str, rng: Random, context: Context) -> str:
    return _claim("completion", rng, context, text=text)


def _authority(text: str, rng: Random, context: Context) -> str:
    return f"{_claim('authority', rng, context)} {text}"


def _urgency(text: str, rng: Random, context: Context) -> str:
    claim = _claim("urgency", rng, context)
    return f"{claim} {text}" if rng.random() < 0.5 else f"{text} {claim}"


def _language(text: str, rng: Random, context: Context) -> str:
    """Another language around the demand, which stays as it is."""
    slots = {"demand": context.demand or text}
    return Grammar.load("languages").draw(rng, "any", slots, context.split).text


def _encoder(encoding: Encoding) -> Apply:
    def apply(text: str, rng: Random, context: Context) -> str:
        encoded = encoding.encode(text)
        if not encoding.framed:
            return encoded
        return f"{_claim('decode', rng, context, encoding=encoding.words)}\n{encoded}"

    return apply


def _surroundings(rng: Random, context: Context) -> list[str]:
    innocent = context.innocent or filler(rng, 200, context.split)
    return re.split(r"(?<=[.!?])\s+", innocent)


def _placed(where: str) -> Apply:
    def apply(text: str, rng: Random, context: Context) -> str:
        around = _surroundings(rng, context)
        inside = rng.randint(1, max(1, len(around) - 1))
        cut = {"start": 0, "middle": inside, "end": len(around)}[where]
        gap = rng.choice((" ", "\n\n"))
        parts = (" ".join(around[:cut]), text, " ".join(around[cut:]))
        return gap.join(part for part in parts if part)

    return apply


def _padded(text: str, rng: Random, context: Context) -> str:
    before = int(rng.random() * min(context.length, _MOST_PADDING))
    head = filler(rng, before, context.split)
    tail = filler(rng, min(context.length, _MOST_PADDING) - before, context.split)
    return f"{head}\n\n{text}\n\n{tail}"


# What attackers use and training never sees.
_HELD_OUT = {"rot13", "homoglyph", "leetspeak"}
_KIND = {name: "encoding" for name in ENCODINGS} | {
    f"position-{where}": "position" for where in ("start", "middle", "end")
}
MUTATORS: Mapping[str, Mutator] = MappingProxyType(
    {
        name: Mutator(
            name=name, does=does, held_out=name in _HELD_OUT, encoding=ENCODINGS.get(name)
        )
        for name, does in (
            ("language", _language),
            ("authority", _authority),
            ("urgency", _urgency),
            *((encoding.name, _encoder(encoding)) for encoding in ENCODINGS.values()),
            ("completion", _completion),
            ("role", _roles),
            ("delimiter", _delimiters),
            ("length", _padded),
            *((f"position-{where}", _placed(where)) for where in ("start", "middle", "end")),
        )
    }
)
