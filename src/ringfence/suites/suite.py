"""What a suite is: items, metrics, and code that grades replies. Knows no particular suite."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from ringfence.errors import InputError
from ringfence.suites.refusals import as_shown
from ringfence.suites.subsets import beginning, subset

Kind = Literal["robustness", "over-refusal", "fidelity", "capability", "utility", "diagnostic"]
Message: TypeAlias = Mapping[str, Any]
Outcomes: TypeAlias = dict[str, bool | None]
Counts: TypeAlias = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a rate counts.

    Attributes:
        name: unique in its suite.
        better: which way is good.
        words: one sentence: what a rate of it counts.
    """

    name: str
    kind: Kind
    better: Literal["higher", "lower"]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A security figure and its benign twin; J = security + benign - 1 (both as rates).

    Attributes:
        name: of the balance, for tables.
        security: name of a metric or aggregate of the suite that is to be high (1 - rate where
            lower is better).
        benign: likewise; what a system that refuses everything fails.
    """

    name: str
    security: str
    benign: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One sample.

    Attributes:
        id: stable, unique in its suite: the same item has it under any seed and limit.
        cluster: items of one cluster share a base prompt.
        messages: as chat APIs write them: role, content, tool_calls?, name?, tool_call_id?.
        rings: one a message, where they differ from those of the roles.
        policy: preset that the rings are of, where it is not the usual one.
        tools: that the model may call: OpenAI's `function` objects with their `type`.
        max_tokens: longest reply that makes sense, where that is less than the suite's.
        choices: for multiple choice by likelihood. The reply to be graded is then a JSON list, one
            entry a choice: its log-probability summed over tokens after `messages`, or a pair of
            that and the number of tokens.
        grading: JSON: all that the grader needs.
        metadata: JSON: what people may want to sort by; `kind` is what subsets are balanced over.
    """

    id: str
    cluster: str
    messages: tuple[Message, ...]
    grading: Mapping[str, Any]
    rings: tuple[str, ...] | None = None
    policy: str = ""
    max_tokens: int | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    choices: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What subsets are balanced over."""
        return str(self.metadata.get("kind", ""))


class Graded(Protocol):
    """What aggregates read of a graded reply; a record of a run has it."""

    @property
    def item(self) -> str:
        """Id of the item."""
        ...

    @property
    def cluster(self) -> str:
        """Cluster of the item."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the reply."""
        ...

    @property
    def outcomes(self) -> Mapping[str, bool | None]:
        """Metric → outcome."""
        ...


def no_aggregates(records: Sequence[Graded]) -> Counts:
    """Of a suite whose every figure is a rate of a metric."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named set of samples with graders, and the table it reproduces.

    Attributes:
        name: as on the command line.
        measures: what it measures; `not_meaning`: what its numbers do not mean.
        threat_model: which tokens the attacker controls, what it knows, how many queries it has,
            and what success is.
        source: where the data comes from, with the paper.
        size: how many items there are, in words.
        static: its attacks do not adapt to the defence.
        packaged: some of its items come with the package; without, a data folder is needed.
        files: `data set/file` in a data folder, all that it reads there.
        max_tokens: that a reply may have.
        metrics: of single replies.
        figures: of several replies of a cluster (see `aggregates`).
        primary: metrics or figures that stand for the suite in a short table.
        twins: security figures with their benign twins.
        load: every item in a fixed order; arguments: data folder or None, seed.
        check: grades a reply; arguments: grading, reply.
        aggregate: see `aggregates`.
        whole: subsets take clusters whole, because figures need several of their items.
        formal: graders read form, which a short refusal may keep to by chance: what a decoder
            refused is graded as what it had said before, mostly nothing.
        synthesised: items are made for the seed, balanced over kinds from the first; a subset is
            the beginning.
    """

    name: str
    title: str
    measures: str
    threat_model: str
    source: str
    licence: str
    size: str
    not_meaning: str
    static: bool
    packaged: bool
    max_tokens: int
    metrics: tuple[Metric, ...]
    primary: tuple[str, ...]
    load: Callable[[Path | None, int], Iterable[Item]]
    check: Callable[[Mapping[str, Any], str], Outcomes]
    figures: tuple[Metric, ...] = ()
    twins: tuple[Twin, ...] = ()
    aggregate: Callable[[Sequence[Graded]], Counts] = no_aggregates
    whole: bool = False
    formal: bool = False
    synthesised: bool = False
    files: tuple[str, ...] = ()

    def items(
        self,
        data: Path | None = None,
        limit: int | None = None,
        seed: int = 0,
        kinds: Collection[str] = (),
    ) -> list[Item]:
        """The items; the same arguments give the same ones.

        Args:
            data: a folder with one sub-folder a data set; None for what is packaged.
            limit: at most so many, balanced over kinds and then over clusters, which are the same
                for every kind. Where `whole`, at least one cluster.
            seed: of the draw; it matters only with a limit, except for suites that are synthesised.
            kinds: only items of these kinds; none names all.

        Raises:
            InputError: data that is missing, with where to get it, or broken, with file, line and
                field; a limit below 1; a kind that no item has, with those that there are.
        """
        if limit is not None and limit < 1:
            raise InputError(f"limit {limit}: must be at least 1")
        found = self.load(data, seed)
        if kinds:
            found = list(found)
            there = sorted({item.kind for item in found})
            if unknown := sorted(set(kinds) - set(there)):
                raise InputError(
                    f"--kinds {unknown[0]}: suite {self.name} has no such items. "
                    f"Kinds: {', '.join(there)}."
                )
            found = [item for item in found if item.kind in kinds]
        if limit is None:
            return list(found)
        if self.synthesised:
            return beginning(found, limit)
        return subset(found, limit, f"{self.name}/{seed}", whole=self.whole)

    def grade(self, grading: Mapping[str, Any], reply: str, reason: str = "") -> Outcomes:
        """Metric → outcome, for every metric; None where it does not apply or is undecided.

        Never raises for any reply to an item of this suite.

        Args:
            grading: of the item.
            reply: text of the model, calls included.
            reason: why the reply ended. One that the decoder or the provider refused (`refused`,
                `content_filter`) is a refusal even where its text is empty.

        Raises:
            InputError: a grading that is none of this suite's.
        """
        if not self.formal:
            reply = as_shown(reply, reason)
        try:
            found = self.check(grading, reply)
        except KeyError as error:
            raise InputError(f"suite {self.name}: grading lacks the field {error}") from None
        return {metric.name: found.get(metric.name) for metric in self.metrics}

    def aggregates(self, records: Sequence[Graded]) -> Counts:
        """Figure → hits and number, over the replies of one model.

        Replies of different seeds to one cluster are never mixed. A figure without any cases is
        left out.
        """
        return self.aggregate(records)

    def metric(self, name: str) -> Metric:
        """A metric or figure by its name.

        Raises:
            InputError: there is none of that name.
        """
        for one in (*self.metrics, *self.figures):
            if one.name == name:
                return one
        names = ", ".join(one.name for one in (*self.metrics, *self.figures))
        raise InputError(f"suite {self.name}: no metric {name!r}. Metrics: {names}.")
