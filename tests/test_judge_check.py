"""The gate before a judge: its figures, its refusal, its files and what it keeps."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from fakes import VOCABULARY, scripted

from ringfence.engine import Tokens
from ringfence.engines.embedded import EmbeddedEngine
from ringfence.engines.file_stamps import stamp
from ringfence.errors import InputError
from ringfence.judge_check import (
    JudgeReport,
    cache_folder,
    check_judge,
    check_judge_once,
)
from ringfence.judged_items import JudgedItem, drawn, load_items, packaged_items
from ringfence.judges import SelfJudge, Verdict
from ringfence.principle import Principle, packaged_principles
from ringfence.rendering import Rendering

CARD = replace(scripted(lambda _: {1: 1.0}).card, stamp="weights")
CHAT = replace(CARD, template="{% for m in messages %}{{ m.content }}{% endfor %}")
WARM = Principle.model_validate(
    {
        "name": "warm",
        "summary": "The reply is warm.",
        "shows": "reply",
        "form": "continuation",
        "question": "Text: {shown}\n{options}\nAnswer: ",
        "options": [{"label": "warm", "value": 1}, {"label": "cold", "value": -1}],
        "letters": True,
        "swap": True,
    }
)


class Oracle:
    """Judges by a function of the reply, and counts how many replies it judges at once."""

    name = "oracle"
    threshold = 0.5

    def __init__(self, value, flipped: bool | None = None) -> None:
        self.value, self.flipped, self.calls, self.running, self.most = value, flipped, 0, 0, 0

    async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict]:
        import asyncio

        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return [
            Verdict(value=self.value(reply), reason="", flipped=self.flipped, fed=3, requests=2)
            for reply in replies
        ]


def items(n: int = 20) -> list[JudgedItem]:
    """Good replies are even numbers."""
    return [JudgedItem(prompt="n:", reply=str(i), good=i % 2 == 0) for i in range(n)]


def knows(reply: str) -> float:
    return 0.9 if int(reply) % 2 == 0 else -0.9


# --- figures --------------------------------------------------------------------------------


async def test_a_judge_that_knows_passes_with_all_its_figures():
    report = await check_judge(Oracle(knows, flipped=False), CARD, items())
    assert (report.n, report.positives) == (20, 10)
    assert report.auroc.estimate == report.accuracy == report.accuracy_at_zero == 1
    assert report.auroc.low > 0.7
    assert report.tpr_at_1_fpr == 1
    assert report.swap_flip_rate == 0
    assert report.lean == pytest.approx(0)
    assert report.calibration_error == pytest.approx(0.05)
    assert (report.fed, report.requests, report.judge, report.engine) == (
        3,
        2,
        "oracle",
        "scripted",
    )
    assert not report.at_chance


async def test_a_timid_judge_is_right_at_zero_and_wrong_at_its_threshold():
    report = await check_judge(Oracle(lambda reply: knows(reply) / 3), CARD, items())
    assert (report.accuracy_at_zero, report.accuracy) == (1, 0.5)
    assert report.swap_flip_rate is None


async def test_the_lean_of_a_judge_that_likes_everything_is_not_hidden_by_uneven_items():
    many = [*items(), *[JudgedItem(prompt="n:", reply="1", good=False)] * 50]
    report = await check_judge(Oracle(lambda reply: 0.5 + knows(reply) / 3), CARD, many)
    assert report.lean == pytest.approx(0.5)


@pytest.mark.parametrize("value", [lambda _: 0.3, lambda reply: -knows(reply)])
async def test_a_judge_at_chance_or_worse_is_refused_with_figures_and_the_way_out(value):
    report = await check_judge(Oracle(value, flipped=True), CARD, items())
    assert report.at_chance
    words = r"AUROC 0\.[05].*95 %.*20 labelled.*100%.*Use a larger model"
    assert re.search(words, report.refusal())


async def test_a_model_that_likes_the_letter_a_is_refused():
    def letter_lover(prefix: Tokens) -> Mapping[int, float]:
        return {ord("A"): 0.8, ord("B"): 0.2}

    engine = scripted(letter_lover)
    judge = await SelfJudge.open(engine, WARM)
    report = await check_judge(judge, engine.card, items())
    assert report.at_chance
    assert report.swap_flip_rate == 1
    assert "100% of its answers change when the options are swapped" in report.refusal()


async def test_items_are_judged_a_bounded_batch_at_a_time_with_progress():
    judge, seen = Oracle(knows), []
    await check_judge(judge, CARD, items(), batch=6, progress=lambda *at: seen.append(at))
    assert judge.most == 6
    assert seen == [(6, 20), (12, 20), (18, 20), (20, 20)]


async def test_a_judge_cannot_be_measured_on_one_kind():
    with pytest.raises(InputError, match="both kinds"):
        await check_judge(Oracle(knows), CARD, [item for item in items() if item.good])


async def test_messages_on_a_model_without_a_chat_template_name_the_item():
    chat = JudgedItem(prompt=({"role": "user", "content": "Hi"},), reply="2", good=True)
    with pytest.raises(InputError, match=r"item 21: .*no chat template"):
        await check_judge(Oracle(knows), CARD, [*items(), chat])


# --- files ----------------------------------------------------------------------------------


def write(folder, *lines: str):
    file = folder / "items.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


GOOD = '{"prompt": "The film", "reply": " shines\u2028on", "good": true}'
BAD = '{"messages": [{"role": "user", "content": "Well?"}], "reply": "Bad.", "good": false}'


def test_items_load_from_raw_prompts_and_messages(tmp_path):
    good, bad = load_items(write(tmp_path, GOOD, "", BAD))
    assert (good.prompt, good.reply, good.good) == ("The film", " shines\u2028on", True)
    assert bad.prompt == ({"role": "user", "content": "Well?"},)
    assert good.rendering(CARD).tokens == VOCABULARY.encode("The film")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must be an object"),
        ('{"prompt": "a", "reply": "b"}', "good must be true or false"),
        ('{"prompt": "a", "reply": "b", "good": 1}', "good must be true or false, not 1"),
        ('{"prompt": "a", "good": true}', "reply must be text"),
        ('{"prompt": "", "reply": "b", "good": true}', "prompt must be text and not empty"),
        ('{"reply": "b", "good": true}', "either prompt or messages"),
        ('{"prompt": "a", "messages": [], "reply": "b", "good": true}', "either prompt or mess"),
        ('{"messages": "a", "reply": "b", "good": true}', "messages must be a list"),
        ('{"messages": [], "tools": 5, "reply": "b", "good": true}', "tools must be a list"),
        ("[" * 100_000, "not valid JSON"),
        ('{"messages": [], "reply": "b", "good": true}', "conversation is empty"),
        (
            '{"messages": [{"role": "god", "content": "x"}], "reply": "b", "good": true}',
            r"messages\[0\]\.role: unknown role 'god'",
        ),
        ('{"prompt": "a", "reply": "b", "good": true, "label": 1}', "unknown field 'label'"),
    ],
)
def test_a_broken_line_is_named_with_file_line_and_field(tmp_path, line, expected):
    with pytest.raises(InputError, match=rf"items\.jsonl, line 3: .*{expected}"):
        load_items(write(tmp_path, GOOD, BAD, line))


def test_a_file_with_one_kind_or_nothing_is_refused(tmp_path):
    for lines in ([GOOD], [BAD], []):
        with pytest.raises(InputError, match=r"items\.jsonl: needs at least one item with good"):
            load_items(write(tmp_path, *lines))


def test_a_missing_file_and_one_that_is_not_text_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.jsonl: there is no such file"):
        load_items(tmp_path / "nothing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(InputError, match=r"latin\.jsonl: cannot be read as UTF-8"):
        load_items(tmp_path / "latin.jsonl")


@pytest.mark.parametrize("name", packaged_principles())
def test_every_packaged_principle_has_a_check_set_of_both_kinds(name):
    checks = packaged_items(name)
    goods = sum(item.good for item in checks)
    assert len(checks) >= 60
    assert 0.4 <= goods / len(checks) <= 0.6
    assert len({(str(item.prompt), item.reply) for item in checks}) == len(checks)


def test_a_check_set_shares_no_sentence_with_the_examples_of_its_principle():
    for name in packaged_principles():
        texts = [f"{item.prompt}{item.reply}" for item in packaged_items(name)]
        for example in Principle.load(name).examples:
            assert not any(example.shown in text for text in texts)


def test_a_principle_without_a_check_set_says_what_to_give():
    with pytest.raises(InputError, match=r"'mine'.*positive.*--data FILE"):
        packaged_items("mine")


def lines_of_cases() -> list[dict[str, object]]:
    return [
        {
            "messages": [{"role": "user", "content": f"{recipe} {number}"}],
            "reply": str(number),
            "good": number % 2 == 0,
            "recipe": recipe,
            "sibling": ("aligned", "conflict")[number // 2 % 2],
            "expected": "follow-all",
            "begun": number >= 20,
        }
        for recipe, count in (("conflict", 40), ("tiers", 400))
        for number in range(count)
    ]


async def test_items_of_cases_are_also_measured_part_by_part(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines_of_cases()))
    report = await check_judge(Oracle(knows), CHAT, load_items(file))
    found = {(part.by, part.value): part for part in report.parts}
    assert [found["recipe", name].n for name in ("conflict", "tiers")] == [40, 400]
    assert found["begun", "false"].n == 40 and found["begun", "true"].n == 400
    assert found["sibling", "aligned"].positives == found["sibling", "aligned"].n / 2
    assert all(part.auroc and part.auroc.estimate == 1 for part in report.parts)
    assert JudgeReport.from_json(json.loads(json.dumps(report.to_json()))) == report


async def test_a_part_without_bad_items_has_no_auroc(tmp_path):
    line = {"reply": "2", "good": True, "messages": [{"role": "user", "content": "a"}]}
    some = [{**line, "recipe": "one"}, {**line, "recipe": "two", "reply": "1", "good": False}]
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in some))
    report = await check_judge(Oracle(knows), CHAT, load_items(file))
    assert [part.auroc for part in report.parts] == [None, None]
    assert JudgeReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_draw_takes_all_sorts_in_turn(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines_of_cases()))
    every = load_items(file)
    some = drawn(every, 32)
    assert some == drawn(every, 32) != drawn(every, 32, seed=1)
    sorts = Counter((item.about["recipe"], item.about["sibling"], item.good) for item in some)
    assert set(sorts.values()) == {4}
    assert Counter(map(repr, drawn(every, 10_000))) == Counter(map(repr, every))
    assert [item.good for item in drawn(every, 4)] == [
        item.good for item in drawn(every, 4)[:2]
    ] * 2
    assert {item.good for item in drawn(every, 2)} == {True, False}
    with pytest.raises(InputError, match="--limit 1: must be at least 2"):
        drawn(every, 1)


# --- kept reports ---------------------------------------------------------------------------


async def test_a_report_survives_json():
    report = await check_judge(Oracle(knows), CARD, items())
    assert JudgeReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    with pytest.raises(InputError, match="not a judge report"):
        JudgeReport.from_json({"n": 3})


async def test_the_same_check_is_not_done_twice(tmp_path):
    first, second = Oracle(knows), Oracle(knows)
    report = await check_judge_once(first, WARM, CARD, items(), folder=tmp_path)
    again = await check_judge_once(second, WARM, CARD, items(), folder=tmp_path)
    assert (first.calls, second.calls) == (20, 0)
    assert again == report
    assert len(list(tmp_path.iterdir())) == 1


async def test_another_principle_engine_or_item_is_another_check(tmp_path):
    await check_judge_once(Oracle(knows), WARM, CARD, items(), folder=tmp_path)
    colder = WARM.model_copy(update={"threshold": 0.1})
    for principle, card, some in [
        (colder, CARD, items()),
        (WARM, replace(CARD, name="other"), items()),
        (WARM, replace(CARD, stamp="trained again"), items()),
        (WARM, replace(CARD, template="{{ messages }}"), items()),
        (WARM, replace(CARD, bos="<s>"), items()),
        (WARM, replace(CARD, eos="</s>"), items()),
        (WARM, CARD, items(18)),
    ]:
        judge = Oracle(knows)
        await check_judge_once(judge, principle, card, some, folder=tmp_path)
        assert judge.calls == len(some)


async def test_nothing_is_kept_of_a_server_which_may_serve_another_model_tomorrow(tmp_path):
    server = replace(CARD, stamp="")
    for _ in range(2):
        judge = Oracle(knows)
        await check_judge_once(judge, WARM, server, items(), folder=tmp_path)
        assert judge.calls == 20
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", '{"n": 1}', "\x00"])
async def test_a_broken_kept_report_is_done_again(tmp_path, broken):
    await check_judge_once(Oracle(knows), WARM, CARD, items(), folder=tmp_path)
    [file] = tmp_path.iterdir()
    file.write_text(broken)
    judge = Oracle(knows)
    report = await check_judge_once(judge, WARM, CARD, items(), folder=tmp_path)
    assert judge.calls == 20
    assert JudgeReport.from_json(json.loads(file.read_text())) == report


async def test_a_folder_that_cannot_be_written_only_costs_the_cache(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below"
    report = await check_judge_once(Oracle(knows), WARM, CARD, items(), folder=folder)
    assert report.n == 20


def test_reports_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ringfence"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(cache_folder()) == "/home/somebody/.cache/ringfence"


def test_a_stamp_tells_files_from_others_of_the_same_name(tmp_path):
    folders = [tmp_path / "a" / "adapter", tmp_path / "b" / "adapter"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "weights").write_text("1")
    first = stamp(folders[0], None)
    assert first == stamp(folders[0]) != stamp(folders[1])
    os.utime(folders[0] / "weights", ns=(1, 1))
    moved = stamp(folders[0])
    (folders[0] / "weights").write_text("12")
    os.utime(folders[0] / "weights", ns=(1, 1))
    assert len({first, moved, stamp(folders[0])}) == 3
    assert stamp(folders[0]) != stamp(folders[0], folders[1]) != stamp(folders[1])


# --- the real model -------------------------------------------------------------------------


@pytest.mark.model
async def test_positive_passes_its_check_on_the_packaged_model(embedded: EmbeddedEngine):
    judge = await SelfJudge.open(embedded, Principle.load("positive"))
    report = await check_judge(judge, embedded.card, packaged_items("positive"))
    assert not report.at_chance
    assert report.auroc.estimate > 0.9
    assert report.requests == 1


@pytest.mark.model
@pytest.mark.slow
async def test_harmless_is_refused_on_the_packaged_model(embedded: EmbeddedEngine):
    judge = await SelfJudge.open(embedded, Principle.load("harmless"))
    # All of them: of two dozen, rounding on another processor makes skill of noise.
    report = await check_judge(judge, embedded.card, packaged_items("harmless"))
    assert report.at_chance
