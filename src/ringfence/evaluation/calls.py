"""Calls that a model wrote into its reply, taken out of it. Knows nothing of Inspect.

Two spellings are read, as the templates of open models teach them: `<tool_call>{…}</tool_call>`
(Hermes, Qwen, SmolLM) and a reply that is one JSON object with `name` and `arguments` or
`parameters` (Llama 3). Everything else stays text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from ringfence.errors import InputError
from ringfence.tool_calls import ToolCall, calls_of

_TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_MOST = 64


def found(reply: str, names: Collection[str]) -> tuple[str, tuple[ToolCall, ...]]:
    """The reply without its calls, and the calls; only of tools that are there.

    Args:
        reply: hostile text.
        names: of the tools that the model was given; without any nothing is a call.
    """
    if not names:
        return reply, ()
    pieces = _TAGGED.findall(reply) if reply.count("</tool_call>") <= _MOST else []
    if pieces:
        calls = [_call(piece, names, index) for index, piece in enumerate(pieces)]
        if all(calls):
            return _TAGGED.sub("", reply).strip(), tuple(call for call in calls if call)
        return reply, ()
    alone = _call(reply, names, 0) if reply.strip().startswith("{") else None
    return ("", (alone,)) if alone else (reply, ())


def _call(text: str, names: Collection[str], index: int) -> ToolCall | None:
    # Reads it as hardened as arguments are: bounded depth, no key twice.
    data: dict[str, Any] | None = ToolCall(name="_", arguments=text).parsed
    if data is None or data.get("name") not in names:
        return None
    arguments = data.get("arguments", data.get("parameters", {}))
    if not isinstance(arguments, dict):
        return None
    call = {"id": f"call_{index}", "name": data["name"], "arguments": arguments}
    try:
        return calls_of("reply", [call])[0]
    except InputError:
        return None
