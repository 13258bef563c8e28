"""Small stateful tools: pure functions over a JSON state. Knows nothing of models and recipes."""

from ringfence.toolbox.kind import Call, Errand, Function, Plant, State, ToolKind
from ringfence.toolbox.world import KINDS, World, kinds

__all__ = [
    "KINDS",
    "Call",
    "Errand",
    "Function",
    "Plant",
    "State",
    "ToolKind",
    "World",
    "kinds",
]
