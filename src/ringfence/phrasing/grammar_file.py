"""The schema of a grammar file: rules and their alternatives. Knows nothing of drawing."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Weighted(BaseModel):
    """An alternative that is drawn more or less often than its neighbours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    weight: float = Field(default=1.0, gt=0, le=1000)


class Alternatives(BaseModel):
    """The alternatives of one rule: of both splits, and of only one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    both: tuple[str | Weighted, ...] = ()
    train: tuple[str | Weighted, ...] = ()
    eval: tuple[str | Weighted, ...] = ()


class GrammarFile(BaseModel):
    """The schema of a grammar file.

    Attributes:
        name: what people call it.
        summary: one sentence: what the phrases are.
        slots: everything that callers put in.
        starts: rules that may be drawn from; every other rule must be reachable from one.
        disjoint: whether no derivation may belong to both splits. Off for mere scenery.
        rules: name → alternatives; a plain list belongs to both splits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    summary: str
    slots: tuple[str, ...] = ()
    starts: tuple[str, ...] = Field(min_length=1)
    disjoint: bool = True
    rules: dict[str, tuple[str | Weighted, ...] | Alternatives]

    def alternatives(self) -> dict[str, Alternatives]:
        """Every rule with its alternatives by split."""
        return {
            name: rule if isinstance(rule, Alternatives) else Alternatives(both=rule)
            for name, rule in self.rules.items()
        }


def text_of(item: str | Weighted) -> str:
    """The text of an alternative."""
    return item if isinstance(item, str) else item.text
