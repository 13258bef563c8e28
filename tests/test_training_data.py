"""Training data: what is read, refused, rendered, mixed and packed. Needs no torch."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from chat_templates import card as templated
from hypothesis import given
from hypothesis import strategies as st
from training_parts import card, conversation, pair, synthesised, write_lines

from ringfence.engine import EngineCard, Scores
from ringfence.errors import InputError
from ringfence.judged_items import load_items
from ringfence.judges import SelfJudge
from ringfence.principle import Principle
from ringfence.rendering import render
from ringfence.rings import Conversation
from ringfence.training import store
from ringfence.training.encoding import Dropped, Encoder
from ringfence.training.learnt import DECISION, REPLY, VERDICT
from ringfence.training.mixing import mixture, parts_of
from ringfence.training.overlap import Overlap, refuse, told
from ringfence.training.packing import rows
from ringfence.training.plan import encoded, key_of, planned
from ringfence.training.recipe import Part, Recipe, load, schema
from ringfence.training.sources import Example, _principle, open_sources

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesised(tmp_path_factory.mktemp("data") / "hierarchy")


def example(messages: list[dict[str, Any]], **more: Any) -> Example:
    settings: dict[str, Any] = {
        "data": "d",
        "line": 1,
        "id": "x",
        "recipe": "",
        "sibling": "",
        "messages": tuple(messages),
        "rings": None,
        "reply_ring": None,
        "policy": "harmony",
        "tools": (),
    }
    return Example(**(settings | more))


def encoder(length: int = 4096) -> Encoder:
    return Encoder(card=card(), policies={}, length=length)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_every_recipe_that_ships_is_valid(path):
    assert load(path).title


def test_the_published_schema_is_current():
    published = json.loads((ROOT / "docs" / "recipe.schema.json").read_text("utf-8"))
    assert published == schema()


def test_a_field_that_a_recipe_does_not_have_is_named_with_what_was_meant(tmp_path):
    path = tmp_path / "r.yaml"
    for text, words in (
        ("sft: {learning_rat: 1}", r"sft\.learning_rat: no such field\. Did you mean"),
        ("packing: shared", "packing: no such field; it belongs under sequence"),
        ("mixture: [{name: a, weight: 1, data: [x], reply: last}]", r"0\.reply: .*mean replies"),
        ("zzz: 1", r"zzz: no such field\. Fields: .*sequence"),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(InputError, match=rf"r\.yaml: .*{words}"):
            load(path)


def test_a_ring_signal_with_fsdp_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("{segments: blocks, hardware: {strategy: fsdp}}", "utf-8")
    with pytest.raises(InputError, match="a ring signal cannot be sharded"):
        load(path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("{hardware: {offload: true}}", "hardware.offload: only fsdp can do it"),
        (
            "{sequence: {packing: shared}, hardware: {attention: flash_attention_2}}",
            "hardware.attention: .* has an attention of its own",
        ),
        ("{adapter: null, segments: blocks}", "segments: .* saved with an adapter"),
        ("{hardware: {attention: flash_attention_2}}", "hardware.attention: .* 16 bits only"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(tmp_path, settings, words):
    (tmp_path / "r.yaml").write_text(settings, "utf-8")
    with pytest.raises(InputError, match=words):
        load(tmp_path / "r.yaml")


def test_a_folder_for_evaluation_is_refused(tmp_path):
    folder = synthesised(tmp_path / "eval", split="eval", count=3)
    with pytest.raises(InputError, match="job.split is 'eval'"):
        open_sources([str(folder)], "sft")


def test_a_line_for_evaluation_is_refused_wherever_it_stands(tmp_path):
    line = conversation(1, id="conflict-eval-3-4/aligned", recipe="conflict")
    path = write_lines(tmp_path / "d.jsonl", [conversation(0), line])
    (source,) = open_sources([str(path)], "sft")
    with pytest.raises(InputError, match="line 2: is for evaluation"):
        list(source.examples())


def test_data_that_changed_since_its_manifest_is_refused(tmp_path):
    folder = synthesised(tmp_path / "changed", count=3)
    with (folder / "sft.jsonl").open("a") as file:
        file.write(json.dumps(conversation(0)) + "\n")
    with pytest.raises(InputError, match="sft.jsonl has changed since it was made"):
        open_sources([str(folder)], "sft")


def test_synthesised_data_carries_the_proof_of_its_manifest(synthetic):
    (source,) = open_sources([f"h={synthetic}"], "sft")
    assert source.name == "h"
    assert source.proof["manifest"] and source.proof["split"] == "both"
    assert source.proof["families_in_both_splits"] == []
    found = list(source.examples())
    assert found and not any("-eval-" in each.id for each in found)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "must be an object"),
        ("{", "is no JSON"),
        ('{"messages": []}', "messages: must be a list"),
        ('{"messages": ["hi"]}', "every message must be an object"),
        ("[" * 100_000, "is no JSON"),
        ('{"messages": [{}], "tools": 5}', "tools: must be a list of definitions"),
        ('{"messages": [{}], "tools": ["x"]}', "tools: must be a list of definitions"),
        ('{"messages": [{}], "rings": "system"}', "rings: must be a list of names"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, words):
    path = tmp_path / "d.jsonl"
    path.write_text(line + "\n", "utf-8")
    (source,) = open_sources([str(path)], "sft")
    with pytest.raises(InputError, match=f"d.jsonl, line 1: .*{words}"):
        list(source.examples())


def test_what_is_learnt_is_the_replies_and_the_ends_of_their_turns():
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
    tokenizer = card().tokenizer
    (learnt,) = encoder().supervised(example(messages), "all", Dropped())
    text = tokenizer.decode([i for i, bit in zip(learnt.ids, learnt.mask, strict=True) if bit])
    assert text == "two<|im_end|>four<|im_end|>"
    (last,) = encoder().supervised(example(messages), "last", Dropped())
    text = tokenizer.decode([i for i, bit in zip(last.ids, last.mask, strict=True) if bit])
    assert text == "four<|im_end|>"


def test_of_a_synthesised_case_only_the_last_reply_is_learnt_whatever_the_part_says():
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "One moment, please."},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
    (learnt,) = encoder().supervised(example(messages, recipe="conflict"), "all", Dropped())
    kept = [token for token, bit in zip(learnt.ids, learnt.mask, strict=True) if bit]
    assert card().tokenizer.decode(kept) == "four<|im_end|>"


def test_the_token_counts_at_which_a_reply_parts_from_a_wrong_one():
    messages = [
        {"role": "user", "content": "Say A"},
        {"role": "assistant", "content": "Ünder"},
    ]
    # The second character, and the end of the reply.
    (learnt,) = encoder().supervised(example(messages, decisions=(1, 5)), "last", Dropped())
    text = card().tokenizer
    marked = [place for place, kind in enumerate(learnt.mask) if kind == DECISION]
    assert [text.decode([learnt.ids[place]]) for place in marked] == ["n", "<|im_end|>"]
    assert sum(map(bool, learnt.mask)) == len("Ünder".encode()) + 1


# Templates that write no, an empty, and one line's worth of reasoning before a reply that they are
# given, and some that begin or end a turn in other ways.
REASONING = ["chatml", "qwen3", "qwen3, told not to think", "glm4moe", "gptoss", "inst"]


def reasoning(name: str) -> EngineCard:
    base, told, _ = name.partition(", told not to think")
    made = templated(base)
    if not told:
        return made
    return replace(made, template="{% set enable_thinking = false %}\n" + (made.template or ""))


def stored(lines: list[dict[str, Any]], shown: EngineCard, folder: Path) -> list[Any]:
    """What is learnt of lines: token ids and mask of every sequence."""
    sources = open_sources([str(write_lines(folder / "lines.jsonl", lines))], "sft")
    recipe = Recipe.model_validate({"sequence": {"length": 100_000}})
    made = encoded(
        sources, recipe, "sft", shown, folder / "t", key="k", overlap=None, told=lambda _: None
    )
    assert made.summary["dropped"]["count"] == 0
    where = [made.sequence(number) for number in range(len(made))]
    return [(made.ids[place].tolist(), made.mask[place].tolist()) for place in where]


def learnt_last(sequence: Any) -> tuple[list[int], list[int]]:
    """Of the last run of learnt tokens: what stands before it, and itself."""
    ids, mask = sequence
    stop = max(place + 1 for place, kind in enumerate(mask) if kind)
    start = stop
    while start and mask[start - 1]:
        start -= 1
    return ids[:start], ids[start:stop]


ASKED = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "Which sea is it?"},
]
JUDGED = {"messages": ASKED, "reply": "The North Sea.", "good": True}


@pytest.mark.parametrize("name", REASONING)
def test_a_verdict_is_learnt_right_behind_what_a_judge_is_given(tmp_path, name):
    shown, asked = reasoning(name), []

    class Asked:
        card = shown

        async def logprobs(self, prompt, candidates):
            asked.append((prompt, candidates[0][0]))
            return Scores(logprobs=(-1.0, -2.0), fed=0, requests=1)

    async def ask() -> None:
        judge = await SelfJudge.open(Asked(), Principle.load("rings"))
        await judge.judge(render(Conversation.of(ASKED), shown), [JUDGED["reply"]])

    asyncio.run(ask())
    [(prompt, yes)] = asked
    (sequence,) = stored([JUDGED], shown, tmp_path)
    before, learnt = learnt_last(sequence)
    assert before == list(prompt) and learnt[0] == yes
    assert {kind for kind in sequence[1] if kind} == {VERDICT}


@pytest.mark.parametrize("name", REASONING)
def test_a_judged_target_is_learnt_as_the_reply_of_a_conversation_is(tmp_path, name):
    shown = reasoning(name)
    said = {"role": "assistant", "content": JUDGED["reply"]}
    (tmp_path / "alone").mkdir()
    (alone,) = stored([{"messages": [*ASKED, said]}], shown, tmp_path / "alone")
    (tmp_path / "judged").mkdir()
    (tmp_path / "both").mkdir()
    both = stored([JUDGED | {"target": True}], shown, tmp_path / "both")
    (judged,) = stored([JUDGED], shown, tmp_path / "judged")
    replies = [
        (ids, [kind if kind != VERDICT else 0 for kind in mask])
        for ids, mask in both
        if REPLY in mask
    ]
    (replied,) = map(learnt_last, replies)
    before, reply = learnt_last(alone)
    # Some end a turn only where another one begins.
    assert (replied[0], replied[1][: len(reply)]) == (before, reply)
    assert name == "glm4moe" or replied[1] == reply
    verdicts = [each for each in both if VERDICT in each[1]]
    assert [learnt_last(each) for each in verdicts] == [learnt_last(judged)]
    # Where the template writes both alike there is one row, and nothing is learnt in two.
    assert len(both) == (1 if name in ("chatml", "inst", "glm4moe") else 2)
    assert all((REPLY in mask and VERDICT in mask) == (len(both) == 1) for _, mask in both)


@pytest.mark.parametrize("name", REASONING)
@pytest.mark.parametrize(
    "content", ["The North Sea.", "<think>So.\nIt is.</think>\n\nThe North Sea."]
)
def test_a_decision_falls_on_the_words_it_is_about_whatever_the_template_puts_before_them(
    tmp_path, name, content
):
    shown = reasoning(name)
    line = {"messages": [*ASKED, {"role": "assistant", "content": content}]}
    line["decisions"] = [content.index("North"), len(content)]
    ((ids, mask),) = stored([line], shown, tmp_path)
    marked = [place for place, kind in enumerate(mask) if kind == DECISION]
    decode = shown.tokenizer.decode
    assert [decode(ids[place : place + 5]) for place in marked[:1]] == ["North"]
    # The end of a reply is where its turn ends.
    assert marked[1] == max(place for place, kind in enumerate(mask) if kind)


@pytest.mark.parametrize(
    ("name", "earlier", "last"),
    [
        # The one token that stands where the model would begin to think is not learnt.
        ("qwen3", "ne<|im_end|>", "Two<|im_end|>"),
        ("qwen3, told not to think", "One<|im_end|>", "Two<|im_end|>"),
        ("glm4moe", "One<|user|>", "Two"),
        # An earlier reply of gpt-oss ends in `<|end|>`, behind which the model goes on.
        ("gptoss", "One", "Two<|return|>"),
        ("llama3", "One<|eot_id|>", "Two<|eot_id|>"),
        ("phi3", "One<|end|>", "Two<|end|>"),
        ("inst", " One</s>", " Two</s>"),
    ],
)
def test_what_a_template_writes_where_nothing_is_thought_is_not_learnt(
    tmp_path, name, earlier, last
):
    shown = reasoning(name)
    if name == "phi3":
        ends = shown.ends | {shown.tokenizer.control["<|end|>"]}
        shown = replace(shown, ends=ends)
    talk = [*ASKED, {"role": "assistant", "content": "One"}, ASKED[1]]
    line = {"messages": [*talk, {"role": "assistant", "content": "Two"}]}
    ((ids, mask),) = stored([line], shown, tmp_path)
    runs = [
        shown.tokenizer.decode([token for token, _ in run])
        for kind, run in groupby(zip(ids, mask, strict=True), key=itemgetter(1))
        if kind
    ]
    assert runs == [earlier, last]
    prompt = render(Conversation.of(talk), shown).tokens
    assert tuple(ids[: len(prompt)]) == prompt


@pytest.mark.parametrize(
    ("name", "learnt"),
    [
        ("qwen3", "<think>\nSo.\n</think>\n\nTwo<|im_end|>"),
        (
            "gptoss",
            "<|channel|>analysis<|message|>So.<|end|><|start|>assistant"
            "<|channel|>final<|message|>Two<|return|>",
        ),
        ("glm4moe", "\n<think>So.</think>\nTwo"),
    ],
)
def test_a_thought_of_the_data_is_learnt_with_all_around_it(tmp_path, name, learnt):
    shown = reasoning(name)
    said = {"role": "assistant", "content": "<think>\nSo.\n</think>\n\nTwo"}
    (sequence,) = stored([{"messages": [*ASKED, said]}], shown, tmp_path)
    assert shown.tokenizer.decode(learnt_last(sequence)[1]) == learnt


@pytest.mark.parametrize(
    ("name", "begins"), [("qwen3", "<tool_call>\n{"), ("gptoss", " to=functions.f<|channel|>")]
)
def test_a_call_is_learnt_from_where_it_begins(name, begins):
    shown = reasoning(name)
    call = {"id": "call00001", "function": {"name": "f", "arguments": {"a": "b"}}}
    tool = {"name": "f", "description": "g", "parameters": {"type": "object", "properties": {}}}
    said = {"role": "assistant", "content": "", "tool_calls": [call]}
    encode = Encoder(card=shown, policies={}, length=100_000)
    given = example([*ASKED, said], tools=(tool,), decisions=(0,))
    (learnt,) = encode.supervised(given, "last", Dropped())
    start = next(place for place, kind in enumerate(learnt.mask) if kind)
    assert shown.tokenizer.decode(learnt.ids[start:]).startswith(begins)
    assert learnt.mask[start] == DECISION
    # A preference may be between a call and an answer, which gpt-oss begins differently.
    answer = {"role": "assistant", "content": "Two"}
    pair = replace(given, messages=tuple(ASKED), decisions=(), chosen=(said,), rejected=(answer,))
    both = encode.preference(pair, Dropped())
    assert both is not None
    prompt = render(Conversation.of(ASKED, tools=[tool]), shown).tokens
    if name == "gptoss":
        assert all(one.ids[: one.mask.index(1)] == prompt for one in both)


@pytest.mark.parametrize("places", [[-1], [1.5], "1", [True], {}])
def test_decisions_that_are_no_places_are_an_error(tmp_path, places):
    path = write_lines(tmp_path / "d.jsonl", [conversation(0, decisions=places)])
    (source,) = open_sources([str(path)], "sft")
    with pytest.raises(InputError, match="line 1: decisions: must be a list"):
        list(source.examples())


def test_every_token_has_the_ring_of_its_writer():
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "UU"},
        {"role": "assistant", "content": "A"},
    ]
    (learnt,) = encoder().supervised(example(messages), "all", Dropped())
    by_ring = Counter(learnt.rings)
    assert (by_ring[0], by_ring[2], by_ring[3]) == (1, 2, 1)
    assert by_ring[-1] == len(learnt.ids) - 4


def test_control_tokens_in_training_text_stay_characters():
    messages = [
        {"role": "user", "content": "x<|im_end|>y"},
        {"role": "assistant", "content": "z<|im_end|>"},
    ]
    (learnt,) = encoder().supervised(example(messages), "all", Dropped())
    assert learnt.ids.count(257) == 2  # one a turn, both the template's


def test_what_does_not_fit_is_dropped_and_counted_never_cut():
    dropped = Dropped()
    long = [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y"}]
    assert encoder(length=100).supervised(example(long), "all", dropped) == ()
    assert encoder().supervised(example(long[:1]), "all", dropped) == ()
    found = dropped.described()
    assert found["reasons"] == {"no reply": 1, "too long": 1}
    assert "at most 100" in found["examples"]["too long"][0]


def test_a_pair_shares_its_prompt_and_learns_only_the_replies():
    line = pair(4)
    both = encoder().preference(
        example(line["prompt"], chosen=tuple(line["chosen"]), rejected=tuple(line["rejected"])),
        Dropped(),
    )
    assert both is not None
    chosen, rejected = both
    start = chosen.mask.index(1)
    assert chosen.ids[:start] == rejected.ids[:start]
    assert set(chosen.mask[start:]) == set(rejected.mask[start:]) == {1}
    assert chosen.ids[-1] == rejected.ids[-1] == 257


def test_a_pair_of_equal_replies_teaches_nothing():
    line = pair(4)
    dropped = Dropped()
    same = tuple(line["chosen"])
    assert (
        encoder().preference(example(line["prompt"], chosen=same, rejected=same), dropped) is None
    )
    assert dropped.reasons == {"equal replies": 1}


def parts(**weights: float) -> Recipe:
    made = tuple(
        Part(name=name, weight=weight, recipes=(name,)) for name, weight in weights.items()
    )
    return Recipe(mixture=made)


def test_a_mixture_has_the_stated_proportions_and_repeats_nothing():
    recipe = parts(a=2, b=1, c=1)
    members = [0] * 100 + [1] * 20 + [2] * 30 + [None] * 5
    made = mixture(recipe, members)
    assert made.taken == (40, 20, 20)
    epoch = made.epoch(0)
    assert len(set(epoch)) == len(epoch) == 80
    assert Counter(members[number] for number in epoch) == {0: 40, 1: 20, 2: 20}


def test_equal_seeds_give_equal_epochs_and_epochs_differ():
    members = [0] * 50 + [1] * 50
    one, two = (mixture(parts(a=1, b=3), members) for _ in range(2))
    assert one.epoch(3) == two.epoch(3)
    assert one.epoch(0) != one.epoch(1)
    other = mixture(parts(a=1, b=3).model_copy(update={"seed": 5}), members)
    assert other.epoch(0) != one.epoch(0)


def test_a_part_that_would_repeat_too_often_is_refused():
    recipe = parts(a=1, b=1).model_copy(update={"examples": 100, "repeats": 2})
    with pytest.raises(InputError, match=r"mixture\.a: 50 examples are wanted and 10 are there"):
        mixture(recipe, [0] * 10 + [1] * 100)
    with pytest.raises(InputError, match=r"mixture\.b: no example"):
        mixture(recipe, [0] * 100)


def test_examples_are_as_many_as_are_asked_for_or_it_is_an_error():
    three = parts(a=8, b=1, c=1)
    members = [0] * 20 + [1] * 20 + [2] * 20
    assert sum(mixture(three.model_copy(update={"examples": 7}), members).taken) == 7
    with pytest.raises(InputError, match="examples: 2 are asked for and the mixture has 3 parts"):
        mixture(three.model_copy(update={"examples": 2}), members)
    with pytest.raises(InputError, match="examples: 2 are there without repeating"):
        mixture(three, [0] * 2 + [1] * 20 + [2] * 20)
    whole = Recipe(examples=8, repeats=4)
    assert mixture(whole, [0, 0]).taken == (8,)
    with pytest.raises(InputError, match="9 examples are wanted and 2 are there.*repeats: 4"):
        mixture(whole.model_copy(update={"examples": 9}), [0, 0])


def test_an_example_belongs_to_the_first_part_that_takes_it():
    found = (
        Part(name="a", weight=1, recipes=("x",)),
        Part(name="b", weight=1, data=("d",)),
    )
    assert parts_of(found, data="d", recipe="x", sibling="") == [0, 1]
    assert parts_of(found, data="d", recipe="y", sibling="") == [1]
    assert parts_of(found, data="e", recipe="y", sibling="") == []


def test_an_example_too_long_for_a_part_goes_to_the_next(tmp_path, synthetic):
    sources = open_sources([str(synthetic)], "sft")
    recipe = Recipe.model_validate(
        {
            "mixture": [
                {"name": "short", "weight": 1, "longest": 300},
                {"name": "long", "weight": 1, "longest": 500},
            ]
        }
    )
    made = encoded(
        sources, recipe, "sft", card(), tmp_path / "t", key="k", overlap=None, told=lambda _: None
    )
    by_part: dict[int, list[int]] = {0: [], 1: []}
    for part, length in zip(made.parts, made.lengths(), strict=True):
        by_part[int(part)].append(length)
    assert max(by_part[0]) <= 300 < min(by_part[1]) and max(by_part[1]) <= 500
    assert made.summary["dropped"]["reasons"]["in no part of the mixture"] > 0


@given(
    lengths=st.lists(st.integers(1, 64), min_size=1, max_size=60),
    packing=st.sampled_from(["packed", "grouped", "none"]),
    batch=st.integers(1, 5),
)
def test_every_example_stands_in_one_row_that_is_not_too_long(lengths, packing, batch):
    order = list(range(len(lengths)))
    made = rows(order, lengths, length=64, batch=batch, packing=packing, seed="s")
    assert sorted(number for row in made for number in row) == order
    assert all(sum(lengths[number] for number in row) <= 64 for row in made)
    again = rows(order, lengths, length=64, batch=batch, packing=packing, seed="s")
    assert made == again


def test_packing_wastes_little_and_grouping_pads_little():
    lengths = [(number * 37) % 60 + 4 for number in range(500)]
    order = list(range(500))
    packed = rows(order, lengths, length=64, batch=4, packing="packed", seed="s")
    assert sum(lengths) / (64 * len(packed)) > 0.95
    grouped = rows(order, lengths, length=64, batch=4, packing="grouped", seed="s")
    padded = sum(
        4 * max(lengths[row[0]] for row in grouped[start : start + 4]) for start in range(0, 500, 4)
    )
    assert sum(lengths) / padded > 0.93


def test_tokens_are_rendered_once_and_again_when_anything_changes(tmp_path, synthetic):
    sources = open_sources([str(synthetic)], "sft")
    recipe = Recipe()
    key = key_of(sources, recipe, "sft", card(), "")
    told: list[int] = []

    def tokens(key: str) -> store.Store:
        return encoded(
            sources, recipe, "sft", card(), tmp_path / "t", key=key, overlap=None, told=told.append
        )

    first = tokens(key)
    count = len(told)
    assert count == first.summary["read"] > 0
    assert len(first) + first.summary["dropped"]["count"] == count
    again = tokens(key)
    assert len(told) == count and list(again.ids[:50]) == list(first.ids[:50])
    for share in (1, 2):  # what is drawn of them does not change the tokens
        changed = recipe.model_copy(update={"mixture": parts(a=share).mixture})
        tokens(key_of(sources, changed, "sft", card(), ""))
    assert len(told) == 2 * count


def test_judged_lines_are_rendered_again_when_their_question_changes(tmp_path):
    line = {"messages": [{"role": "user", "content": "x"}], "reply": "y", "good": True}
    asks = tmp_path / "mine.yaml"
    write_lines(tmp_path / "judged.jsonl", [line | {"principle": str(asks)}])
    made = []
    for question in ("Is it kind?", "Is it kind?", "Is it short?"):
        options = '[{label: "Yes", value: 1}, {label: "No", value: -1}]'
        asks.write_text(
            f"name: mine\nsummary: s\nshows: conversation\nform: turn\nquestion: {question}\n"
            f"options: {options}\n",
            "utf-8",
        )
        _principle.cache_clear()
        sources = open_sources([str(tmp_path / "judged.jsonl")], "sft")
        told: list[int] = []
        key = key_of(sources, Recipe(), "sft", card(), "")
        tokens = encoded(
            sources,
            Recipe(),
            "sft",
            card(),
            tmp_path / "t",
            key=key,
            overlap=None,
            told=told.append,
        )
        made.append((bytes(tokens.ids), len(told), tokens.summary["principles"][str(asks)]))
    assert made[0] == (made[1][0], 1, made[1][2]) and made[1][1] == 0
    assert made[2][0] != made[1][0] and made[2][2] != made[1][2]


def test_a_plan_is_the_same_in_every_process_and_has_whole_steps(tmp_path, synthetic):
    sources = open_sources([str(synthetic)], "sft")
    recipe = Recipe.model_validate({"sft": {"epochs": 1.5, "rows": 2, "accumulate": 2}})
    made = encoded(
        sources, recipe, "sft", card(), tmp_path / "t", key="k", overlap=None, told=lambda _: None
    )
    one, two = (planned(made, recipe, "sft", world=2) for _ in range(2))
    assert one.rows == two.rows and one.batch == 8
    assert one.steps == -(-len(one.rows) // 8)
    assert len(one.rows) == len(made) + round(len(made) / 2)
    (mixed,) = one.mixed
    assert mixed["taken"] == len(made) and mixed["learnt"] == int((made.mask != 0).sum())


def test_a_ring_has_one_level_in_a_signal_whatever_policy_a_line_has(tmp_path):
    """Inference matches rings by their names, so training has to."""
    lines = [
        conversation(0, policy="paper"),
        conversation(1),
        conversation(2, policy="tiers(3)"),
        conversation(3, rings=["developer", "tool", "assistant"]),
    ]
    sources = open_sources([str(write_lines(tmp_path / "d.jsonl", lines))], "sft")

    def writers(recipe: Recipe, folder: str) -> tuple[store.Store, list[list[int]]]:
        made = encoded(
            sources,
            recipe,
            "sft",
            card(),
            tmp_path / folder,
            key=key_of(sources, recipe, "sft", card(), ""),
            overlap=None,
            told=lambda _: None,
        )
        rows = [made.rings[made.sequence(number)].tolist() for number in range(4)]
        return made, [list(dict.fromkeys(each for each in row if each >= 0)) for row in rows]

    made, levels = writers(Recipe(segments="blocks"), "signal")
    assert levels[0] == levels[1]
    names = made.summary["rings"]
    assert [[names[level] for level in row] for row in levels] == [
        ["system", "user", "assistant"],
        ["system", "user", "assistant"],
        ["tier 0", "tier 1", "tier 2"],
        ["developer", "tool", "assistant"],
    ]
    # Rings that no token has are known as well: a policy is used whole.
    assert {"developer", "tool", "tier 2"} <= set(names) and len(names) == len(set(names)) == 8
    # Without a signal, levels are those of each policy.
    made, levels = writers(Recipe(), "none")
    assert levels == [[0, 1, 2], [0, 2, 3], [0, 1, 2], [1, 4, 3]]
    assert made.summary["rings"] == []


def test_text_of_evaluation_data_in_training_data_is_found_and_refused(tmp_path):
    words = "the quick brown fox jumps over the lazy dog by the river"
    (tmp_path / "e").mkdir()
    write_lines(tmp_path / "e" / "e.jsonl", [{"deep": [{"text": words}]}, {"text": "other " * 9}])
    (tmp_path / "e" / "short.txt").write_text("too short\n", "utf-8")
    overlap = Overlap(tmp_path / "e")
    overlap.see(["harmless words of my own, quite a number of them in fact"])
    assert overlap.described()["share"] == 0
    refuse(overlap.described(), 0.0)
    overlap.see([f"Please note that {words.upper()}!"])
    found = overlap.described()
    assert (found["evaluation_texts"], found["evaluation_texts_shared"]) == (2, 1)
    assert (found["training_examples"], found["training_examples_shared"]) == (2, 1)
    assert found["too_short_to_tell"] == 1
    with pytest.raises(InputError, match="1 of 2 evaluation texts share 8 words"):
        refuse(found, 0.1)
    refuse(found, 0.5)


def test_evaluation_data_that_cannot_be_read_does_not_pass_for_data_without_overlap(tmp_path):
    import gzip

    (tmp_path / "README.md").write_text("Forty sheep stood on the quay and nobody asked why.\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_bytes(b"\0\xff")
    assert Overlap(tmp_path).described()["files"] == 1
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "test.parquet").write_bytes(b"PAR1\x15\x04\x00\x15")
    (tmp_path / "a" / "test.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}'))
    with pytest.raises(InputError, match=r"cannot be read here: a/test.jsonl.gz, a/test.parquet\."):
        Overlap(tmp_path)


def test_files_of_text_of_any_kind_are_compared(tmp_path):
    text = "forty sheep stood on the quay and nobody asked them why"
    (tmp_path / "items.yaml").write_text(f"prompt: {text}\n", "utf-8")
    (tmp_path / "ITEMS.JSONL").write_text(json.dumps({"text": text.replace("quay", "shore")}))
    overlap = Overlap(tmp_path)
    overlap.see([text, text.replace("quay", "shore")])
    found = overlap.described()
    assert (found["files"], found["evaluation_texts_shared"]) == (2, 2)


def test_scripts_without_spaces_are_compared_by_their_letters(tmp_path):
    chinese = "请把下面这句话翻译成英文然后告诉我它是谁写的"
    japanese = "この文章をできるだけ短く要約してください、お願いします"
    write_lines(tmp_path / "e.jsonl", [{"text": chinese}, {"text": japanese}, {"text": "你好"}])
    overlap = Overlap(tmp_path)
    overlap.see(["请把这个文件翻译成英文，谢谢", "この文章を読んで", "请把下面的话告诉我"])
    assert overlap.described()["evaluation_texts_shared"] == 0
    overlap.see([f"用户说：“{chinese}”。"])
    overlap.see([f"Bitte: {japanese}"])
    found = overlap.described()
    assert (found["evaluation_texts"], found["evaluation_texts_shared"]) == (2, 2)
    assert found["too_short_to_tell"] == 1
    words = told(found)
    assert "2 of 2 evaluation texts (1 files)" in words and "1 more are too short to tell" in words


def test_calls_and_tools_are_held_against_evaluation_data_too():
    mail = "forty sheep stood on the quay and nobody asked them why"
    call = {"function": {"name": "send", "arguments": json.dumps({"body": mail})}}
    found = example(
        [
            {"role": "user", "content": "Send it."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
        tools=({"function": {"name": "send", "description": "Sends a mail."}},),
    )
    assert {mail, "Sends a mail.", "Send it."} <= set(found.texts())


def test_the_question_of_a_judge_stands_above_all_rings_also_without_rings(tmp_path):
    line = {"messages": [{"role": "user", "content": "x"}], "reply": "<think>y</think>z"}
    write_lines(tmp_path / "judged.jsonl", [line | {"good": True}])
    (source,) = open_sources([str(tmp_path / "judged.jsonl")], "sft")
    (found,) = source.examples()
    (learnt,) = encoder().supervised(found, "last", Dropped())
    text = card().tokenizer.decode(learnt.ids)
    assert "<think>y</think>z" in text
    start = text.index("Check your last reply")
    # One token a byte and one a control token, whose text is longer.
    place = next(
        at
        for at in range(len(learnt.ids))
        if len(card().tokenizer.decode(learnt.ids[:at])) == start
    )
    assert set(learnt.rings[place : place + 50]) == {0}


def test_the_evaluation_split_of_synthesis_does_not_occur_in_its_training_split(
    tmp_path, synthetic
):
    folder = synthesised(tmp_path / "eval", split="eval", count=6)
    overlap = Overlap(folder)
    (source,) = open_sources([str(synthetic)], "sft")
    for each in source.examples():
        overlap.see(each.texts())
    assert overlap.described()["evaluation_texts_shared"] == 0


def test_of_a_judged_line_the_verdict_is_learnt_and_a_target_with_it(synthetic):
    (source,) = open_sources([str(synthetic / "judged.jsonl")], "sft")
    assert source.proof["manifest"]
    dropped = Dropped()
    verdicts, targets = Counter(), 0
    for found in source.examples():
        (learnt,) = encoder().supervised(found, "all", dropped)
        assert found.sibling == "judged"
        words = card().tokenizer.decode(
            tuple(token for token, bit in zip(learnt.ids, learnt.mask, strict=True) if bit)
        )
        *reply, verdict = words.split("<|im_end|>")[:-1]
        assert reply == ([found.messages[-3]["content"]] if found.target else [])
        targets += found.target
        verdicts[verdict] += 1
        last = learnt.mask[::-1].index(0)
        # The question stands in the highest ring, whoever wrote the conversation.
        question = len(learnt.ids) - last - 20
        assert learnt.rings[question] in (0, -1)
    # Right and wrong come in pairs, beginnings of replies too.
    assert verdicts["Yes"] == verdicts["No"] > 10 and len(verdicts) == 2
    assert 10 < targets < verdicts["Yes"]


def test_a_judge_asks_in_the_very_tokens_that_it_was_trained_on(synthetic):
    """A judge that is asked in other words than it learnt is at chance, and nothing says why."""
    asked: list[tuple[tuple[int, ...], int]] = []

    class Asked:
        card = card()

        async def logprobs(self, prompt, candidates):
            asked.append((prompt, candidates[0][0]))
            return Scores(logprobs=(-1.0, -2.0), fed=0, requests=1)

    path = synthetic / "judged.jsonl"
    items = load_items(path)

    async def ask() -> None:
        judge = await SelfJudge.open(Asked(), Principle.load("rings"))
        for item in items:
            await judge.judge(item.rendering(card()), [item.reply])

    asyncio.run(ask())
    (source,) = open_sources([str(path)], "sft")
    trained = [
        learnt
        for found in source.examples()
        for learnt in encoder().supervised(found, "last", Dropped())
    ]
    assert len(asked) == len(trained) > 100
    for (prompt, yes), learnt, item in zip(asked, trained, items, strict=True):
        start = learnt.mask.index(VERDICT)
        assert learnt.ids[:start] == prompt
        assert (learnt.ids[start] == yes) == item.good


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": [], "reply": "x", "good": True}, "needs messages"),
        ({"messages": [{"role": "user", "content": "x"}], "good": True}, "and reply"),
        (
            {"messages": [{"role": "user", "content": "x"}], "reply": "x", "good": 1},
            "good must be true or false",
        ),
        (
            {
                "messages": [{"role": "user", "content": "x"}],
                "reply": "x",
                "good": True,
                "principle": "positive",
            },
            "principle positive: only a judge that asks in a turn",
        ),
    ],
)
def test_a_judged_line_that_cannot_be_learnt_is_named(tmp_path, line, message):
    write_lines(tmp_path / "judged.jsonl", [line])
    (source,) = open_sources([str(tmp_path / "judged.jsonl")], "sft")
    with pytest.raises(InputError, match=message):
        list(source.examples())
