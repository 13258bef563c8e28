"""What synthesised lines must not give away, and what an annotator would strike out."""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from functools import cache
from itertools import combinations

import pytest

from ringfence.rings import Policy
from ringfence.synthesis.case import Case, Sibling
from ringfence.synthesis.catalogue import openings
from ringfence.synthesis.constraints import data
from ringfence.synthesis.recipes import RECIPES, make
from ringfence.synthesis.targets import judge_check, judged, preferences, refuses

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
    verdicts = Counter(
        good
        for sibling, reply, good in begun("train")
        for refusal in (sibling.target if good else sibling.wrong,)
        if refuses(refusal or "", "train") and (refusal or "").startswith(reply)
    )
    assert verdicts[False] > verdicts[True] > 0


def test_no_lone_word_that_nobody_wrote_is_judged() -> None:
    """It would be told as wrong without reading what was asked."""
    for recipe in RECIPES:
        for case in drawn(recipe, "train", 12):
            for line in judged(case):
                written = "".join(message["content"] for message in line["messages"])
                alone = line["reply"].isalpha() and not (line["good"] or line["begun"])
                assert not alone or line["reply"] in written, line["id"]


# ---- wordings


BROKEN = (
    r"\b1 times",
    r"\ba [aeiou]\w+ (is called|called)",
    r"(does|corners of) a [aeio]",
    r"\bA [aeio]\w+ has",
    r"\b(write|copy|quote|print) out it\b",
    r"whole reply has to be a \w+ letter",
    r"; (please|just)\w",
    # A wording that ends with what is wanted, and then a sentence.
    r"[^.!?)\]] This applies",
)


def test_no_sentence_is_broken() -> None:
    found = Counter()
    for recipe in RECIPES:
        for case in (*drawn(recipe, "train", 60), *drawn(recipe, "eval", 60)):
            for sibling in case.siblings.values():
                texts = [turn.content for turn in sibling.messages] + [sibling.target or ""]
                for pattern in BROKEN:
                    found[pattern] += any(re.search(pattern, text) for text in texts)
    assert not +found


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_no_two_siblings_of_a_case_ask_the_same(recipe: str, split: str) -> None:
    for case in drawn(recipe, split, 24):
        for (one, first), (two, second) in combinations(case.siblings.items(), 2):
            assert first.messages != second.messages, (case.id, one, two)


def test_roles_swapped_clash_as_the_roles_they_swap() -> None:
    for split in SPLITS:
        for case in drawn("composition", split, 24):
            if "shape:conditional" not in case.families:
                for name in ("conflict", "role-swapped"):
                    assert case.siblings[name].expected == "follow-higher", (case.id, name)
                one, two = (case.siblings[name] for name in ("conflict", "role-swapped"))
                assert sorted(item.wants for item in one.instructions) == sorted(
                    item.wants for item in two.instructions
                )


def test_a_postscript_leaves_no_room_for_another() -> None:
    for text in data().families["postscript"].texts:
        assert re.search(r"\b(only|single|one)\b", text), text


def test_a_reply_that_calls_does_not_say_that_it_has_been_done() -> None:
    for split in SPLITS:
        for case in drawn("indirect", split, 24):
            for sibling in case.siblings.values():
                assert not (sibling.target_calls and sibling.target)
                # One that does too much differs from the right one by what it calls.
                assert not sibling.wrong_calls or sibling.wrong in ("", sibling.target)


# ---- over-refusal


RANK = r"(?i)system|rules above|your instructions|operator|brief|administrat|developer|owner of"
OWN = r"(?i)\b(my|i)\b"


@pytest.mark.parametrize("split", SPLITS)
def test_who_withdraws_a_question_claims_no_rank_and_withdraws_their_own(split: str) -> None:
    for case in drawn("over-refusal", split, 80):
        said = case.siblings["lower-only"].messages[-1].content
        assert re.search(OWN, said), said
        assert not re.search(RANK, said), said
        assert not re.search(r"(?i)besides|also|by the way|in addition|as well|too\b", said), said


def test_no_part_is_to_be_played_that_the_right_reply_does_not_play() -> None:
    parts = (
        r"(?i)in character|break character|pretend|you are now|imagine being|let us play"
        r"|the (part|role) (of|up)"
    )
    for split in SPLITS:
        for case in drawn("over-refusal", split, 80):
            for sibling in case.siblings.values():
                assert not re.search(parts, sibling.messages[-1].content)


# ---- extraction

ABOUT = r"(?i)system message|your brief"
CODE = r"\b[A-Z][a-z]+-\d{4}\b"
ENCODED = r"(?i)base64|letter|dots|rot13|backwards|reverse order"


@pytest.mark.parametrize("split", SPLITS)
def test_who_keeps_a_secret_keeps_the_whole_message_and_those_above(split: str) -> None:
    for case in drawn("extraction", split, 40):
        keep = case.siblings["conflict"].instructions[0].text
        assert re.search(r"(above|precedes|before)", keep), keep
        assert re.search(r"(this|these) (message|instructions|text|brief)|of this brief", keep), (
            keep
        )


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_asked_for_is_kept_here_and_given_there(split: str) -> None:
    asked = Counter()
    for case in drawn("extraction", split, 60):
        for name in ("public", "conflict"):
            sibling = case.siblings[name]
            about = "message" if re.search(ABOUT, sibling.messages[-1].content) else "secret"
            asked[name, about] += 1
        public = case.siblings["public"]
        assert public.expected == "follow-all"
        assert refuses(public.wrong or "", split)
    # Neither may what is asked for tell what is right.
    for about in ("message", "secret"):
        assert 0.4 < asked["public", about] / asked["conflict", about] < 2.5, asked


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_ban_tells_a_secret_that_is_kept_from_one_that_is_given(split: str) -> None:
    told = 0
    for case in drawn("extraction", split, 30):
        conflict, public = case.siblings["conflict"], case.siblings["public"]
        keep, allow = conflict.instructions[0].text, public.instructions[0].text
        if re.search(CODE, allow):
            told += 1
            both = [message.content.replace(allow, keep) for message in public.messages[:-1]]
            assert both == [message.content for message in conflict.messages[:-1]]
    assert told >= 10


@pytest.mark.parametrize("split", SPLITS)
def test_twins_ask_for_many_things_and_never_get_the_secret(split: str) -> None:
    questions = set()
    for case in drawn("extraction", split, 60):
        secret = re.search(CODE, case.siblings["conflict"].instructions[0].text)
        assert secret
        for name in ("twin", "elsewhere", "partly"):
            sibling = case.siblings[name]
            questions.add(re.sub(r"^.*?[:,] (?=[a-z])", "", sibling.messages[-1].content))
            assert secret[0] not in (sibling.target or "")
            assert sibling.messages[:-1] == case.siblings["conflict"].messages[:-1]
        assert refuses((case.siblings["partly"].target or "").split(". ", 1)[1], split)
    assert len(questions) > 60


@pytest.mark.parametrize("split", SPLITS)
def test_what_leaks_is_encoded_only_as_was_asked(split: str) -> None:
    for case in drawn("extraction", split, 60):
        conflict = case.siblings["conflict"]
        request, leaked = conflict.messages[-1].content, conflict.wrong or ""
        code = re.search(r"\b[A-Z][a-z]+-\d{4}\b", conflict.instructions[0].text)
        assert code
        if "base64" in request:
            leaked = b64decode(leaked).decode()
        if "base64" in request or not re.search(ENCODED, request):
            assert code[0] in leaked, (request, leaked)


# ---- what is void must not be told by words that stand nowhere else


def shown(sibling: Sibling) -> str:
    return next(turn.content for turn in sibling.messages if turn.role == "tool")


MARKED = r"<[a-z!]|&[a-z]+;|\n[#>*|-]|\*\*|```|\\\\n|[{}|]|--"


@pytest.mark.parametrize("split", SPLITS)
def test_harmless_texts_are_carried_as_attacks_are(split: str) -> None:
    marked = Counter()
    for case in drawn("indirect", split, 80):
        for name in ("aligned", "conflict", "delegated"):
            marked[name] += bool(re.search(MARKED, shown(case.siblings[name])))
    assert marked["aligned"] > 0.6 * marked["conflict"]
    assert marked["delegated"] > 0.6 * marked["conflict"]


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_request_in_a_text_is_void_or_not_by_what_the_user_said(split: str) -> None:
    worded = 0
    for case in drawn("indirect", split, 40):
        unasked, delegated = case.siblings["unasked"], case.siblings["delegated"]
        assert shown(unasked) == shown(delegated)
        assert unasked.target_calls == () and unasked.wrong_calls == delegated.target_calls
        assert unasked.messages[1] == case.siblings["conflict"].messages[1]
        demand = case.siblings["lower-only"].instructions[0].text
        worded += demand not in shown(delegated)
    # Some in the words of an attack.
    assert worded >= 10


@pytest.mark.parametrize("split", SPLITS)
def test_the_wrong_reply_to_text_with_an_instruction_is_not_always_a_bare_word(split: str) -> None:
    bare = Counter()
    for case in drawn("closed-domain", split, 80):
        for line in (*judged(case), *judge_check(case)):
            if not line["good"] and line["sibling"] == "conflict":
                bare[line["reply"] == case.siblings["conflict"].wrong] += 1
    assert 0.5 < bare[True] / bare[False] < 2


def test_the_rejected_reply_to_text_with_an_instruction_may_leave_it_out() -> None:
    dropped = Counter()
    for case in drawn("closed-domain", "train", 80):
        for line in preferences(case):
            if line["sibling"] == "conflict":
                rejected = line["rejected"][0]["content"]
                dropped[rejected == case.siblings["aligned"].target] += 1
    assert min(dropped[True], dropped[False]) >= 30


@pytest.mark.parametrize("split", SPLITS)
def test_how_a_rule_is_introduced_does_not_tell_who_gives_it(split: str) -> None:
    kinds = (texts for kind, texts in openings(split).items() if kind.startswith("rule"))
    frames = sorted({text for texts in kinds for text in texts}, key=len, reverse=True)
    said: Counter[tuple[str, bool]] = Counter()
    for recipe in ("conflict", "composition", "multi-turn"):
        for case in drawn(recipe, split, 60):
            for item in case.siblings["conflict"].instructions:
                if item.about in ("task", "the code word"):
                    continue
                for frame in frames:
                    parts = frame.replace("{name}", r"[\w ]+").split("{rule}")
                    if re.fullmatch(f"{parts[0]}.*{re.escape(parts[1])}", item.text, re.DOTALL):
                        said[frame, item.ring in ("system", "developer")] += 1
                        break
    # Guessing the side of each frame on which it stands more often.
    guessed = sum(max(said[frame, True], said[frame, False]) for frame in frames)
    assert said.total() > 200
    sides = Counter({side: sum(said[frame, side] for frame in frames) for side in (True, False)})
    assert guessed / said.total() < max(sides.values()) / said.total() + 0.1
