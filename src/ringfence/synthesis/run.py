"""A run of synthesis: which case comes at which place, from settings to a finished folder."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
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
        engine: what makes replies besides code, as plain data; empty for none.

    Raises:
        InputError: a count below 1, an unknown recipe, or none.
    """

    recipes: tuple[str, ...]
    count: int
    seed: int
    policy: Policy
    split: Literal["train", "eval", "both"] = "both"
    engine: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what makes no cases."""
        if self.count < 1:
            raise InputError(f"--count {self.count}: must be at least 1")
        if not self.recipes or not set(self.recipes) <= set(RECIPES):
            raise InputError(f"--recipe: must be some of {', '.join(RECIPES)}")

    def described(self) -> dict[str, Any]:
        """Plain data from which the job could be done again."""
        engine = {"engine": dict(self.engine)} if self.engine else {}
        return {
            "format": FORMAT,
            "code": _code(),
            **engine,
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


@cache
def _code() -> str:
    """A digest of what draws cases, code and tables: two versions must not share a file."""
    digest, package = hashlib.sha256(), Path(__file__).parent
    for file in sorted(package.rglob("*")):
        if file.suffix in {".py", ".yaml", ".csv"}:
            digest.update(f"{file.relative_to(package).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


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


async def synthesize_with(
    enrich: Callable[[Case], Awaitable[Case]],
    job: Job,
    folder: Folder,
    finished: int,
    *,
    concurrency: int,
) -> AsyncGenerator[int, None]:
    """As `synthesize`, every case handed to `enrich`, some side by side; written in their order.

    Raises:
        Exception: whatever `enrich` raises; cases before the one that failed are safe.
    """
    flying: deque[asyncio.Task[Case]] = deque()

    async def enriched(place: int) -> Case:
        return await enrich(job.case(place))

    places = iter(range(finished, job.count))
    with closing(folder):
        try:
            for landed in range(finished, job.count):
                while len(flying) < concurrency and (place := next(places, None)) is not None:
                    flying.append(asyncio.create_task(enriched(place)))
                folder.append((await flying.popleft()).line())
                folder.sync()
                yield landed + 1
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        for number in folder.finish():
            yield number
