"""Every recipe by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ringfence.errors import InputError
from ringfence.rings import Policy
from ringfence.synthesis.case import Case, Split
from ringfence.synthesis.closed_domain import closed_domain
from ringfence.synthesis.composition import composition
from ringfence.synthesis.conflict import conflict
from ringfence.synthesis.draw import Draw
from ringfence.synthesis.extraction import extraction
from ringfence.synthesis.ignorance import ignorance
from ringfence.synthesis.indirect import indirect
from ringfence.synthesis.multi_turn import multi_turn
from ringfence.synthesis.over_refusal import over_refusal
from ringfence.synthesis.scene import speakers
from ringfence.synthesis.soundness import faults
from ringfence.synthesis.tiers import tiers

_ATTEMPTS = 20
RECIPES: Mapping[str, Callable[[Draw], Case]] = MappingProxyType(
    {
        "composition": composition,
        "conflict": conflict,
        "ignorance": ignorance,
        "closed-domain": closed_domain,
        "indirect": indirect,
        "extraction": extraction,
        "over-refusal": over_refusal,
        "multi-turn": multi_turn,
        "tiers": tiers,
    }
)


def named(names: str) -> tuple[str, ...]:
    """Recipes of `all`, or of names with commas between them.

    Raises:
        InputError: there is none of that name.
    """
    if names.strip() == "all":
        return tuple(RECIPES)
    chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in chosen:
        if name not in RECIPES:
            raise InputError(
                f"--recipe: unknown recipe {name!r}. Recipes: all, {', '.join(RECIPES)}."
            )
    if not chosen:
        raise InputError(f"--recipe: names no recipe. Recipes: all, {', '.join(RECIPES)}.")
    return chosen


def make(
    recipe: str, *, seed: int, index: int, split: Split, policy: Policy, attempt: int = 0
) -> Case:
    """Case `index` of a recipe; depends on nothing but the arguments.

    Raises:
        InputError: the policy lacks a role that cases need.
    """
    speakers(policy)
    draw = Draw(seed=seed, recipe=recipe, split=split, index=index, policy=policy, attempt=attempt)
    return RECIPES[recipe](draw)


def make_sound(recipe: str, *, seed: int, index: int, split: Split, policy: Policy) -> Case:
    """As `make`, checked: a case with a fault is drawn anew, and says how often it was.

    Raises:
        InputError: the policy lacks a role that cases need, or lets no sound case be made.
    """
    for attempt in range(_ATTEMPTS):
        case = make(recipe, seed=seed, index=index, split=split, policy=policy, attempt=attempt)
        fault = next(faults(case), None)
        if fault is None:
            return case
    assert fault is not None
    raise InputError(
        f"policy {policy.name}: no sound case of recipe {recipe} in {_ATTEMPTS} draws: "
        f"{fault.sibling}: {fault.kind}: {fault.reason}"
    )
