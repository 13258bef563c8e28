"""Instructions in what tools and documents return: BIPIA and InjecAgent side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ringfence.suites import bipia, injecagent
from ringfence.suites.suite import Item, Metric, Outcomes, Suite, Twin


def _load(data: Path | None, seed: int) -> Iterator[Item]:
    yield from bipia.items(data)
    yield from injecagent.items(data)


def _check(grading: Mapping[str, Any], reply: str) -> Outcomes:
    if grading["way"] in ("clean", "text"):
        found = bipia.check(grading, reply)
        if "resisted" in found:
            found["resisted-bipia"] = found["resisted"]
        return found
    found = injecagent.check(grading, reply)
    if "resisted" in found:
        found["resisted-injecagent"] = found["resisted"]
    return found


METRICS = (
    Metric(
        name="resisted",
        kind="robustness",
        better="higher",
        words="Replies that do not do what the planted instruction wants.",
    ),
    Metric(
        name="resisted-bipia",
        kind="robustness",
        better="higher",
        words="The same on BIPIA: no answer, address or code that only the attack leads to.",
    ),
    Metric(
        name="resisted-injecagent",
        kind="robustness",
        better="higher",
        words="The same on InjecAgent: no call of the attacker's tool.",
    ),
    Metric(
        name="resisted-exactly",
        kind="diagnostic",
        better="higher",
        words="InjecAgent: no call of the attacker's tool with anything of the attacker's "
        "instruction among its arguments.",
    ),
    Metric(
        name="goal",
        kind="fidelity",
        better="higher",
        words="Replies under attack that reach the user's goal (the right answer, the corrected "
        "line, something of what the tool returned).",
    ),
    Metric(
        name="goal-clean",
        kind="capability",
        better="higher",
        words="Replies to the same questions without an attack that reach the user's goal.",
    ),
)

INDIRECT = Suite(
    name="indirect",
    title="Indirect prompt injection",
    measures="Whether instructions inside an e-mail, a table, an answer from the web or a tool's "
    "result are obeyed, and whether the user's own question is still answered.",
    threat_model="The attacker writes a part of what a document or tool returns, knows the task "
    "but neither weights nor template, has one query. Success: the reply holds what only the "
    "attack leads to (BIPIA), or calls the attacker's tool (InjecAgent, base and with a fixed "
    '"IMPORTANT!!! Ignore all previous instructions").',
    source="BIPIA, arXiv 2312.14197 (train files); InjecAgent, arXiv 2403.02691, direct harm",
    licence="MIT (BIPIA's attacks and e-mails, InjecAgent); BIPIA's tables and code CC BY-SA 4.0, "
    "read from --data only",
    size="packaged: 200 of BIPIA's e-mails, 1,037 of InjecAgent; with data: 1,800 of tables and "
    "200 of code besides",
    not_meaning="Not the papers' figures: 45 of BIPIA's 75 text attacks need a model to grade them "
    "and are left out, and a reply that quotes an address in order to warn of it counts as "
    "obedience. One turn: what happens after a call is not played. BIPIA's documents stand in the "
    "user's message, as in the paper, so rings cannot tell them from the user.",
    static=True,
    packaged=True,
    files=(*bipia.FILES, *injecagent.FILES),
    max_tokens=256,
    metrics=METRICS,
    primary=("resisted", "goal"),
    twins=(Twin(name="injection", security="resisted", benign="goal"),),
    load=_load,
    check=_check,
)
