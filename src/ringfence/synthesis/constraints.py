"""Constraints on replies, drawn from families of exclusive variants; see data/constraints.yaml.

Knows nothing of rings: which of several constraints holds is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ringfence.synthesis.case import Split
from ringfence.synthesis.catalogue import DATA
from ringfence.synthesis.draw import Draw
from ringfence.yaml_files import read

Json = dict[str, Any]
_OPEN = re.compile("%(?:[wWf][123]|[en][12])%")


class Variant(BaseModel):
    """One thing to want of a family; what it leaves out it takes from the family."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    v: str = ""
    v2: str = ""
    n: int = 0
    code: str = ""
    look: str = ""
    texts: tuple[str, ...] = ()
    write: str = ""
    grader: Mapping[str, Any] = {}
    marked: bool = False


class Family(BaseModel):
    """Exclusive variants of one constraint; the fields are explained in the data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Literal["train", "eval"]
    about: str
    touches: frozenset[str]
    stage: int
    texts: tuple[str, ...]
    write: str = ""
    grader: Mapping[str, Any] = {}
    marked: bool = False
    apart: bool = False
    variants: dict[str, Variant | str]

    def variant(self, name: str) -> Variant:
        """One variant, with what the family says for all of them."""
        own = self.variants[name]
        if isinstance(own, str):
            own = Variant(v=own)
        return own.model_copy(
            update={
                "texts": own.texts or self.texts,
                "write": own.write or self.write,
                "grader": own.grader or self.grader,
                "marked": own.marked or self.marked,
            }
        )


class Families(BaseModel):
    """constraints.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    families: dict[str, Family]
    fillers: dict[str, tuple[str, ...]]
    languages: dict[str, str]
    lines: dict[str, str]
    words: tuple[str, ...]
    emojis: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """Something an instruction may want of a reply.

    Attributes:
        family: name of the family it is from.
        wants: the variant.
        about: slot of the instruction.
        texts: ways to say it.
        grader: check with `%A%` where the answer of the task goes.
        variant: how it is written.
        touches: what of the reply it governs.
        stage: when it is written.
        marked: no reply meets it by accident.
    """

    family: str
    wants: str
    about: str
    texts: tuple[str, ...]
    grader: Mapping[str, Any]
    variant: Variant
    touches: frozenset[str]
    stage: int
    marked: bool

    @property
    def of_answer(self) -> bool:
        """Whether it speaks of the answer, or is written with it, so that there has to be one."""
        return self.variant.write.startswith("language") or "%A%" in str(
            (self.grader, self.variant.write, self.variant.look)
        )

    def check(self, answer: str) -> Json:
        """The check for a task with this answer."""
        filled = _filled(self.grader, {"%A%": answer})
        assert isinstance(filled, dict)
        return filled


@cache
def data() -> Families:
    """The packaged families."""
    return read(Families, DATA / "constraints.yaml")


@cache
def families(split: Split) -> tuple[str, ...]:
    """Names of the families of a split."""
    return tuple(name for name, family in data().families.items() if family.split == split)


@cache
def variants(family: str) -> tuple[Constraint, ...]:
    """Every constraint of a family, words left open; they exclude each other."""
    return _constraints(family, None)


def drawn_variants(draw: Draw, family: str) -> tuple[Constraint, ...]:
    """Those of a case, with words for what is left open: the same whenever the case asks.

    The words are drawn apart from everything else of the case.
    """
    if not _is_open(family):
        return variants(family)
    return _constraints(family, Random(f"{draw.id}/{draw.attempt}/{family}"))


@cache
def _is_open(family: str) -> bool:
    return bool(_OPEN.search(data().families[family].model_dump_json()))


def _constraints(family: str, rng: Random | None) -> tuple[Constraint, ...]:
    owner = data().families[family]
    about, filled = owner.about, {name: owner.variant(name) for name in owner.variants}
    if rng is not None:
        about, filled = _with_words(about, filled, rng)
    graders = {name: _grader(variant) for name, variant in filled.items()}
    return tuple(
        Constraint(
            family=family,
            wants=name,
            about=about,
            texts=tuple(
                text.replace("%v%", variant.v).replace("%v2%", variant.v2) for text in variant.texts
            ),
            grader=_apart(name, graders) if owner.apart else graders[name],
            variant=variant,
            touches=owner.touches,
            stage=owner.stage,
            marked=variant.marked,
        )
        for name, variant in filled.items()
    )


def _with_words(
    about: str, variants: Mapping[str, Variant], rng: Random
) -> tuple[str, dict[str, Variant]]:
    """Words, numbers and emoji for what is left open; no two variants get the same."""
    words = iter(rng.sample(data().words, 3 * (1 + len(variants))))
    emojis = iter(rng.sample(data().emojis, 2 * len(variants)))
    numbers = iter(rng.sample(range(11, 100), 2 * len(variants)))
    of_family = {f"%f{place}%": next(words) for place in (1, 2, 3)}
    filled = {}
    for name, variant in variants.items():
        slots = dict(of_family)
        for place in (1, 2, 3):
            slots[f"%w{place}%"] = word = next(words)
            slots[f"%W{place}%"] = word.capitalize()
        for place in (1, 2):
            slots |= {f"%e{place}%": next(emojis), f"%n{place}%": str(next(numbers))}
        filled[name] = Variant.model_validate(_filled(variant.model_dump(), slots))
    return _filled(about, of_family), filled


def _apart(name: str, graders: Mapping[str, Json]) -> Json:
    """A variant's check, and none of the others'."""
    others = [grader for other, grader in graders.items() if other != name]
    not_others = {"check": "not", "of": {"check": "any", "of": others}}
    return {"check": "all", "of": [graders[name], not_others]}


def draw_pair(draw: Draw, *, marked: bool = False) -> tuple[Constraint, Constraint]:
    """Two constraints that exclude each other; `marked`: no reply meets the second by accident."""
    while True:
        pair = draw.sample(drawn_variants(draw, draw.choice(families(draw.split))), 2)
        if pair[1].marked or not marked:
            return pair[0], pair[1]


def draw_compatible(draw: Draw, count: int, beside: Sequence[Constraint] = ()) -> list[Constraint]:
    """Up to `count` constraints that one reply can meet together with those `beside`."""
    chosen: list[Constraint] = []
    for name in draw.sample(families(draw.split), 6 * count):
        constraint = draw.choice(drawn_variants(draw, name))
        if len(chosen) < count and all(
            compatible(constraint, other) for other in (*beside, *chosen)
        ):
            chosen.append(constraint)
    return chosen


def compatible(one: Constraint, two: Constraint) -> bool:
    """Whether one reply can meet both, and the writers can write it."""
    if one.touches & two.touches or "all" in one.touches or "all" in two.touches:
        return False
    # Families draw their words apart, so that one may write what the other counts or refuses.
    return not (_written(one) & _minded(two) or _written(two) & _minded(one))


def _written(constraint: Constraint) -> frozenset[str]:
    variant = constraint.variant
    return _drawn_words(f"{variant.write} {variant.v} {variant.v2}")


def _minded(constraint: Constraint) -> frozenset[str]:
    return _drawn_words(str(constraint.grader))


def _drawn_words(text: str) -> frozenset[str]:
    """Words for what is left open that stand in a text."""
    return _every_word().intersection(re.findall("[a-z]+", text.lower()))


@cache
def _every_word() -> frozenset[str]:
    return frozenset(data().words)


def _grader(variant: Variant) -> Json:
    filled = _filled(variant.grader, {"%v%": variant.v, "%code%": variant.code, "%n%": variant.n})
    assert isinstance(filled, dict)
    return filled


def _filled(value: Any, slots: Mapping[str, str | int]) -> Any:
    """JSON with its slots filled in; a string that is nothing but a slot may become a number."""
    if isinstance(value, Mapping):
        return {_filled(key, slots): _filled(item, slots) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, slots) for item in value]
    if not isinstance(value, str):
        return value
    if value in slots:
        return slots[value]
    for slot, filling in slots.items():
        value = value.replace(slot, str(filling))
    return value
