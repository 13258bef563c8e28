"""What synthesised lines must not give away, and what an annotator would strike out."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from ringfence.rings import Policy
from ringfence.synthesis.case import Case, Sibling
from ringfence.synthesis.catalogue import openings
from ringfence.synthesis.recipes import RECIPES, make
from ringfence.synthesis.targets import judge_check, judged

HARMONY = Policy.preset("harmony")
SPLITS = ("train", "eval")


@cache
def drawn(recipe: str, split: str, count: int) -> tuple[Case, ...]:
    return tuple(
        make(recipe, seed=21, index=index, split=split, policy=HARMONY) for index in range(count)
    )


def whole(case: Case) -> set[str | None]:
    return {text for one in case.siblings.values() for text in (one.target, one.wrong)}


# ---- judged lines


def begun(split: str) -> list[tuple[Sibling, str, bool]]:
    make_lines = judged if split == "train" else judge_check
    return [
        (case.siblings[line["sibling"]], line["reply"], line["good"])
        for recipe in RECIPES
        for case in drawn(recipe, split, 12)
        for line in make_lines(case)
        if line["reply"] not in whole(case)
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_a_beginning_is_good_only_if_the_right_reply_begins_so(split: str) -> None:
    found = begun(split)
    assert len(found) > 60
    for sibling, reply, good in found:
        assert (sibling.target or "").startswith(reply) is good, (reply, sibling.target)


@pytest.mark.parametrize("split", SPLITS)
def test_beginnings_come_in_pairs_of_the_same_length(split: str) -> None:
    found = begun(split)
    assert [good for _, _, good in found] == [True, False] * (len(found) // 2)
    for (one, right, _), (two, wrong, _) in zip(found[::2], found[1::2], strict=True):
        assert one is two
        # Up to the word that settles it they may be the same.
        assert len(right.split(" ")) == len(wrong.split(" "))


def test_an_unfinished_refusal_is_judged_as_the_whole_one() -> None:
    refusals = [text for kind in ("decline", "refuse") for text in openings("train")[kind]]
    verdicts = Counter(
        good
        for _, reply, good in begun("train")
        if any(refusal.startswith(reply) for refusal in refusals)
    )
    assert verdicts[False] > verdicts[True] > 0
