"""Preferences from a model's own failures, with a scripted model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_templates import card as templated
from training_parts import TEMPLATE, card, read_lines, synthesised
from typer.testing import CliRunner

import ringfence.engines
from ringfence.cli import app
from ringfence.commandline.pairing import Job
from ringfence.engine import Draft, EngineCard, Sampling, Scores, Tokens
from ringfence.errors import EngineError, InputError
from ringfence.graders import grade, parse_grader
from ringfence.rendering import render
from ringfence.rings import Conversation
from ringfence.synthesis.case import Case
from ringfence.training.encoding import Dropped, Encoder
from ringfence.training.pairs import Sampled, _made_of, pairs
from ringfence.training.pairs_folder import Folder
from ringfence.training.sources import open_sources
from ringfence.vocabulary import Vocabulary


def tokens_of(text: str, shown: EngineCard) -> Tokens:
    """With the control tokens that a model writes."""
    control = shown.tokenizer.control
    parts = re.split("(" + "|".join(map(re.escape, control)) + ")", text)
    encode = shown.tokenizer.encode
    return tuple(
        token
        for part in parts
        for token in ((control[part],) if part in control else encode(part) if part else ())
    )


class Parrot:
    """Says lines in turn; the last of each call is cut off. Fails after some calls."""

    def __init__(
        self, lines: list[str], fails_after: int = 10**9, shown: EngineCard | None = None
    ) -> None:
        self.lines, self.left, self.calls = lines, fails_after, 0
        self.card = shown or card(length=100_000)

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        self.calls += 1
        if self.calls > self.left:
            raise EngineError("gone")
        made = []
        for number in range(count):
            tokens = tokens_of(self.lines[number % len(self.lines)], self.card)
            made.append(
                Draft(tokens=tokens, logprobs=(0.0,) * len(tokens), finished=number < count - 1)
            )
        return made

    async def logprobs(self, prefix: Tokens, continuations: object) -> Scores:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The second case of closed-domain takes another wrong reply than its own.
    recipes = ("conflict", "over-refusal", "closed-domain")
    return synthesised(tmp_path_factory.mktemp("pairs") / "data", count=9, recipes=recipes)


async def made(engine: Parrot, data: Path, out: Path, *, resume: bool = False) -> int:
    folder = Folder(data, out, {"of": "parrot"})
    finished = folder.open(resume=resume, force=False)
    try:
        async for number in pairs(engine, folder, Sampled(samples=3), finished, concurrency=2):
            finished = number
    finally:
        folder.close()
    return finished


def graders(data: Path) -> dict[str, object]:
    cases = read_lines(data / "cases.jsonl")
    return {
        f"{case['id']}/{name}": parse_grader(sibling["grader"])
        for case in cases
        for name, sibling in case["siblings"].items()
    }


async def test_every_rejected_reply_is_the_models_own_and_fails_and_every_chosen_one_passes(
    data, tmp_path
):
    await made(Parrot(["blah", "I will not.", "cut"]), data, tmp_path / "out")
    lines = read_lines(tmp_path / "out" / "preferences.jsonl")
    checks = graders(data)
    assert lines
    for line in lines:
        assert "-train-" in line["id"]
        assert line["rejected"][0]["content"] in ("blah", "I will not.")
        assert not grade(checks[line["id"]], line["rejected"][0]["content"]).passed
        assert line["chosen_by"] == "code" and line["rejected_by"] == "model"
        assert grade(checks[line["id"]], line["chosen"][0]["content"]).passed
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["job"]["split"] == "train"
    assert manifest["counts"]["replies cut off"] == manifest["counts"]["replies"] // 3


async def test_a_passing_reply_of_the_model_is_preferred_to_the_target(data, tmp_path):
    case = next(case for case in read_lines(data / "cases.jsonl") if case["split"] == "train")
    target = case["siblings"]["reference"]["target"]
    await made(Parrot([target + " ", "blah", "cut"]), data, tmp_path / "out")
    lines = read_lines(tmp_path / "out" / "preferences.jsonl")
    own = [line for line in lines if line["chosen_by"] == "model"]
    assert f"{case['id']}/reference" in {line["id"] for line in own}
    assert all(line["chosen"][0]["content"] == target.strip() for line in own)


def opened() -> EngineCard:
    """Its header opens the thought, as in Qwen 3.5."""
    shown = templated("qwen3")
    before, header, after = (shown.template or "").rpartition("<|im_start|>assistant\\n")
    return replace(shown, template=f"{before}{header}<think>\\n{after}")


HARMONY = "<|channel|>analysis<|message|>blah<|end|><|start|>assistant<|channel|>final<|message|>"
THINKERS = {
    "qwen3": (templated("qwen3"), "<think>\nblah\n</think>\n\n"),
    "not thinking": (templated("qwen3"), ""),
    "opened by the header": (opened(), "blah\n</think>\n\n"),
    "glm4moe": (templated("glm4moe"), "\n<think>blah</think>\n"),
    "deepseekv3": (templated("deepseekv3"), "blah</think>"),
    "no reasoning": (templated("chatml"), "<think>blah</think>"),
    "gptoss": (templated("gptoss"), HARMONY),
    "gptoss at once": (templated("gptoss"), "<|channel|>final<|message|>"),
}


# Their headers begin a thought, and they write none before replies that they are given.
OPENED = ("opened by the header", "deepseekv3")


@pytest.mark.parametrize("name", THINKERS)
async def test_what_is_thought_before_a_reply_is_neither_graded_nor_kept(data, tmp_path, name):
    case = next(case for case in read_lines(data / "cases.jsonl") if case["split"] == "train")
    target = case["siblings"]["reference"]["target"]
    shown, thought = THINKERS[name]
    said = [thought + target, thought + "blah", thought + "cut"]
    await made(Parrot(said, shown=shown), data, tmp_path / "out")
    lines = read_lines(tmp_path / "out" / "preferences.jsonl")
    (own,) = (line for line in lines if line["id"] == f"{case['id']}/reference")
    assert own["chosen_by"] == "model" and own["chosen"][0]["content"] == target.strip()
    assert {line["rejected"][0]["content"] for line in lines} <= {target.strip(), "blah"}
    # No thought stands against none, nor is it learnt that nothing was thought.
    (source,) = open_sources([str(tmp_path / "out")], "dpo")
    encoder = Encoder(card=shown, policies={}, length=100_000)
    for example in source.examples():
        dropped = Dropped()
        both = encoder.preference(example, dropped)
        assert both is not None, dropped.described()
        said = [line[0]["content"] for line in (example.chosen, example.rejected)]
        for learnt, reply in zip(both, said, strict=True):
            start = learnt.mask.index(1)
            assert shown.tokenizer.decode(learnt.ids[start:]).lstrip().startswith(reply)
            prompt = render(Conversation.of(example.messages, "harmony", example.rings), shown)
            assert name in OPENED or learnt.ids[: len(prompt.tokens)] == prompt.tokens


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("qwen3", "<think>\nblah"),
        ("opened by the header", "blah"),
        ("gptoss", "<|channel|>analysis<|message|>blah"),
        ("gptoss", " to=functions.f<|channel|>commentary json<|message|>{}"),
    ],
)
async def test_a_reply_that_ends_in_its_thought_is_cut_off(data, tmp_path, name, reply):
    await made(Parrot([reply], shown=THINKERS[name][0]), data, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    counts = manifest["counts"]
    assert counts["replies cut off"] == counts["replies"] > 0
    assert read_lines(tmp_path / "out" / "preferences.jsonl") == []


@pytest.mark.parametrize("opening", ["[THINK]", "<|START_THINKING|>", "<|channel|>"])
async def test_thoughts_that_a_template_does_not_know_are_refused(data, tmp_path, opening):
    control = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", opening)
    shown = replace(
        card(length=100_000), tokenizer=Vocabulary.characters(control), template=TEMPLATE
    )
    with pytest.raises(InputError, match="does not tell from the answer"):
        await made(Parrot([f"{opening}hm, yes"], shown=shown), data, tmp_path / "out")


async def test_pairs_are_training_data_with_a_proof(data, tmp_path):
    await made(Parrot(["blah"]), data, tmp_path / "out")
    (source,) = open_sources([str(tmp_path / "out")], "dpo")
    assert source.proof["manifest"] and source.proof["split"] == "train"
    assert len(list(source.examples())) > 5


async def test_a_run_cut_short_goes_on_and_ends_in_the_same_file(data, tmp_path):
    await made(Parrot(["blah"]), data, tmp_path / "whole")
    with pytest.raises(EngineError):
        await made(Parrot(["blah"], fails_after=12), data, tmp_path / "cut")
    partial = tmp_path / "cut" / "preferences.jsonl.partial"
    done = len(partial.read_bytes().splitlines()) - 1
    assert done > 0
    with partial.open("ab") as file:
        file.write(b'{"case": "torn')
    engine = Parrot(["blah"])
    await made(engine, data, tmp_path / "cut", resume=True)
    whole, cut = (tmp_path / name / "preferences.jsonl" for name in ("whole", "cut"))
    assert cut.read_bytes() == whole.read_bytes()
    assert not partial.exists()


async def test_a_judge_learns_from_the_same_replies(data, tmp_path):
    await made(Parrot(["blah", "cut"]), data, tmp_path / "out")
    pairs = read_lines(tmp_path / "out" / "preferences.jsonl")
    lines = read_lines(tmp_path / "out" / "judged.jsonl")
    said = [
        (pair["id"], pair["prompt"], pair[kind][0]["content"])
        for pair in pairs
        for kind in ("chosen", "rejected")
        if not pair["chosen"][0].get("tool_calls")
    ]
    assert said == [(line["id"], line["messages"], line["reply"]) for line in lines]
    assert [line["good"] for line in lines] == [True, False] * (len(lines) // 2)
    (source,) = open_sources([str(tmp_path / "out" / "judged.jsonl")], "sft")
    assert source.proof["manifest"] and all(example.verdict for example in source.examples())


async def test_another_job_does_not_go_on_with_the_file(data, tmp_path):
    with pytest.raises(EngineError):
        await made(Parrot(["blah"], fails_after=12), data, tmp_path / "cut")
    folder = Folder(data, tmp_path / "cut", {"of": "another"})
    with pytest.raises(InputError, match="another job"):
        folder.open(resume=True, force=False)
    folder.close()
    with pytest.raises(InputError, match="--resume goes on"):
        Folder(data, tmp_path / "cut", {"of": "parrot"}).open(resume=False, force=False)


def command(data: Path, out: Path, **more: Any) -> Job:
    settings: dict[str, Any] = {
        "model": "embedded",
        "data": data,
        "out": out,
        "samples": 3,
        "max_tokens": 96,
        "temperature": 1.0,
        "seed": 0,
        "adapter": None,
        "limit": None,
        "concurrency": 1,
    }
    return Job(**(settings | more))


def test_another_adapter_of_the_same_name_is_another_job(data, tmp_path):
    folders = [tmp_path / number / "sft" for number in ("one", "two", "three")]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_bytes(b"same" if number < 2 else b"other")
    one, two, three = (
        command(data, tmp_path / "o", adapter=str(folder)).described() for folder in folders
    )
    assert one == two != three
    one, _, three = (
        command(data, tmp_path / "o", model=str(folder)).described() for folder in folders
    )
    assert one != three and "sft" in json.dumps(one)
    files = [folder.with_suffix(".gguf") for folder in folders]
    for number, file in enumerate(files):
        file.write_bytes(b"same" if number < 2 else b"other")
    one, two, three = (
        command(data, tmp_path / "o", model=f"embedded:{file}").described() for file in files
    )
    assert one == two != three and one["model"]["name"] == "sft.gguf"
    with pytest.raises(InputError, match="nowhere does not exist"):
        command(data, tmp_path / "o", adapter="nowhere").described()


async def test_only_the_job_that_is_finished_is_called_finished(data, tmp_path, capsys):
    out = tmp_path / "out"
    folder = Folder(data, out, command(data, out).described())
    finished = folder.open(resume=False, force=False)
    async for _ in pairs(Parrot(["blah"]), folder, Sampled(samples=3), finished, concurrency=1):
        pass
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    command(data, out).do(resume=True, force=False, as_json=False)
    assert f"{out}: is finished" in capsys.readouterr().err
    with pytest.raises(InputError, match="another job: samples was 3, now 9"):
        command(data, out, samples=9).do(resume=True, force=False, as_json=False)
    (out / "manifest.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match="not made by ringfence"):
        command(data, out).do(resume=True, force=False, as_json=False)
    # A second run that replaces the first is not finished because the first was.
    (out / "manifest.json").write_bytes(before["manifest.json"])
    begun = Folder(data, out, command(data, out).described())
    assert begun.open(resume=False, force=True) == 0 and not begun.finished()
    begun.close()


def test_a_start_that_failed_is_in_nobodys_way(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(EngineError):
        command(data, out, model="embedded:nope.gguf").do(resume=False, force=False, as_json=False)
    assert not out.exists()

    async def open_engine(spec, **options):
        return Parrot(["blah"])

    monkeypatch.setattr(ringfence.engines, "open_engine", open_engine)
    command(data, out).do(resume=False, force=False, as_json=False)
    assert (out / "manifest.json").exists()


def test_pairs_tell_the_chat_template_what_they_are_told(data, tmp_path, monkeypatch):
    asked: dict[str, Any] = {}

    async def open_engine(spec, **options):
        asked.update(options)
        return Parrot(["blah"])

    monkeypatch.setattr(ringfence.engines, "open_engine", open_engine)
    told = {"template_options": {"enable_thinking": False}}
    plain, made = command(data, tmp_path / "o"), command(data, tmp_path / "o", **told)
    made.do(resume=False, force=False, as_json=False)
    assert asked == told
    assert "template_options" not in plain.described()
    with pytest.raises(InputError, match="another job"):
        plain.do(resume=True, force=False, as_json=False)
    words = [*("train", "pairs", "--model", "embedded", "--data", data), *("--out", tmp_path / "p")]
    words += ["--template-option", "enable_thinking=false"]
    asked.clear()
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    assert asked == told


def test_cases_for_evaluation_are_refused(tmp_path):
    data = synthesised(tmp_path / "eval", split="eval", count=3)
    with pytest.raises(InputError, match="for evaluation"):
        Folder(data, tmp_path / "out", {})


@pytest.mark.parametrize("force", [False, True])
async def test_data_is_not_replaced_by_what_is_made_of_it(data, force):
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    with pytest.raises(InputError, match="did not write; nothing there is touched"):
        Folder(data, data, {"of": "parrot"}).open(resume=False, force=force)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def test_a_stand_in_policy_knows_the_ring_of_the_reply(tmp_path):
    folder = synthesised(tmp_path / "t", split="train", count=3, recipes=("tiers",))
    for line in read_lines(folder / "cases.jsonl"):
        case = Case.model_validate(line)
        policy = _made_of(case, case.siblings["reference"].messages)
        assert policy.ring_of("assistant").name == case.reply_ring
