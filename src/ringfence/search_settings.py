"""Constants of the tree search, and the presets that ship. Knows nothing of the search itself."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

# The budget bounds what is judged; visits of what was judged before are bounded by this.
MOST_ITERATIONS = 10_000


class SearchSettings(BaseModel):
    """Constants of the search; every part can be switched off on its own.

    Attributes:
        lengths: token-set length by depth from the start of the reply; the last one stays.
        width: token sets drafted below a leaf (q).
        max_width: most children dynamic addition may reach.
        top_k: sampled token sets keep the k most likely tokens of each step.
        greedy: one of the token sets is the greedy one.
        exploration: c of the PUCT term; 0 switches exploration off.
        rescale: values enter selection as (v + 1) / 2, which doubles the weight of exploration.
        unvisited: the value a node counts with before its first visit.
        priors: of token sets, from their `likelihood` (the paper) or all `equal`: what is drawn
            from the model comes as often as it is likely already.
        root_uniform: share of the uniform distribution in the priors of the root's children.
        simulation: look ahead to the end of the phrase before judging.
        simulation_length: most tokens to look ahead.
        similarity: update siblings that say the same.
        similarity_weight: γ, the weight of such an update at cosine 1.
        similarity_unvisited: update siblings that were never judged, too.
        dynamic_addition: draft another child where all children are alike and bad.
        variance: children are alike if ‖variance of their embeddings‖ < variance x set length.
        iterations: most judgements for one commit (T); coming back to a reply that has ended counts
            as one here.
        commit: what is committed: the child of the root with the most `visits` (the paper), or the
            child that leads to the draft of the best `verdict`, as soon as that is acceptable.
        visits: a commit by visits needs at least this many real visits of the child (paper: more
            than T_m).
        threshold: and at least this mean value (V); None takes the judge's own.
        aim: a commit by verdict looks on until a draft has this value; what is merely acceptable is
            committed when the iterations are spent. None is content with the threshold.
        leaves: leaves in flight at once, with virtual loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lengths: tuple[PositiveInt, ...] = Field(default=(1, 2, 4, 10), min_length=1)
    width: int = Field(default=10, ge=1, le=64)
    max_width: int = Field(default=20, ge=1, le=64)
    top_k: int = Field(default=15, ge=0)
    greedy: bool = True
    exploration: float = Field(default=2.0, ge=0)
    rescale: bool = False
    unvisited: float = Field(default=0.0, ge=-1, le=1)
    priors: Literal["likelihood", "equal"] = "likelihood"
    root_uniform: float = Field(default=0.25, ge=0, le=1)
    simulation: bool = True
    simulation_length: int = Field(default=16, ge=1)
    similarity: bool = True
    similarity_weight: float = Field(default=0.2, ge=0, le=1)
    similarity_unvisited: bool = True
    dynamic_addition: bool = True
    variance: float = Field(default=0.03, ge=0)
    iterations: int = Field(default=50, ge=1, le=MOST_ITERATIONS)
    commit: Literal["visits", "verdict"] = "visits"
    visits: int = Field(default=7, ge=1)
    threshold: float | None = Field(default=0.8, ge=-1, le=1)
    aim: float | None = Field(default=None, ge=-1, le=1)
    leaves: int = Field(default=1, ge=1, le=16)


PRESETS: dict[str, SearchSettings] = {
    # What the paper says; constants that it does not give are those of its code.
    "paper": SearchSettings(simulation=False, dynamic_addition=True),
    # The released code: rescaled values, unvisited nodes count as -1, only judged siblings updated.
    "code": SearchSettings(rescale=True, unvisited=-1.0, similarity_unvisited=False),
    # Ours: sets of several tokens from the start, long enough to be judged and all sampled; all
    # children of a node judged in one batch; the way to the best draft is committed as soon as the
    # judge thinks well of that draft.
    "fast": SearchSettings(
        lengths=(20,),
        width=4,
        max_width=8,
        greedy=False,
        leaves=4,
        commit="verdict",
        iterations=24,
        threshold=None,
        aim=0.8,
        simulation=False,
        priors="equal",
        root_uniform=0.0,
    ),
}
Preset = Literal["paper", "code", "fast"]
