"""One Inspect task a suite, named `ringfence/SUITE`. Knows nothing of our engines or run folders.

Any model of Inspect can be asked; suites by likelihood need a model of ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessageAssistant,
    GenerateConfig,
    ModelOutput,
    get_model,
)
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from ringfence import suites
from ringfence.errors import InputError
from ringfence.evaluation import conversations
from ringfence.evaluation.provider import PRIVATE, RingfenceAPI
from ringfence.suites import Item, suite, written


def register() -> dict[str, Callable[..., Task]]:
    """Make a task of every suite; returns them by the names of the suites."""
    return {name: _registered(name) for name in suites.SUITES}


def likelihoods(made: Task) -> bool:
    """Whether a task needs the log-probabilities of given choices."""
    return any((sample.metadata or {}).get("likelihoods") for sample in made.dataset)


def reply_of(output: ModelOutput) -> str:
    """What graders are given: the text as the model wrote it, its calls included."""
    if not output.choices:
        return ""
    raw = _account(output).get("raw")
    if isinstance(raw, str):
        return raw
    message = output.choices[0].message
    calls = [
        {"name": call.function, "arguments": call.arguments} for call in message.tool_calls or []
    ]
    return written(message.text, calls)


def reason_of(output: ModelOutput) -> str:
    """Why a reply ended: our own word where there is one, else Inspect's."""
    reason = _account(output).get("reason")
    return reason if isinstance(reason, str) else str(output.stop_reason if output.choices else "")


def _account(output: ModelOutput) -> dict[str, Any]:
    account = (output.metadata or {}).get("ringfence")
    return account if isinstance(account, dict) else {}


def _registered(name: str) -> Callable[..., Task]:
    def made(
        data: str | None = None,
        limit: int | None = None,
        seed: int = 0,
        draw: int = 0,
        kinds: str | None = None,
    ) -> Task:
        chosen = suite(name)
        # Every seed gets the same items: seeds are tries of a reply, and are compared in pairs.
        wanted = kinds.split(",") if kinds else ()
        items = chosen.items(Path(data) if data else None, limit, draw, wanted)
        return Task(
            dataset=MemoryDataset([_sample(name, item) for item in items], name=name),
            solver=answered(),
            scorer=graded(),
            config=GenerateConfig(max_tokens=chosen.max_tokens, seed=seed),
        )

    made.__name__ = made.__qualname__ = name
    made.__doc__ = suite(name).measures
    return cast(Callable[..., Task], task(name=name)(made))


def _sample(name: str, item: Item) -> Sample:
    metadata: dict[str, Any] = {
        **item.metadata,
        "suite": name,
        "cluster": item.cluster,
        "grading": dict(item.grading),
        "tools": [dict(tool) for tool in item.tools],
    }
    if item.max_tokens is not None:
        metadata["max_tokens"] = item.max_tokens
    if item.choices:
        metadata["likelihoods"] = list(item.choices)
    return Sample(
        id=item.id,
        input=conversations.to_inspect(item.messages, item.rings, item.policy),
        metadata=metadata,
    )


@solver
def answered() -> Solver:
    """Ask the model once; tools are shown to it and never run."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model = get_model()
        config = GenerateConfig(max_tokens=state.metadata.get("max_tokens"))
        if choices := state.metadata.get("likelihoods"):
            if not isinstance(model.api, RingfenceAPI):
                raise InputError(
                    f"suite {state.metadata['suite']} compares the likelihoods of given choices, "
                    f"which {model} does not give: use a ringfence/… model"
                )
            config = GenerateConfig(extra_body={PRIVATE: {"choices": choices}})
        tools = conversations.tool_infos(state.metadata.get("tools") or [])
        state.output = await model.generate(state.messages, tools=tools, config=config)
        if state.output.choices:
            message = state.output.choices[0].message
            assert isinstance(message, ChatMessageAssistant)
            state.messages.append(message)
        return state

    return solve


@metric
def rate() -> Metric:
    """Mean over the samples to which the metric applies; NaN without any."""

    def compute(scores: list[SampleScore]) -> float:
        known = _known(scores)
        return sum(known) / len(known) if known else math.nan

    return compute


@metric
def count() -> Metric:
    """Number of samples to which the metric applies."""

    def compute(scores: list[SampleScore]) -> float:
        return len(_known(scores))

    return compute


def _known(scores: Sequence[SampleScore]) -> list[float]:
    values = [score.score.as_float() for score in scores]
    return [value for value in values if not math.isnan(value)]


@scorer(metrics={"*": [rate(), count()]})
def graded() -> Scorer:
    """The suite's own code on the reply: `{metric: 1 or 0}`, NaN where it does not apply."""

    async def score(state: TaskState, target: Target) -> Score:
        reply = reply_of(state.output)
        outcomes = suite(state.metadata["suite"]).grade(
            state.metadata["grading"], reply, reason_of(state.output)
        )
        return Score(
            value={
                name: math.nan if outcome is None else float(outcome)
                for name, outcome in outcomes.items()
            },
            answer=reply,
            metadata={"cluster": state.metadata["cluster"]},
        )

    return score
