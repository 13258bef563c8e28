"""The errors a user can do something about. Knows nothing of any module that raises them."""


class RingfenceError(Exception):
    """Base of every error that ringfence raises on purpose; the command line exits with 2 on it.

    The message says what is wrong, why, and the way out.
    """


class InputError(RingfenceError):
    """A file, option, message or request that cannot be used; names the field."""


class RenderingError(InputError):
    """A conversation that the model's chat template cannot express without losing something."""


class EngineError(RingfenceError):
    """The engine could not be opened, reached, or does not offer what is needed of it."""


class ContextError(EngineError, InputError):
    """Prefix plus draft do not fit into the model's context window."""


class JudgeError(RingfenceError):
    """A judge that cannot be used: broken principle, unresolvable labels, or chance accuracy."""


class BudgetError(RingfenceError):
    """The budget ran out and the caller asked for an error instead of a refusal."""
