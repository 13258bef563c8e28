"""Rings of privilege and rewindable decoding for open-weight chat models.

The names below are the public interface; each is imported when it is first used, so that
`import ringfence` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringfence.budget import Budget as Budget
    from ringfence.decoding import Options as Options
    from ringfence.decoding import complete as complete
    from ringfence.decoding import decode as decode
    from ringfence.engine import Engine as Engine
    from ringfence.engine import Sampling as Sampling
    from ringfence.engine import ScriptedEngine as ScriptedEngine
    from ringfence.engines import open_engine as open_engine
    from ringfence.errors import RingfenceError as RingfenceError
    from ringfence.events import Reply as Reply
    from ringfence.judges import Judge as Judge
    from ringfence.judges import SelfJudge as SelfJudge
    from ringfence.principle import Principle as Principle
    from ringfence.rendering import Rendering as Rendering
    from ringfence.rendering import render as render
    from ringfence.rendering import render_text as render_text
    from ringfence.rings import Conversation as Conversation
    from ringfence.rings import Message as Message
    from ringfence.rings import Policy as Policy
    from ringfence.rings import Ring as Ring

_HOMES = {
    "Budget": "budget",
    "Conversation": "rings",
    "Engine": "engine",
    "Judge": "judges",
    "Message": "rings",
    "Options": "decoding",
    "Policy": "rings",
    "Principle": "principle",
    "Rendering": "rendering",
    "Reply": "events",
    "Ring": "rings",
    "RingfenceError": "errors",
    "Sampling": "engine",
    "ScriptedEngine": "engine",
    "SelfJudge": "judges",
    "complete": "decoding",
    "decode": "decoding",
    "open_engine": "engines",
    "render": "rendering",
    "render_text": "rendering",
}
__all__ = [*sorted(_HOMES), "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ringfence' has no attribute {name!r}")
    return getattr(import_module(f"ringfence.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Public names."""
    return list(__all__)
