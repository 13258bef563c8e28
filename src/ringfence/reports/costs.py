"""What replies took: tokens, requests, rewinds, seconds. Knows nothing of outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ringfence.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """Of one model. None where the records do not say.

    Attributes:
        replies: that came; `errors` did not.
        processed: tokens the engine processed per committed token, after cache hits; the work on
            replies that were refused counts, although they have no tokens.
        committed: tokens per reply; requests and rewinds likewise.
        median: wall seconds per reply that half stay within; `slowest`: that 95 % stay within.
        refused: share of replies that ended as a refusal of the decoder.
    """

    model: str
    replies: int
    errors: int
    processed: float | None
    committed: float | None
    requests: float | None
    rewinds: float | None
    median: float | None
    slowest: float | None
    refused: float | None


def cost_rows(records: Iterable[Record]) -> tuple[CostRow, ...]:
    """One row a model, in order of first appearance."""
    models: dict[str, list[Record]] = {}
    for record in records:
        models.setdefault(record.model, []).append(record)
    return tuple(_row(model, members) for model, members in models.items())


def _row(model: str, records: Sequence[Record]) -> CostRow:
    came = [record for record in records if not record.error]
    # Multiple choice writes nothing; its work would be divided by the tokens of others. A reply
    # that a decoder refused has 0 tokens, and is often the dearest of all.
    costed = [record.cost for record in came if "committed" in record.cost]
    committed = sum(cost["committed"] for cost in costed)

    def total(field: str) -> float | None:
        known = [cost[field] for cost in costed if field in cost]
        return sum(known) if len(known) == len(costed) and known else None

    def each(field: str) -> float | None:
        whole = total(field)
        return None if whole is None else whole / len(costed)

    fed = total("fed")
    seconds = [record.seconds for record in came if record.seconds is not None]
    median, slowest = np.quantile(seconds, [0.5, 0.95]).tolist() if seconds else (None, None)
    reasons = [record.reason for record in came if record.reason]
    return CostRow(
        model=model,
        replies=len(came),
        errors=len(records) - len(came),
        processed=fed / committed if fed is not None and committed else None,
        committed=each("committed"),
        requests=each("requests"),
        rewinds=each("rewinds"),
        median=median,
        slowest=slowest,
        refused=sum(one == "refused" for one in reasons) / len(reasons) if reasons else None,
    )
