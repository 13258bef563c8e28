"""A run of synthesis: which case comes at which place, from settings to a finished folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from ringfence.errors import InputError
from ringfence.rings import Policy
from ringfence.synthesis.case import Case, Split
from ringfence.synthesis.recipes import RECIPES, make_sound
from ringfence.synthesis.writing import Folder

# Of both splits, every fifth case of a recipe is for evaluation.
_EVALUATION = 5
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be made; equal jobs make equal bytes.

    Attributes:
        recipes: names, taken in turn.
        count: cases in all.
        split: `both` gives every fifth case of a recipe to evaluation.

    Raises:
        InputError: a count below 1, an unknown recipe, or none.
    """

    recipes: tuple[str, ...]
    count: int
    seed: int
    policy: Policy
    split: Literal["train", "eval", "both"] = "both"

    def __post_init__(self) -> None:
        """Refuse what makes no cases."""
        if self.count < 1:
            raise InputError(f"--count {self.count}: must be at least 1")
        if not self.recipes or not set(self.recipes) <= set(RECIPES):
            raise InputError(f"--recipe: must be some of {', '.join(RECIPES)}")

    def described(self) -> dict[str, Any]:
        """Plain data from which the job could be done again."""
        return {
            "format": FORMAT,
            "recipes": list(self.recipes),
            "count": self.count,
            "seed": self.seed,
            "split": self.split,
            "policy": {
                "name": self.policy.name,
                "rings": [ring.name for ring in self.policy.rings],
                "roles": dict(sorted(self.policy.roles.items())),
                "supersession": self.policy.supersession,
                "delegation": self.policy.delegation,
                "silent": sorted(self.policy.silent),
            },
        }

    def case(self, place: int) -> Case:
        """The case at a place of the file."""
        index, recipe = divmod(place, len(self.recipes))
        split: Split = "train" if self.split != "eval" else "eval"
        if self.split == "both" and index % _EVALUATION == _EVALUATION - 1:
            split = "eval"
        return make_sound(
            self.recipes[recipe], seed=self.seed, index=index, split=split, policy=self.policy
        )


def synthesize(job: Job, folder: Folder, finished: int) -> Iterator[int]:
    """Make the cases that are missing, then all files; yields how many cases are safe.

    The count starts again while the files are written.

    Args:
        job: what to make.
        folder: open, of the same job.
        finished: what `folder.open` returned.
    """
    with closing(folder):
        for place in range(finished, job.count):
            folder.append(job.case(place).line())
            yield place + 1
        yield from folder.finish()
