"""Which examples an epoch takes, and in which order. Knows nothing of files, tokens or torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ringfence.errors import InputError
from ringfence.training.recipe import Part, Recipe


def parts_of(parts: Sequence[Part], *, data: str, recipe: str, sibling: str) -> list[int]:
    """Parts that take an example if it is not too long for them; the first of those gets it."""
    return [
        place
        for place, part in enumerate(parts)
        if (not part.data or data in part.data)
        and (not part.recipes or recipe in part.recipes)
        and (not part.siblings or sibling in part.siblings)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """What an epoch takes of every part.

    Attributes:
        pools: the examples of every part, by number.
        taken: how many of each; a part that is short of it repeats.
        seed: of the draws.
        groups: the case of every example, to draw whole cases; None draws examples one by one.
    """

    pools: tuple[tuple[int, ...], ...]
    taken: tuple[int, ...]
    seed: int
    groups: Sequence[int] | None = None

    def epoch(self, number: int) -> list[int]:
        """The examples of an epoch in their order; equal seeds give equal epochs."""
        chosen: list[int] = []
        for place, (pool, count) in enumerate(zip(self.pools, self.taken, strict=True)):
            rng = Random(f"{self.seed}:{number}:{place}")
            whole, rest = divmod(count, len(pool)) if pool else (0, 0)
            chosen += list(pool) * whole + self._drawn(pool, rest, rng)
        Random(f"{self.seed}:{number}").shuffle(chosen)
        return chosen

    def _drawn(self, pool: Sequence[int], count: int, rng: Random) -> list[int]:
        if self.groups is None:
            return rng.sample(pool, count)
        cases: dict[int, list[int]] = {}
        for example in pool:
            cases.setdefault(self.groups[example], []).append(example)
        order = rng.sample(sorted(cases), len(cases))
        return [example for case in order for example in cases[case]][:count]


def mixture(
    recipe: Recipe, members: Sequence[int | None], groups: Sequence[int] | None = None
) -> Mixture:
    """Settle how many examples of each part make an epoch.

    Args:
        recipe: gives parts, weights, `examples` and `repeats`.
        members: the part of every example, None for those in none.
        groups: the case of every example, to draw whole cases.

    Raises:
        InputError: a part without examples, or one too short for what `examples` asks of it; or
            fewer examples than parts.
    """
    count = max(1, len(recipe.mixture))
    pools = tuple(
        tuple(number for number, part in enumerate(members) if part == place)
        for place in range(count)
    )
    if not recipe.mixture:
        if not pools[0]:
            raise InputError("--data: no example is left to train on")
        wanted = recipe.examples or len(pools[0])
        _refuse_repeats("", wanted, len(pools[0]), recipe.repeats)
        return Mixture(pools=pools, taken=(wanted,), seed=recipe.seed, groups=groups)
    for part, pool in zip(recipe.mixture, pools, strict=True):
        if not pool:
            raise InputError(
                f"mixture.{part.name}: no example of the data is in this part. Give its data with "
                "--data, or take the part out of the recipe."
            )
    total = sum(part.weight for part in recipe.mixture)
    shares = [part.weight / total for part in recipe.mixture]
    most = recipe.examples or int(
        min(len(pool) / share for pool, share in zip(pools, shares, strict=True)) + 1e-9
    )
    if most < count:
        raise InputError(
            f"examples: {most} are {'asked for' if recipe.examples else 'there without repeating'} "
            f"and the mixture has {count} parts. Ask for at least one example a part."
        )
    taken = _rounded(shares, most)
    for part, pool, wanted in zip(recipe.mixture, pools, taken, strict=True):
        _refuse_repeats(f"mixture.{part.name}: ", wanted, len(pool), recipe.repeats)
    return Mixture(pools=pools, taken=tuple(taken), seed=recipe.seed, groups=groups)


def _refuse_repeats(where: str, wanted: int, there: int, repeats: int) -> None:
    if wanted > there * repeats:
        raise InputError(
            f"{where}{wanted} examples are wanted and {there} are there, which would repeat them "
            f"more than repeats: {repeats} times. Synthesise more, lower examples or the weight, "
            "or raise repeats."
        )


def counts(
    recipe: Recipe, made: Mixture, lengths: Sequence[int], learnt: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """What an epoch of the mixture takes, part by part, for the manifest.

    Args:
        recipe: gives the names.
        made: the mixture.
        lengths: tokens of every example.
        learnt: examples as they stand in the rows of an epoch, each with its tokens that have a
            loss there.
    """
    names = [part.name for part in recipe.mixture] or ["all"]
    epoch = made.epoch(0)
    found = []
    for name, pool, taken in zip(names, made.pools, made.taken, strict=True):
        members = set(pool)
        mine = [number for number in epoch if number in members]
        found.append(
            {
                "name": name,
                "there": len(pool),
                "taken": taken,
                "share": round(taken / len(epoch), 6),
                "repeats": round(taken / len(pool), 3),
                "tokens": sum(lengths[number] for number in mine),
                "learnt": sum(count for number, count in learnt if number in members),
            }
        )
    return found


def _rounded(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers of these shares that add up; the largest remainders get what is left."""
    exact = [share * total for share in shares]
    whole = [int(value) for value in exact]
    order = sorted(range(len(shares)), key=lambda place: (whole[place] - exact[place], place))
    for place in order[: total - sum(whole)]:
        whole[place] += 1
    return whole
