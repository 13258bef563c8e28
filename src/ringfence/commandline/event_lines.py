"""Events as JSON, one object a line, for programs that watch. Knows nothing of who watches."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ringfence.engine import Tokenizer
from ringfence.events import Drafted, Event, Judged, Rewound


def event_json(event: Event, tokenizer: Tokenizer) -> dict[str, Any]:
    """The fields of an event with its kind under `event`, and the text of tokens beside them."""
    data: dict[str, Any] = {"event": type(event).__name__.lower(), **asdict(event)}
    if isinstance(event, Drafted):
        data["text"] = tokenizer.decode(event.tokens)
    elif isinstance(event, Rewound):
        data["text"] = tokenizer.decode(event.dropped)
    elif isinstance(event, Judged):
        data["simulated_text"] = tokenizer.decode(event.simulated)
    return data
