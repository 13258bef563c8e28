"""The provider and the tasks: what Inspect asks for is done, and what is done is in its log."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")

import evaluation_parts as parts
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    GenerateConfig,
    ModelName,
    ModelOutput,
)
from inspect_ai.scorer import SampleScore, Score, Target
from inspect_ai.solver import TaskState
from inspect_ai.tool import ToolCall, ToolInfo

from ringfence.errors import EngineError, InputError
from ringfence.evaluation import calls, conversations
from ringfence.evaluation.baseline import paragraph
from ringfence.evaluation.engines import ENGINES
from ringfence.evaluation.names import parse
from ringfence.evaluation.provider import RingfenceAPI
from ringfence.evaluation.tasks import count, graded, rate
from ringfence.suites import suite

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
async def scripted(monkeypatch):
    monkeypatch.setattr(ENGINES, "opener", parts.open_scripted)
    parts.OPENED.clear()
    yield
    await ENGINES.aclose()


async def ask(name: str, text: str = "Say 1.", tools=(), choice="auto", **config):
    api = RingfenceAPI(name)
    messages = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content=text)]
    return await api.generate(messages, list(tools), choice, GenerateConfig(**config))


async def test_a_reply_carries_its_whole_account():
    output = await ask("embedded", max_tokens=20)
    assert output.completion == "Say 1."
    assert output.stop_reason == "stop"
    account = output.metadata["ringfence"]
    assert account["reason"] == "stop" and account["decoder"] == "plain"
    assert account["cost"]["committed"] == 6 == output.usage.output_tokens
    assert output.usage.total_tokens == output.usage.input_tokens + 6
    [engine] = parts.OPENED
    assert engine.samplings[0].temperature == 0


async def test_a_reply_cut_by_length_says_so():
    output = await ask("embedded", max_tokens=3)
    assert (output.completion, output.stop_reason) == ("Say", "max_tokens")


async def test_options_of_the_request_are_honoured_and_those_of_the_name_win():
    await ask("embedded", temperature=0.5, top_p=0.9, top_k=3, seed=4, stop_seqs=["y"])
    sampling = parts.OPENED[0].samplings[0]
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 3)
    assert (await ask("embedded", stop_seqs=["y"])).completion == "Sa"
    assert (await ask("embedded?max_tokens=2", max_tokens=9)).completion == "Sa"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"num_choices": 2}, "num_choices"),
        ({"logprobs": True}, "logprobs"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"temperature": 11}, "temperature"),
        ({"extra_body": {"x": 1}}, "extra_body.x"),
        ({"extra_body": {"ringfence": {"choice": []}}}, "extra_body.ringfence"),
        ({"extra_body": {"ringfence": {"choices": [""]}}}, "empty text"),
    ],
)
async def test_what_cannot_be_honoured_is_named(config, words):
    with pytest.raises(InputError, match=words):
        await ask("embedded", **config)


async def test_choices_are_scored_as_continuations_of_the_prompt():
    body = {"ringfence": {"choices": ["Say 1.", "z"]}}
    output = await ask("embedded", extra_body=body)
    (first, tokens), (second, _) = json.loads(output.completion)
    assert tokens == 6
    assert first == pytest.approx(6 * math.log(0.9))
    assert second == pytest.approx(math.log(0.1))


async def test_a_refusal_is_a_content_filter(monkeypatch):
    from fakes import hates

    async def judge(self, principle):
        return hates()

    monkeypatch.setattr("ringfence.evaluation.engines.Place.judge", judge)
    output = await ask("embedded?decoder=best-of-n&principle=rings&n=2")
    assert output.stop_reason == "content_filter"
    assert output.metadata["ringfence"]["reason"] == "refused"
    assert output.metadata["ringfence"]["value"] == -1
    assert output.error


async def test_graders_are_told_why_a_reply_ended():
    item = next(one for one in suite("over-refusal").items() if one.kind == "xstest/unsafe")
    message = ChatMessageAssistant(content="")
    found = {}
    for reason in ("refused", "stop"):
        state = TaskState(
            model=ModelName("none/none"), sample_id=item.id, epoch=0, input="", messages=[]
        )
        state.metadata |= {"suite": "over-refusal", "cluster": "c", "grading": item.grading}
        state.output = ModelOutput(
            choices=[ChatCompletionChoice(message=message)],
            metadata={"ringfence": {"reason": reason}},
        )
        found[reason] = (await graded()(state, Target(""))).value["contrast-refused"]
    assert found == {"refused": 1, "stop": 0}


async def test_models_of_one_engine_share_it_and_closing_closes_it():
    await ask("embedded")
    await ask("embedded?max_tokens=3")
    assert len(parts.OPENED) == 1
    await ask("embedded?threads=1")
    assert len(parts.OPENED) == 2
    await RingfenceAPI("embedded").aclose()
    assert [engine.closed for engine in parts.OPENED] == [True, False]


async def test_another_model_judges_and_is_shared_like_any_other(monkeypatch):
    from fakes import hates

    asked = []

    async def open_judge(engine, principle):
        asked.append(engine)
        return hates()

    monkeypatch.setattr("ringfence.evaluation.engines.SelfJudge.open", open_judge)
    name = "embedded?principle=rings&decoder=best-of-n&n=2&judge=embedded%3Fthreads%3D1"
    for _ in range(2):
        assert (await ask(name)).metadata["ringfence"]["value"] == -1
    assert len(parts.OPENED) == 2
    [judging] = asked
    assert not judging.prompts, "it drafts nothing"
    await ask("embedded?threads=1")
    assert len(parts.OPENED) == 2, "a model that judges may reply as well"
    await RingfenceAPI(name).aclose()
    assert all(engine.closed for engine in parts.OPENED)


async def test_an_engine_that_does_not_open_is_tried_again_by_the_next_request(monkeypatch):
    async def broken(spec, **options):
        raise EngineError("no.")

    monkeypatch.setattr(ENGINES, "opener", broken)
    with pytest.raises(EngineError):
        await ask("embedded")
    assert not RingfenceAPI("embedded").should_retry(EngineError("no."))
    monkeypatch.setattr(ENGINES, "opener", parts.open_scripted)
    assert (await ask("embedded")).completion


async def test_a_judge_that_does_not_open_is_tried_again_by_the_next_request(monkeypatch):
    from fakes import hates

    answers = [EngineError("503 once."), hates()]

    async def open_judge(engine, principle):
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr("ringfence.evaluation.engines.SelfJudge.open", open_judge)
    name = "embedded?principle=rings&decoder=best-of-n&n=2"
    with pytest.raises(EngineError, match="503 once"):
        await ask(name)
    assert (await ask(name)).metadata["ringfence"]["value"] == -1


async def test_the_prompt_only_baseline_stands_at_the_front_of_the_system_message():
    await ask("embedded?prompt-only=true")
    await ask("embedded")
    with_it, without = parts.OPENED[0].prompts
    assert f"<|im_start|>system\n{paragraph()}\n\nBe brief.<|im_end|>" in with_it
    assert paragraph() not in without
    api = RingfenceAPI("embedded?prompt-only=true")
    await api.generate([ChatMessageUser(content="Hi")], [], "auto", GenerateConfig())
    assert f"system\n{paragraph()}<|im_end|>" in parts.OPENED[0].prompts[-1]


WEATHER = ToolInfo(name="weather", description="Tells it.")


async def test_calls_in_a_reply_come_out_as_calls_and_the_raw_reply_stays():
    text = '<tool_call>{"name": "weather", "arguments": {"at": "Bonn"}}</tool_call>'
    found, made = calls.found(f"Well. {text}", ["weather"])
    assert found == "Well."
    assert made[0].name == "weather" and made[0].parsed == {"at": "Bonn"}
    assert calls.found(text, ["mail"]) == (text, ())
    assert calls.found(text, []) == (text, ())
    bare = '{"name": "weather", "parameters": {"at": "Bonn"}}'
    assert calls.found(bare, ["weather"])[1][0].parsed == {"at": "Bonn"}
    twice = '{"name": "weather", "name": "weather"}'
    assert calls.found(twice, ["weather"]) == (twice, ())
    deep = "<tool_call>" + "[" * 10_000 + "</tool_call>"
    assert calls.found(deep, ["weather"]) == (deep, ())
    with pytest.raises(InputError, match="tool_choice"):
        await ask("embedded", tools=[WEATHER], choice="any")


def test_messages_go_to_inspect_and_back_with_their_rings():
    messages = [
        {"role": "system", "content": "S"},
        {"role": "developer", "content": "D"},
        {"role": "user", "content": "U"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "content": "T", "tool_call_id": "1", "name": "f"},
    ]
    there = conversations.to_inspect(messages)
    assert conversations.from_inspect(there) == messages
    made = conversations.conversation(there, [], parse("embedded"))
    names = [message.ring.name for message in made.messages]
    assert names == ["system", "developer", "user", "assistant", "tool"]
    ringed = conversations.to_inspect(messages[:1], ["user"])
    made = conversations.conversation(ringed, [], parse("embedded"))
    assert made.messages[0].ring.name == "user"
    tiered = conversations.to_inspect(messages[:1], ["tier 3"], "tiers(5)")
    made = conversations.conversation(tiered, [], parse("embedded"))
    assert (made.messages[0].ring.name, made.messages[0].ring.level) == ("tier 3", 3)


def test_what_cannot_be_rendered_is_named():
    picture = ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AAAA")])
    with pytest.raises(InputError, match=r"messages\[0\].content: image"):
        conversations.conversation([picture], [], parse("embedded"))
    message = ChatMessageUser(content="x", metadata={"ring": "root"})
    with pytest.raises(InputError, match=r"messages\[0\].ring: .*root"):
        conversations.conversation([message], [], parse("embedded"))
    with pytest.raises(InputError, match=r"messages\[1\].role: 'robot'"):
        conversations.to_inspect([{"role": "user", "content": ""}, {"role": "robot"}])


def test_tools_and_their_results_reach_the_rendering():
    there = [
        ChatMessageUser(content="Weather?"),
        ChatMessageAssistant(
            content="", tool_calls=[ToolCall(id="c", function="weather", arguments={})]
        ),
        ChatMessageTool(content="Rain.", tool_call_id="c", function="weather"),
    ]
    made = conversations.conversation(there, [WEATHER], parse("embedded"))
    assert made.tools[0]["function"]["name"] == "weather"
    assert made.messages[1].tool_calls[0].name == "weather"
    assert made.messages[2].tool_call_id == "c"
    described = conversations.definitions(conversations.tool_infos(made.tools))
    assert described == list(made.tools)


def test_metrics_leave_out_what_does_not_apply():
    scores = [SampleScore(score=Score(value=value)) for value in (1.0, 0.0, math.nan)]
    assert (rate()(scores), count()(scores)) == (0.5, 2)
    assert math.isnan(rate()(scores[2:]))


PROGRAM = """
import json, sys
import evaluation_parts as parts
parts.install()
from inspect_ai import eval
from inspect_ai.log import read_eval_log
from ringfence.evaluation.entry import TASKS
from inspect_ai.model import ModelOutput, ModelUsage, get_model
def answer(*asked):
    output = ModelOutput.from_content("mockllm", "Say 0.")
    output.usage = ModelUsage()  # otherwise the mock counts tokens by a table from the internet
    return output
model = sys.argv[1]
if model.startswith("mockllm"):
    model = get_model(model, custom_outputs=answer)
logs = eval([TASKS["toy"](limit=2), TASKS["choosing"]()], model=model, epochs=2,
            display="none", log_dir=sys.argv[2], fail_on_error=False)
for log in logs:
    log = read_eval_log(log.location)
    scores = log.results.scores if log.results else ()
    print(json.dumps({
        "task": log.eval.task, "model": str(log.eval.model), "status": log.status,
        "metrics": {s.name: {k: m.value for k, m in s.metrics.items()} for s in scores},
        "samples": [{"account": (s.output.metadata or {}).get("ringfence"), "reply":
            s.output.completion, "error": s.error and s.error.message} for s in log.samples],
    }))
"""


def inspect(model: str, folder: Path) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, model, str(folder)],
        capture_output=True,
        text=True,
        cwd=HERE,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_the_account_of_a_reply_survives_in_the_log_and_epochs_are_reduced(tmp_path):
    toy, choosing = inspect("ringfence/embedded?max_tokens=9", tmp_path)
    assert (toy["task"], toy["status"]) == ("ringfence/toy", "success")
    assert toy["model"] == "ringfence/embedded?max_tokens=9"
    assert toy["metrics"]["held"] == {"ringfence/rate": 1.0, "ringfence/count": 2}
    assert toy["metrics"]["said"] == {"ringfence/rate": 1.0, "ringfence/count": 1}
    assert len(toy["samples"]) == 4
    for sample in toy["samples"]:
        assert sample["account"]["cost"]["committed"] == 6
        assert sample["account"]["cost"]["first_commit_seconds"] > 0
    assert choosing["samples"][0]["account"]["decoder"] == "likelihood"


@pytest.mark.slow
def test_other_models_are_graded_too_but_give_no_likelihoods(tmp_path):
    toy, choosing = inspect("mockllm/model", tmp_path)
    assert toy["metrics"]["held"]["ringfence/count"] == 2
    assert toy["samples"][0]["account"] is None
    assert "which mockllm/model does not give" in choosing["samples"][0]["error"]


def test_every_seed_asks_the_same_items_and_another_draw_asks_others():
    from ringfence.evaluation.entry import TASKS

    def asked(**given) -> list[str]:
        return [str(sample.id) for sample in TASKS["over-refusal"](limit=8, **given).dataset]

    assert asked(seed=1) == asked(seed=0)
    assert asked(draw=1) != asked(draw=0)
