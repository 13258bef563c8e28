"""Synthesis: right replies pass, wrong ones fail, splits share nothing, seeds decide everything."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import InputError
from ringfence.graders import grade, parse_grader
from ringfence.graders.unfinished import lost
from ringfence.phrasing import carriers
from ringfence.rings import Conversation, Instruction, Policy
from ringfence.synthesis import catalogue, puzzles, transformations
from ringfence.synthesis.case import Case
from ringfence.synthesis.conditional import NO, YES
from ringfence.synthesis.constraints import compatible, data, drawn_variants, families, variants
from ringfence.synthesis.draw import Draw
from ringfence.synthesis.indirect import function_names
from ringfence.synthesis.recipes import RECIPES, make, make_sound, named
from ringfence.synthesis.soundness import faults
from ringfence.synthesis.targets import judge_check, judged, preferences, sft
from ringfence.synthesis.tasks import (
    Task,
    _forms,
    _plural,
    draw_lookup,
    draw_task,
    names_of_split,
)
from ringfence.synthesis.writers import write

HARMONY = Policy.preset("harmony")
SIBLINGS = ("reference", "aligned", "conflict", "lower-only", "role-swapped")
SPLITS = ("train", "eval")
LONGEST = 1500


def cases(recipe: str, count: int, *, seed: int = 11, policy: Policy = HARMONY) -> list[Case]:
    return [
        make(recipe, seed=seed, index=index, split=split, policy=policy)
        for split in SPLITS
        for index in range(count)
    ]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_right_reply_passes_and_every_wrong_one_fails(recipe: str) -> None:
    for case in cases(recipe, 60):
        assert list(faults(case)) == []


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(RECIPES)),
    st.integers(0, 2**32),
    st.integers(0, 10**6),
    st.sampled_from(SPLITS),
    st.sampled_from(["paper", "harmony", "model-spec", "tiers(2)", "tiers(12)"]),
)
def test_cases_are_sound_whatever_the_seed_and_the_policy(recipe, seed, index, split, policy):
    case = make(recipe, seed=seed, index=index, split=split, policy=Policy.preset(policy))
    assert list(faults(case)) == []
    assert Case.model_validate_json(case.line()) == case
    again = make(recipe, seed=seed, index=index, split=split, policy=Policy.preset(policy))
    assert again.line() == case.line()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_case_has_the_five_siblings(recipe: str) -> None:
    for case in cases(recipe, 8):
        assert set(SIBLINGS) <= set(case.siblings)
        assert [turn.role for turn in case.siblings["reference"].messages] == ["user"]


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "tiers"])
def test_what_is_expected_is_what_the_policy_rules(recipe: str) -> None:
    for case in cases(recipe, 10):
        for sibling in case.siblings.values():
            resolution = HARMONY.resolve(
                [
                    Instruction(
                        id=item.id,
                        ring=HARMONY.ring(item.ring),
                        about=item.about,
                        wants=item.wants,
                        quoted=item.quoted,
                        delegated_by=item.delegated_by,
                    )
                    for item in sibling.instructions
                ]
            )
            assert {item.id for item in resolution.holding} == {
                item.id for item in sibling.instructions if item.holds
            }
            assert (sibling.expected == "follow-all") is (not resolution.void)


def test_a_conflict_is_decided_otherwise_where_the_policy_is_turned_round() -> None:
    turned = Policy.of(
        "turned",
        ("user", "developer", "system", "assistant", "tool"),
        {role: role for role in ("user", "developer", "system", "assistant", "tool")},
        silent=("tool",),
    )
    upright = next(case for case in cases("conflict", 9) if _speakers(case) == ["system", "user"])
    other = make("conflict", seed=11, index=upright.index, split=upright.split, policy=turned)
    one, two = upright.siblings["conflict"], other.siblings["conflict"]
    assert [turn.content for turn in one.messages] == [turn.content for turn in two.messages]
    assert (one.target, one.wrong) == (two.wrong, two.target)


def _speakers(case: Case) -> list[str]:
    return [turn.role for turn in case.siblings["conflict"].messages]


@pytest.mark.parametrize("recipe", RECIPES)
def test_conversations_are_those_of_their_policy(recipe: str) -> None:
    for case in cases(recipe, 4):
        policy = Policy.preset(case.policy)
        for sibling in case.siblings.values():
            messages = [turn.model_dump() for turn in sibling.messages]
            rings = [turn.ring for turn in sibling.messages]
            assert len(Conversation.of(messages, policy, rings).messages) == len(messages)


def test_rejected_replies_do_what_is_void() -> None:
    for recipe in ("conflict", "ignorance", "closed-domain", "extraction", "indirect"):
        for case in cases(recipe, 10):
            sibling = case.siblings["conflict"]
            assert sibling.wrong is not None
            assert sibling.lower is not None
            assert sibling.expected != "follow-all"


# ---- minimal pairs and twins


def test_conditional_rules_come_as_minimal_pairs_yes_and_no_in_balance() -> None:
    found = [case for case in cases("composition", 16) if "shape:conditional" in case.families]
    assert len(found) == 8
    for case in found:
        yes = [case.siblings[name] for name in YES]
        no = [case.siblings[name] for name in NO]
        assert len(yes) == len(no) == 4
        phrase = yes[0].target
        assert phrase and all(sibling.target == phrase for sibling in yes)
        for sibling in no:
            assert sibling.target and phrase not in sibling.target
            assert sibling.wrong == phrase
        # The words of the yes stand in every second message: neither they nor saying them tell.
        for siblings in (yes, no):
            assert sum(phrase in sibling.messages[-1].content for sibling in siblings) == 2


def test_a_rule_may_have_words_for_no_and_a_word_may_stand_alone() -> None:
    found = [case for case in cases("composition", 120) if "shape:the code word" in case.families]
    others = [case for case in found if case.siblings["absent"].target == _other(case)]
    assert 4 < len(others) < 20
    for case in others:
        assert {case.siblings[name].target for name in NO} == {_other(case)}
    alone = [case.siblings[name] for case in found for name in (*YES, *NO) if _alone(case, name)]
    assert len(alone) > 5
    # Nothing else is asked there, so that the rule has to say what to reply.
    assert all(len((sibling.target or "").split()) <= 4 for sibling in alone)


def _other(case: Case) -> str:
    rule = case.siblings["absent"].instructions[0].text
    phrases = [text for text in re.findall(r'"([^"]*)"', rule) if " " in text]
    return next((text for text in phrases if text != case.siblings[YES[0]].target), "")


def _alone(case: Case, name: str) -> bool:
    return len(case.siblings[name].messages[-1].content.split()) <= 2


def test_what_is_served_is_done_and_what_is_not_gets_the_fixed_reply() -> None:
    found = [case for case in cases("composition", 80) if "shape:the topic" in case.families]
    assert len(found) > 4
    asks = set()
    for case in found:
        asked = [case.siblings[name].messages[-1].content for name in (*YES, *NO)]
        assert len(set(asked)) == 8
        asks |= set(asked)
        # Whatever is asked for, the rule is the same.
        assert len({case.siblings[name].messages[:-1] for name in (*YES, *NO)}) == 1
    assert any('"' in text for text in asks)


def test_the_code_word_is_near_but_not_in_the_near_miss() -> None:
    for case in cases("composition", 40):
        if "shape:the code word" in case.families:
            rule = case.siblings["near"].instructions[0].text
            code = re.search(r'(?:word|token) "(\w+)"', rule)[1]
            assert code in case.siblings["quoted"].messages[-1].content
            assert code not in case.siblings["near"].messages[-1].content.lower()
            assert code not in case.siblings["absent"].messages[-1].content.lower()


def test_every_prompt_with_a_secret_has_a_twin_that_asks_honestly() -> None:
    for case in cases("extraction", 20):
        conflict, twin = case.siblings["conflict"], case.siblings["twin"]
        assert conflict.messages[:-1] == twin.messages[:-1]
        assert twin.expected == "follow-all"
        assert twin.target and conflict.target != twin.target
        assert not grade(parse_grader(twin.grader), conflict.target or "").passed


def test_a_delegated_text_is_followed_and_a_mentioned_one_reported() -> None:
    for case in cases("indirect", 10):
        assert case.siblings["delegated"].target_calls
        assert case.siblings["mentioned"].target_calls == ()
        assert case.siblings["conflict"].target_calls == ()
        assert case.siblings["conflict"].wrong_calls == case.siblings["lower-only"].target_calls


def test_without_delegation_a_delegated_text_is_only_reported() -> None:
    roles = {role: role for role in ("system", "user", "assistant", "tool")}
    strict = Policy.of("strict", tuple(roles), roles, delegation=False, silent=("tool",))
    for case in cases("indirect", 4, policy=strict):
        assert case.siblings["delegated"].target_calls == ()
        assert list(faults(case)) == []


def test_processed_executed_and_dropped_are_three_texts() -> None:
    for case in cases("closed-domain", 30):
        conflict = case.siblings["conflict"]
        dropped = case.siblings["aligned"].target
        assert len({conflict.target, conflict.wrong, dropped}) == 3
        assert not grade(parse_grader(conflict.grader), dropped or "").passed


def test_same_ring_supersession_follows_the_policy() -> None:
    roles = {role: role for role in ("system", "user", "assistant")}
    first = Policy.of("first", tuple(roles), roles, supersession=False)
    for policy, expected in ((HARMONY, "follow-later"), (first, "follow-earlier")):
        for case in cases("multi-turn", 4, policy=policy):
            assert case.siblings["same-ring"].expected == expected


# ---- breadth


def test_there_is_breadth() -> None:
    kinds = sum(len(family.variants) for family in data().families.values())
    assert kinds + len(transformations.APPLY) >= 50
    assert len(catalogue.facts("train")) + len(catalogue.facts("eval")) >= 500
    assert len(catalogue.domains()) >= 20
    assert len(carriers()) >= 30


def test_most_conversations_are_short_and_some_are_long() -> None:
    lengths = [
        sum(len(turn.content.split()) for turn in sibling.messages)
        for recipe in RECIPES
        for case in cases(recipe, 15)
        for sibling in case.siblings.values()
    ]
    assert max(lengths) > LONGEST / 3
    assert sorted(lengths)[len(lengths) // 2] < LONGEST / 6


@pytest.mark.parametrize("split", SPLITS)
def test_every_family_is_drawn(split) -> None:
    drawn = {
        family
        for recipe in ("conflict", "composition", "multi-turn")
        for index in range(120)
        for family in make(recipe, seed=2, index=index, split=split, policy=HARMONY).families
    }
    assert set(families(split)) <= drawn


# ---- splits


def test_splits_share_no_family_no_task_no_tool_and_no_carrier() -> None:
    assert not set(families("train")) & set(families("eval"))
    assert not names_of_split("train") & names_of_split("eval")
    assert not function_names("train") & function_names("eval")
    assert not set(transformations.of_split("train")) & set(transformations.of_split("eval"))
    assert not {fact.relation for fact in catalogue.facts("train")} & {
        fact.relation for fact in catalogue.facts("eval")
    }
    assert not {one.name for one in carriers("train")} & {one.name for one in carriers("eval")}


def test_splits_share_no_wording() -> None:
    texts = {
        split: {text for family in families(split) for text in data().families[family].texts}
        for split in SPLITS
    }
    assert not texts["train"] & texts["eval"]
    for one, two in ((catalogue.openings("train"), catalogue.openings("eval")),):
        shared = {text for group in one.values() for text in group} & {
            text for group in two.values() for text in group
        }
        assert shared == set()
    for domain in catalogue.domains().values():
        assert not set(domain.train) & set(domain.eval)


# ---- constraints


@pytest.mark.parametrize("family", sorted(data().families))
def test_variants_of_a_family_exclude_each_other(family: str) -> None:
    split = data().families[family].split
    for index in range(12):
        draw = Draw(seed=3, recipe="conflict", split=split, index=index, policy=HARMONY)
        task = draw_task(draw)
        for one, two in combinations(drawn_variants(draw, family), 2):
            for writes, other in ((one, two), (two, one)):
                text, shown = write(task, [writes], split, index)
                assert grade(parse_grader(writes.check(task.answer)), text).passed, text
                assert not grade(parse_grader(other.check(task.answer)), text).passed, text
                assert grade(parse_grader(task.residual(*shown)), text).passed, text


@pytest.mark.parametrize("family", sorted(data().families))
def test_no_reply_meets_a_marked_variant_by_accident(family: str) -> None:
    split = data().families[family].split
    for index in range(12):
        draw = Draw(seed=4, recipe="conflict", split=split, index=index, policy=HARMONY)
        task = draw_task(draw)
        for constraint in drawn_variants(draw, family):
            if constraint.marked:
                grader = parse_grader(constraint.check(task.answer))
                for chatty in (False, True):
                    text, _ = write(task, [], split, index, chatty=chatty)
                    assert not grade(grader, text).passed, text


@pytest.mark.parametrize("family", families("train"))
def test_words_left_open_are_the_same_within_a_case_and_others_elsewhere(family: str) -> None:
    def drawn(index: int, attempt: int = 0):
        draw = Draw(
            seed=5, recipe="tiers", split="train", index=index, policy=HARMONY, attempt=attempt
        )
        before = draw.rng.getstate()
        found = drawn_variants(draw, family)
        assert draw.rng.getstate() == before and drawn_variants(draw, family) == found
        return found

    first, written = drawn(0), str(variants(family))
    open_ = re.search(r"%[wWfen]\d%", written) is not None
    assert [one.wants for one in first] == [one.wants for one in variants(family)]
    assert not re.search(r"%(?!(?:A|S|v|v2|n|code)%)\w+%", str(first))
    assert (drawn(1) != first) is open_ and (drawn(0, 1) != first) is open_


def test_what_two_families_draw_for_themselves_does_not_clash() -> None:
    pairs = 0
    for index in range(8):
        draw = Draw(seed=7, recipe="composition", split="train", index=index, policy=HARMONY)
        task = draw_task(draw)
        drawn = {family: drawn_variants(draw, family) for family in families("train")}
        for name, group in drawn.items():
            for one, two in product(group[:1], (each[-1] for each in drawn.values())):
                if name == two.family or one.of_answer or two.of_answer or not compatible(one, two):
                    continue
                text, _ = write(task, [one, two], "train", index)
                for check in (one.check(task.answer), two.check(task.answer)):
                    assert grade(parse_grader(check), text).passed, (one.wants, two.wants, text)
                pairs += 1
    assert pairs > 1000


def test_evaluation_leaves_no_word_open() -> None:
    for family in families("eval"):
        draw = Draw(seed=5, recipe="tiers", split="eval", index=0, policy=HARMONY)
        assert drawn_variants(draw, family) is variants(family)


def test_words_for_what_is_open_stand_nowhere_else_in_the_data() -> None:
    folder = catalogue.DATA
    text = "".join(
        path.read_text("utf-8")
        for path in (*folder.glob("*.yaml"), *folder.glob("*.csv"))
        if path.name != "constraints.yaml"
    )
    text += str(data().model_dump(exclude={"words"}))
    used = set(re.findall(r"[a-z]+", text.lower()))
    assert len(set(data().words)) == len(data().words) > 100
    assert not used & {form for word in data().words for form in (word, f"{word}s")}


def test_what_a_task_needs_stands_in_the_system_message_or_before_the_question() -> None:
    posted = 0
    for recipe in ("composition", "conflict", "extraction"):
        for case in cases(recipe, 60):
            sibling, reference = case.siblings["aligned"], case.siblings["reference"]
            heading = next((one for one in _headings() if one in sibling.messages[0].content), "")
            posted += bool(heading)
            assert heading in reference.messages[-1].content
            assert not heading or heading not in sibling.messages[-1].content
    assert posted > 10
    assert all(lookup.posted is None for lookup in catalogue.lookups("eval").values())


def _headings() -> list[str]:
    return [
        f"{lookup.posted[0]}\n" for lookup in catalogue.lookups("train").values() if lookup.posted
    ]


def test_a_relayed_sentence_stands_in_the_request_and_in_the_reply() -> None:
    relayed = 0
    for index in range(200):
        draw = Draw(seed=6, recipe="conflict", split="train", index=index, policy=HARMONY)
        task = draw_task(draw)
        if task.name.startswith("mention:"):
            assert "{" not in task.ask
            relayed += task.statement in task.ask
    assert 10 < relayed < 40
    assert not catalogue.relays("eval")


@pytest.mark.parametrize("kind", [kind for kinds in puzzles.OF_SPLIT.values() for kind in kinds])
def test_puzzles_state_their_answer(kind) -> None:
    split = "train" if kind in puzzles.OF_SPLIT["train"] else "eval"
    for index in range(20):
        ask, answer, statement = kind(
            Draw(seed=5, recipe="conflict", split=split, index=index, policy=HARMONY)
        )
        assert answer in statement
        assert ask and statement.endswith(".") and statement.count(".") == 1


@pytest.mark.parametrize("split", SPLITS)
def test_lookups_hold_their_answer(split) -> None:
    drawn = set()
    for index in range(300):
        task = draw_lookup(
            Draw(seed=6, recipe="conflict", split=split, index=index, policy=HARMONY)
        )
        drawn.add(task.name)
        assert task.ask.count(task.answer) == 1
        assert task.answer in task.statement and task.statement.endswith(".")
        own = task.statement.replace(task.answer, "")
        assert not re.search(r"[\d,\"{}]", own) and own.count(".") == 1
        assert "{" not in task.ask
    assert drawn == {f"lookup:{name}" for name in catalogue.lookups(split)}


@pytest.mark.parametrize("split", SPLITS)
def test_mentions_name_their_subject(split) -> None:
    mentions = catalogue.mentions(split)
    assert mentions
    for mention in mentions.values():
        for ask in mention.asks:
            assert ask.count("{subject}") == 1
        for statement in mention.statements:
            own = statement.replace("{subject}", "", 1)
            assert own != statement and own.endswith(".") and own.count(".") == 1
            assert not re.search(r"[\d,\"{}]", own)


@pytest.mark.parametrize("split", SPLITS)
def test_mentions_stand_beside_no_rule_about_the_answer(split) -> None:
    about = [one for name in families(split) for one in variants(name) if one.of_answer]
    others = [one for name in families(split) for one in variants(name) if not one.of_answer]
    assert about and others
    for index in range(60):
        draw = Draw(seed=7, recipe="conflict", split=split, index=index, policy=HARMONY)
        assert not draw_task(draw, (others[0], about[index % len(about)])).name.startswith(
            "mention:"
        )
    drawn = {
        draw_task(
            Draw(seed=8, recipe="conflict", split=split, index=index, policy=HARMONY), others
        ).name
        for index in range(400)
    }
    assert {name for name in drawn if name.startswith("mention:")} == {
        f"mention:{name}" for name in catalogue.mentions(split)
    }


# ---- facts that anybody can look up


@pytest.mark.parametrize(
    ("relation", "subject", "answer"),
    [
        ("capital", "France", "Paris"),
        ("element", "Fe", "iron"),
        ("atomic-number", "gold", "79"),
        ("currency", "Japan", "yen"),
        ("state-capital", "Texas", "Austin"),
        ("author", "Emma", "Jane Austen"),
    ],
)
def test_facts_are_right(relation: str, subject: str, answer: str) -> None:
    every = {
        (fact.relation, fact.subject): fact.answer
        for split in SPLITS
        for fact in catalogue.facts(split)
    }
    assert every[relation, subject] == answer


def test_atomic_numbers_count_up() -> None:
    numbers = [int(row["number"]) for row in catalogue._table("elements")]
    assert numbers == list(range(1, 119))


# ---- training lines


def test_training_lines_have_a_ring_for_every_message() -> None:
    for recipe in RECIPES:
        case = make(recipe, seed=1, index=0, split="train", policy=HARMONY)
        for line in sft(case):
            assert len(line["messages"]) == len(line["rings"])
            assert line["messages"][-1]["role"] == "assistant"
            json.dumps(line)
        for line in preferences(case):
            assert len(line["prompt"]) == len(line["rings"])
            assert line["chosen"] != line["rejected"]


def test_evaluation_cases_train_nothing() -> None:
    case = make("conflict", seed=1, index=0, split="eval", policy=HARMONY)
    assert [*sft(case), *preferences(case)] == []


# ---- errors


@pytest.mark.parametrize("names", ["", " , ", "confict", "conflict,nonsense"])
def test_unknown_recipes_are_named(names: str) -> None:
    with pytest.raises(InputError, match="--recipe"):
        named(names)


def test_a_policy_without_users_is_refused() -> None:
    policy = Policy.of("odd", ("a", "b"), {"system": "a", "assistant": "b"})
    with pytest.raises(InputError, match="needs the role 'user'"):
        make_sound("conflict", seed=0, index=0, split="train", policy=policy)


@pytest.mark.parametrize("split", SPLITS)
def test_judged_lines_say_what_the_grader_says(split: str) -> None:
    verdicts = Counter()
    for recipe in RECIPES:
        for index in range(10):
            case = make(recipe, seed=5, index=index, split=split, policy=HARMONY)
            lines = list((judged if split == "train" else judge_check)(case))
            assert not list((judge_check if split == "train" else judged)(case))
            for line in lines:
                sibling = case.siblings[line["sibling"]]
                whole = line["reply"] in [
                    text for one in case.siblings.values() for text in (one.target, one.wrong)
                ]
                verdicts[whole, line["good"]] += 1
                if whole:
                    right = grade(parse_grader(sibling.grader), line["reply"]).passed
                    assert line["good"] is right
    # A beginning may happen to be a whole reply of another sibling.
    assert verdicts[True, False] > 200 and verdicts[True, True] - verdicts[True, False] in range(4)
    assert verdicts[False, False] - verdicts[False, True] in range(4)
    assert verdicts[False, True] > 15


@pytest.mark.parametrize("recipe", RECIPES)
def test_decisions_are_where_right_and_wrong_replies_part(recipe: str) -> None:
    marked = 0
    for index in range(20):
        case = make(recipe, seed=9, index=index, split="train", policy=HARMONY)
        replies = {each.target for each in case.siblings.values() if each.target is not None}
        for line in sft(case):
            grader = parse_grader(case.siblings[line["sibling"]].grader)
            reply = line["messages"][-1]["content"]
            calls = line["messages"][-1].get("tool_calls")
            for place in line["decisions"]:
                marked += 1
                assert 0 <= place <= len(reply)
            for other in replies - {reply}:
                if not calls and not grade(grader, other).passed:
                    assert any(
                        reply[:place] == other[:place] and reply[place:][:1] != other[place:][:1]
                        for place in line["decisions"]
                    )
    assert marked > 20


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_beginning_of_a_right_reply_is_given_up(recipe: str) -> None:
    for index in range(30):
        case = make(recipe, seed=8, index=index, split="train", policy=HARMONY)
        for sibling in case.siblings.values():
            if sibling.target is None or sibling.world is not None:
                continue
            grader = parse_grader(sibling.grader)
            for end in range(0, len(sibling.target) + 1, 5):
                assert not lost(grader, sibling.target[:end]), sibling.target[:end]


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("6", "A hexagon has six sides.", True),
        ("1911", "It was in 1,911.", True),
        ("1", "Only one of them.", False),
        ("São Paulo", "Sao Paulo.", True),
        ("6", "Sixty", False),
    ],
)
def test_answers_count_in_their_usual_forms(answer: str, reply: str, right: bool) -> None:
    task = Task(name="t", ask="?", answer=answer, statement=f"{answer}.", forms=_forms(answer))
    assert grade(parse_grader(task.residual()), reply).passed is right


def test_plurals_are_those_of_english() -> None:
    assert [_plural(noun) for noun in ("ditch", "box", "berry", "key", "euro")] == [
        "ditches",
        "boxes",
        "berries",
        "keys",
        "euros",
    ]


def test_a_copy_in_other_letters_is_no_unchanged_copy() -> None:
    seen = 0
    for index in range(120):
        case = make_sound("over-refusal", seed=2, index=index, split="eval", policy=HARMONY)
        sibling = case.siblings["conflict"]
        if "small letters" not in sibling.messages[-1].content:
            continue
        assert sibling.target is not None
        assert grade(parse_grader(sibling.grader), sibling.target).passed
        assert not grade(parse_grader(sibling.grader), sibling.messages[-1].content).passed
        seen += 1
    assert seen > 3


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_text_is_asked_for_in_words_that_its_own_words_answer(split: Any) -> None:
    for index in range(60):
        case = make_sound("indirect", seed=2, index=index, split=split, policy=HARMONY)
        asked = case.siblings["mentioned"].messages[1].content.lower()
        assert not re.search(r"translat|proofread|count|how many|paraphras|gist|outline", asked)


def test_six_dots_are_not_seven() -> None:
    (dots,) = (one for one in variants("star-line") if one.wants == "dots")
    assert all("..." not in text for text in dots.texts)
    assert grade(parse_grader(dots.check("x")), "......\nHello.").passed
    assert not grade(parse_grader(dots.check("x")), ".......\nHello.").passed
