"""The prompt-only baseline: a paragraph in the system message, and nothing else.

It stands for what one gets without training or decoding (arXiv 2404.13208 compares against such a
prompt); the wording is our own. Knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from ringfence.rings import Policy


@cache
def paragraph() -> str:
    """Lists the priorities of the messages and forbids disclosure of the system message."""
    return (files("ringfence.evaluation") / "prompt_only.txt").read_text("utf-8").strip()


def with_paragraph(
    messages: Sequence[dict[str, Any]], rings: Sequence[str], policy: Policy
) -> tuple[list[dict[str, Any]], list[str]]:
    """Messages and their rings with the paragraph at the front of the system message.

    Without a system message at the front there will be one.

    Raises:
        InputError: the policy knows no system role.
    """
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{paragraph()}\n\n{messages[0]['content']}"}
        return [first, *messages[1:]], list(rings)
    ring = policy.ring_of("system").name
    return [{"role": "system", "content": paragraph()}, *messages], [ring, *rings]
