"""What a reply thinks, and what it says behind that. Knows nothing of templates."""

from __future__ import annotations

OPENING, ENDING = "<think>", "</think>"


def thought_apart(
    reply: str, *, opened: bool, opening: str = OPENING, ending: str = ENDING
) -> tuple[str, str] | None:
    """The thought that a reply begins with, and what follows it; None without one that ends.

    Args:
        reply: as the model wrote it.
        opened: the header of the reply begins the thought, so that the reply only ends it.
        opening: begins a thought.
        ending: ends it.
    """
    bare = reply.lstrip()
    if bare.startswith(opening):
        bare = bare[len(opening) :]
    elif opened:
        bare = reply
    else:
        return None
    thought, ended, said = bare.partition(ending)
    return (thought, said) if ended else None
