"""Everything a run trains on, in its order, from sources to rows. Knows nothing of torch.

The same data, recipe and seed give the same rows on every machine and in every process, so that a
resumed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence import __version__
from ringfence.engine import EngineCard
from ringfence.rings import Policy
from ringfence.segments.saved import SignalCard
from ringfence.training import store
from ringfence.training.encoding import Dropped, Encoder, policy_of
from ringfence.training.learnt import Learnt
from ringfence.training.mixing import Mixture, counts, mixture, parts_of
from ringfence.training.overlap import Overlap
from ringfence.training.packing import rows
from ringfence.training.recipe import Kind, Packing, Part, Recipe
from ringfence.training.sharing import learnt_once, size
from ringfence.training.signal_rings import SignalRings
from ringfence.training.sources import Example, Source, hash_of_principle
from ringfence.training.store import Store

Json = dict[str, Any]
Told = Callable[[int], None]
# The only part of a recipe without a mixture.
_WHOLE = Part(name="all", weight=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is trained on.

    Attributes:
        rows: of the whole run, in order; numbers of examples each.
        tokens: that every row takes; fewer than its examples have, where they share some.
        store: their tokens.
        batch: rows of one step, over all devices.
        steps: of the optimiser.
        mixed: what the mixture takes, for the manifest.
    """

    rows: tuple[tuple[int, ...], ...]
    tokens: tuple[int, ...]
    store: Store
    batch: int
    steps: int
    mixed: list[Json]


def encoded(
    sources: Sequence[Source],
    recipe: Recipe,
    kind: Kind,
    card: EngineCard,
    folder: Path,
    *,
    key: str,
    overlap: Overlap | None,
    told: Told,
    signal: SignalCard | None = None,
) -> Store:
    """Render all data, or take what an earlier run rendered.

    Args:
        sources: of this kind.
        recipe: gives parts and length.
        kind: of training.
        card: of the model.
        folder: for the tokens.
        key: of everything that decides what the tokens are.
        overlap: sees all texts; what it finds is kept with the tokens.
        told: is told how many examples were read.
        signal: of an adapter to go on with; a new one's rings come from the data.

    Raises:
        InputError: a line that cannot be used; too much overlap is for the caller to refuse.
    """
    kept = store.read(folder, key)
    # Which principles the lines name is known when they were read.
    if kept is not None and all(
        hash_of_principle(name) == before for name, before in kept.summary["principles"].items()
    ):
        return kept
    dropped = Dropped()
    length = recipe.sequence.length
    rings = SignalRings(signal) if signal or recipe.segments != "none" else None
    encoder = Encoder(card=card, policies=policies(sources), length=length, signal=rings)
    parts = recipe.mixture or (_WHOLE,)
    read = [0]
    judged_by: set[str] = set()

    def examples() -> Iterator[tuple[int, str, tuple[Learnt, ...]]]:
        for source in sources:
            for example in source.examples():
                read[0] += 1
                if example.principle:
                    judged_by.add(example.principle)
                told(read[0])
                if overlap is not None:
                    overlap.see(example.texts())
                for place, sequences in _placed(encoder, kind, example, parts, dropped):
                    yield place, example.case, sequences

    store.write(folder, key, examples(), 2 if kind == "dpo" else 1)
    summary = {
        "read": read[0],
        "dropped": dropped.described(),
        "overlap": overlap.described() if overlap else None,
        "rings": rings.names if rings else [],
        "principles": {name: hash_of_principle(name) for name in sorted(judged_by)},
    }
    store.finish(folder, summary)
    made = store.read(folder, key)
    assert made is not None
    return made


def _placed(
    encoder: Encoder, kind: Kind, example: Example, parts: Sequence[Part], dropped: Dropped
) -> list[tuple[int, tuple[Learnt, ...]]]:
    """The part that takes an example, and its sequences; nothing where it is dropped.

    What has to be learnt of a line in two conversations becomes two examples.
    """
    places = parts_of(parts, data=example.data, recipe=example.recipe, sibling=example.sibling)
    for place in places:
        made: list[tuple[Learnt, ...]]
        if kind == "dpo":
            pair = encoder.preference(example, dropped)
            made = [] if pair is None else [pair]
        else:
            found = encoder.supervised(example, parts[place].replies, dropped)
            made = [(learnt,) for learnt in found]
        if not made:
            return []
        tokens = max(len(sequence.ids) for sequences in made for sequence in sequences)
        if tokens <= (parts[place].longest or tokens):
            return [(place, sequences) for sequences in made]
    dropped.add("in no part of the mixture", example, example.recipe)
    return []


def key_of(
    sources: Sequence[Source],
    recipe: Recipe,
    kind: Kind,
    card: EngineCard,
    check: str,
    signal: SignalCard | None = None,
) -> str:
    """A hash of everything that decides what the tokens are."""
    rings = list(signal.names) if signal else recipe.segments != "none"
    parts = {
        "format": 7,
        "ringfence": __version__,
        "policies": [source.policy for source in sources],
        "kind": kind,
        "sources": [(source.name, source.sha256) for source in sources],
        "mixture": [
            part.model_dump(mode="json", exclude={"name", "weight"}) for part in recipe.mixture
        ],
        "length": recipe.sequence.length,
        "template": card.template,
        "control": dict(card.tokenizer.control),
        "specials": [card.bos, card.eos],
        "tokenizer": fingerprint(card),
        "check": check,
        "rings": rings,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def fingerprint(card: EngineCard) -> str:
    """Tells tokenizers apart that encode differently, by what they make of a text."""
    text = "The 1234 naïve keys—{'é': [0.5]}\n\n  def λ(x): return ünïcode 日本語 🙂 \t end."
    return hashlib.sha256(json.dumps(card.tokenizer.encode(text)).encode()).hexdigest()


def policies(sources: Sequence[Source]) -> dict[str, Policy]:
    """The policy of every source with a manifest."""
    return {
        source.name: policy_of(source.policy) for source in sources if source.policy is not None
    }


def packing_of(recipe: Recipe, kind: Kind) -> Packing:
    """How examples become rows in this kind of training."""
    packing = recipe.sequence.packing
    return "grouped" if kind == "dpo" and packing != "none" else packing


def planned(made: Store, recipe: Recipe, kind: Kind, world: int) -> Plan:
    """Rows of all epochs in order.

    Args:
        made: the tokens.
        recipe: gives mixture, packing, schedule and seed.
        kind: of training.
        world: processes that train together.

    Raises:
        InputError: the mixture cannot be had.
    """
    schedule = recipe.schedule(kind)
    members = [None if part < 0 else int(part) for part in made.parts]
    packing = packing_of(recipe, kind)
    shared = packing == "shared"
    mixed: Mixture = mixture(recipe, members, made.groups.tolist() if shared else None)
    lengths = made.lengths()
    batch = schedule.rows * schedule.accumulate * world

    def pass_over(order: Sequence[int], epoch: int) -> list[tuple[int, ...]]:
        return rows(
            order,
            lengths,
            length=recipe.sequence.length,
            batch=schedule.rows,
            packing=packing,
            seed=f"{recipe.seed}:rows:{epoch}",
            tree=(made.group, made.told_apart) if shared else None,
        )

    whole = pass_over(mixed.epoch(0), 0)
    found: list[tuple[int, ...]] = []
    for epoch in range(math.ceil(schedule.epochs)):
        order = mixed.epoch(epoch)
        share = min(1.0, schedule.epochs - epoch)
        order = order[: max(1, round(len(order) * share))]
        found += whole if epoch == 0 and share == 1 else pass_over(order, epoch)
        if schedule.steps and len(found) >= schedule.steps * batch:
            break
    steps = math.ceil(len(found) / batch)
    if schedule.steps and schedule.steps < steps:
        steps = schedule.steps
        found = found[: steps * batch]
    return Plan(
        rows=tuple(found),
        tokens=tuple(
            size([made.told_apart(number) for number in row])
            if shared
            else sum(lengths[number] for number in row)
            for row in found
        ),
        store=made,
        batch=batch,
        steps=steps,
        mixed=counts(recipe, mixed, lengths, _learnt(made, whole, shared=shared)),
    )


def _learnt(
    made: Store, epoch: Sequence[tuple[int, ...]], *, shared: bool
) -> list[tuple[int, int]]:
    """Every example of an epoch's rows, with its tokens that have a loss there."""
    if not shared:
        alone = made.learnt()
        return [(number, alone[number]) for row in epoch for number in row]
    return [
        found for row in epoch for found in zip(row, learnt_once(*made.sequences(row)), strict=True)
    ]
