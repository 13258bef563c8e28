"""Property tests of the rewindable tree search: what holds after any sequence of events."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from fakes import (
    END,
    PROMPT,
    FakeJudge,
    NearsightedJudge,
    OneVector,
    OwnVectors,
    hates,
    ids,
    loves,
    noise,
    random_judge,
    random_script,
    says,
    scripted,
    text_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.budget import Budget, Meter
from ringfence.embedding import HashedNgrams
from ringfence.errors import ContextError
from ringfence.events import Committed, Drafted, Event, Judged, Rewound
from ringfence.proposals import PHRASE_ENDS
from ringfence.search import TreeSearch
from ringfence.search_settings import PRESETS, SearchSettings
from ringfence.tree import Node, alike_and_bad, best_child

EMBEDDERS = {"ngrams": HashedNgrams, "one": OneVector, "own": OwnVectors}


@dataclass
class World:
    """One search over a scripted model, with everything it did."""

    search: TreeSearch
    meter: Meter
    events: list[Event]
    judge: FakeJudge

    @property
    def nodes(self) -> list[Node]:
        return subtree(self.search.root)[1:]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def world(
    script,
    judge: FakeJudge,
    options: SearchSettings,
    *,
    limit: int = 30,
    budget: Budget | None = None,
    embedder=None,
    seed: int = 0,
    engine=None,
    search_class: type[TreeSearch] = TreeSearch,
) -> World:
    meter = Meter(engine or scripted(script), judge, budget or Budget())
    search = search_class(
        PROMPT,
        meter,
        embedder or HashedNgrams(),
        options,
        threshold=judge.threshold,
        limit=limit,
        rng=random.Random(seed),
    )
    return World(search=search, meter=meter, events=[], judge=judge)


async def one_commit(world: World, *, exhausted_best: bool = False) -> list[Event]:
    events = [event async for event in world.search.commit(exhausted_best=exhausted_best)]
    world.events += events
    return events


async def whole(world: World, *, limit: int = 30, exhausted_best: bool = False) -> World:
    """Commit until the reply is complete or the search gives up."""
    search = world.search
    while len(search.committed) < limit and not search.finished:
        events = await one_commit(world, exhausted_best=exhausted_best)
        if not any(isinstance(event, Committed) for event in events):
            break
    return world


def subtree(node: Node) -> list[Node]:
    found = [node]
    for child in node.children or ():
        found += subtree(child)
    return found


@st.composite
def search_settings(draw, **fixed) -> SearchSettings:
    fraction = st.floats(0, 1, allow_subnormal=False)
    signed = st.floats(-1, 1, allow_subnormal=False)
    width = draw(st.integers(1, 5))
    parts = {
        "lengths": st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
        "width": st.just(width),
        "max_width": st.integers(1, 8),
        "top_k": st.integers(0, 4),
        "greedy": st.booleans(),
        "exploration": st.sampled_from([0.0, 0.5, 2.0]),
        "rescale": st.booleans(),
        "unvisited": signed,
        "root_uniform": fraction,
        "priors": st.sampled_from(["likelihood", "equal"]),
        "commit": st.sampled_from(["visits", "verdict"]),
        "aim": st.one_of(st.none(), signed),
        "simulation": st.booleans(),
        "simulation_length": st.integers(1, 6),
        "similarity": st.booleans(),
        "similarity_weight": st.sampled_from([0.0, 0.2, 1.0]),
        "similarity_unvisited": st.booleans(),
        "dynamic_addition": st.booleans(),
        "variance": st.sampled_from([0.0, 0.03, 1.0]),
        "iterations": st.integers(1, 15),
        "visits": st.integers(1, 4),
        "threshold": st.one_of(st.none(), signed),
        "leaves": st.integers(1, 4),
    }
    chosen = {name: draw(fixed[name] if name in fixed else how) for name, how in parts.items()}
    return SearchSettings(**chosen)


@st.composite
def cases(draw, **fixed) -> dict[str, Any]:
    return {
        "script": draw(st.integers(0, 10_000)),
        "end": draw(st.sampled_from([0.0, 0.05, 0.5])),
        "judge": draw(st.integers(0, 10_000)),
        "threshold": draw(st.floats(-1, 1)),
        "seed": draw(st.integers(0, 10_000)),
        "limit": draw(st.integers(1, 20)),
        "tokens": draw(st.integers(1, 600)),
        "iterations": draw(st.integers(1, 80)),
        "embedder": draw(st.sampled_from(sorted(EMBEDDERS))),
        "settings": draw(search_settings(**fixed)),
    }


def made(case: dict[str, Any]) -> World:
    return world(
        random_script(case["script"], end=case["end"]),
        random_judge(case["judge"], case["threshold"]),
        case["settings"],
        limit=case["limit"],
        budget=Budget(tokens=case["tokens"], iterations=case["iterations"]),
        embedder=EMBEDDERS[case["embedder"]](),
        seed=case["seed"],
    )


anything = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check_tree(world: World) -> None:
    """Visits, values and places of every node against the events so far."""
    verdicts: dict[int, list[float]] = {}
    for event in world.of(Judged):
        verdicts.setdefault(event.node, []).append(event.value)
    drafted = {event.node: event for event in world.of(Drafted)}
    for node in world.nodes:
        below = [value for n in subtree(node) for value in verdicts.get(n.id, ())]
        assert node.real_visits == len(below)
        assert node.visits >= node.real_visits - 1e-9
        assert -1 <= node.value <= 1
        assert node.pending == 0
        if not world.search.settings.similarity:
            assert node.visits == node.real_visits
            if below:
                assert node.value == pytest.approx(sum(below) / len(below), abs=1e-9)
        assert node.parent is not None and node.start == node.parent.stop
        assert node.depth == node.parent.depth + 1
        event = drafted[node.id]
        assert (event.parent, event.tokens) == (node.parent.id, node.tokens)
        siblings = [(c.tokens, c.finished) for c in node.parent.children]
        assert siblings.count((node.tokens, node.finished)) == 1


@anything
@given(cases(), st.booleans())
async def test_visits_and_values_agree_with_the_events_after_any_search(case, exhausted_best):
    made_world = made(case)
    search = made_world.search
    for _ in range(6):
        if search.finished or len(search.committed) >= case["limit"]:
            break
        events = await one_commit(made_world, exhausted_best=exhausted_best)
        check_tree(made_world)
        if not any(isinstance(event, Committed) for event in events):
            break


@anything
@given(cases(), st.booleans())
async def test_a_rewind_never_changes_committed_tokens(case, exhausted_best):
    made_world = made(case)
    search = made_world.search
    shown: tuple[int, ...] = ()
    while len(shown) < case["limit"] and not search.finished:
        committed = False
        async for event in search.commit(exhausted_best=exhausted_best):
            assert search.committed[: len(shown)] == shown
            if isinstance(event, Rewound):
                assert event.kept == len(shown)
            if isinstance(event, Committed):
                committed = True
                shown += event.tokens
                assert search.committed == shown
        if not committed:
            break
    assert len(shown) <= case["limit"]


@anything
@given(cases(), st.booleans())
async def test_no_budget_is_ever_exceeded(case, exhausted_best):
    made_world = await whole(made(case), limit=case["limit"], exhausted_best=exhausted_best)
    cost = made_world.meter.cost()
    assert cost.drafted <= case["tokens"]
    assert cost.iterations <= case["iterations"]
    assert len(made_world.judge.seen) == cost.iterations
    since = 0
    for event in made_world.events:
        since += isinstance(event, Judged)
        if isinstance(event, Committed):
            since = 0
        assert since <= case["settings"].iterations
    assert sum(len(event.tokens) for event in made_world.of(Committed)) == cost.committed


@anything
@given(cases())
async def test_a_committed_node_was_visited_enough_and_is_good_enough(case):
    made_world = await whole(made(case), limit=case["limit"])
    for event in made_world.of(Committed):
        if case["settings"].commit == "visits":
            assert event.visits >= case["settings"].visits
        assert event.value >= made_world.search.threshold


@anything
@given(cases())
async def test_an_exhausted_search_commits_the_best_child_that_was_judged(case):
    made_world = made(case)
    root = made_world.search.root
    await one_commit(made_world, exhausted_best=True)
    if not made_world.search.spent or made_world.search.root is root:
        return
    values = [node.value for node in root.children if node.real_visits]
    [event] = made_world.of(Committed)
    assert event.value == max(values)


@anything
@given(cases())
async def test_the_same_seed_gives_the_same_events(case):
    first = await whole(made(case), limit=case["limit"])
    second = await whole(made(case), limit=case["limit"])
    assert first.events == second.events
    assert first.search.spent == second.search.spent


@anything
@given(cases())
async def test_priors_of_children_sum_to_one_when_they_are_drafted(case):
    made_world = await whole(made(case), limit=case["limit"])
    seen: set[int] = set()
    batch: list[Drafted] = []
    for event in [*made_world.events, None]:
        same = isinstance(event, Drafted) and batch and batch[0].parent == event.parent
        if batch and not same:
            if batch[0].parent not in seen:
                assert sum(drafted.prior for drafted in batch) == pytest.approx(1)
            seen.add(batch[0].parent)
            batch = []
        if isinstance(event, Drafted):
            batch.append(event)


@anything
@given(cases())
async def test_events_tell_the_whole_tree(case):
    made_world = await whole(made(case), limit=case["limit"])
    known = {0: ()}
    committed: tuple[int, ...] = ()
    for event in made_world.events:
        if isinstance(event, Drafted):
            assert event.node not in known
            known[event.node] = known[event.parent] + event.tokens
        elif isinstance(event, Judged):
            seen = text_of(known[event.node] + event.simulated)
            assert seen in made_world.judge.seen
        elif isinstance(event, Rewound):
            assert committed[: event.kept] == committed
            assert committed + event.dropped in known.values()
        elif isinstance(event, Committed):
            committed += event.tokens
            assert known[event.node] == committed


@anything
@given(cases())
async def test_no_reply_is_longer_than_its_limit_and_an_ended_one_is_over(case):
    made_world = await whole(made(case), limit=case["limit"])
    for node in made_world.nodes:
        assert node.stop <= case["limit"]
        if node.finished:
            assert not node.children


@settings(max_examples=10, deadline=None)
@given(cases())
async def test_pruned_trees_are_freed_and_the_tree_is_bounded(case):
    # Nodes refer to their parents, so it takes a collection. What other tests loaded is frozen: to
    # go through it for every example takes minutes once torch is there.
    gc.freeze()
    try:
        made_world = await whole(made(case), limit=case["limit"])
        gc.collect()
        alive = sum(isinstance(thing, Node) for thing in gc.get_objects())
    finally:
        gc.unfreeze()
    assert alive == len(subtree(made_world.search.root))
    children = max(case["settings"].width, case["settings"].max_width)
    assert alive <= 1 + (len(made_world.of(Judged)) + 1) * children


@anything
@given(
    cases(
        lengths=st.just((1,)),
        simulation=st.just(False),
        dynamic_addition=st.just(False),
        leaves=st.just(1),
    )
)
async def test_drafting_children_late_judges_what_drafting_them_at_once_judges(case):
    class Eager(TreeSearch):
        async def _judge(self, leaves):
            judged = await super()._judge(leaves)
            for leaf in leaves:
                if leaf.children is None and not self._ends(leaf):
                    await self._expand(leaf, [])
            return judged

    plenty = Budget(tokens=1_000_000, iterations=200)
    seen = []
    for search_class in (TreeSearch, Eager):
        made_world = world(
            random_script(case["script"], end=case["end"]),
            random_judge(case["judge"], case["threshold"]),
            case["settings"],
            limit=case["limit"],
            budget=plenty,
            embedder=EMBEDDERS[case["embedder"]](),
            search_class=search_class,
        )
        await whole(made_world, limit=case["limit"])
        seen.append((made_world.judge.seen, made_world.search.committed))
    assert seen[0] == seen[1]


async def test_a_judge_that_loves_everything_never_rewinds():
    for name, preset in PRESETS.items():
        made_world = await whole(world(random_script(3), loves(), preset), limit=20)
        assert made_world.meter.cost().rewinds == 0, name
        assert not made_world.of(Rewound)
        assert made_world.search.committed


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 0.9])
async def test_a_child_whose_verdicts_all_reach_the_threshold_reaches_it(value):
    options = SearchSettings(threshold=None, visits=7)
    judge = FakeJudge(lambda text: value, value)
    made_world = world(random_script(3), judge, options)
    await one_commit(made_world)
    assert made_world.of(Committed)
    assert {node.value for node in made_world.nodes if node.visits} == {value}


async def test_a_judge_that_hates_everything_commits_nothing_and_says_why():
    made_world = world(random_script(3), hates(), SearchSettings(iterations=9))
    await whole(made_world)
    assert not made_world.of(Committed)
    assert len(made_world.of(Judged)) == len(made_world.of(Rewound)) == 9
    assert made_world.search.committed == ()
    assert "9 drafts judged" in made_world.search.spent


async def test_a_search_that_failed_can_go_on_where_it_was():
    made_world = world(random_script(3), hates(), SearchSettings(iterations=4))
    await one_commit(made_world)
    made_world.search.settings = SearchSettings(iterations=8)
    await one_commit(made_world)
    assert len(made_world.of(Judged)) == 12
    check_tree(made_world)


async def test_the_search_finds_the_one_branch_that_the_judge_likes():
    # The model would rather go through a; only what starts with d is good.
    def script(prefix):
        letters = {"a": 0.7, "b": 0.15, "c": 0.1, "d": 0.05}
        if len(prefix) >= len(PROMPT.tokens) + 6:
            return {END: 1.0}
        return {ids(letter)[0]: mass for letter, mass in letters.items()}

    judge = FakeJudge(lambda text: 1.0 if text.startswith("d") else -1.0, 0.5)
    made_world = await whole(world(script, judge, SearchSettings(width=4, visits=3)), limit=10)
    assert text_of(made_world.search.committed).startswith("d")
    assert made_world.search.finished


async def test_a_finished_reply_ends_the_search():
    made_world = await whole(world(says("hi."), loves(), PRESETS["fast"]))
    assert made_world.search.finished
    assert text_of(made_world.search.committed) == "hi."


async def test_an_ended_reply_is_judged_once_and_visited_often():
    options = SearchSettings(lengths=(5,), width=1, visits=4, simulation=False)
    made_world = await whole(world(says("hi."), loves(), options))
    assert made_world.judge.seen == ["hi."]
    assert [event.visits for event in made_world.of(Committed)] == [4]


@pytest.mark.parametrize("lengths", [(1,), (3,)])
async def test_an_empty_reply_counts_only_where_the_model_offers_nothing_else(lengths):
    options = SearchSettings(lengths=lengths, visits=1, dynamic_addition=False)
    judge = FakeJudge(lambda text: 1.0 if not text else 0.9, 0.5)

    def shy(prefix):
        return {END: 0.9, ids("a")[0]: 0.1}

    spoke = await whole(world(shy, judge, options, seed=4), limit=3)
    assert spoke.of(Committed)[0].tokens or lengths != (1,)
    silent = await whole(world(lambda prefix: {END: 1.0}, judge, options), limit=3)
    assert silent.search.finished and silent.search.committed == ()


async def test_dynamic_addition_offers_no_empty_reply_where_there_are_others():
    def shy(prefix):
        return {END: 0.5, ids("a")[0]: 0.4, ids("b")[0]: 0.1}

    options = SearchSettings(lengths=(2,), width=3, variance=1.0, iterations=30, max_width=20)
    judge = FakeJudge(lambda text: -1.0 if text else 1.0, 0.5)
    for seed in range(10):
        made_world = await whole(
            world(shy, judge, options, embedder=OneVector(), seed=seed), limit=2
        )
        offered = [e.tokens for e in made_world.of(Drafted) if e.parent == 0]
        assert any(offered) and () not in offered[1:], offered


async def test_dynamic_addition_happens_where_children_are_alike_and_bad():
    added = await dynamic_additions(embedder=OneVector(), judge=hates())
    assert added > 0


@pytest.mark.parametrize(
    ("why_not", "change"),
    [
        ("switched off", {"dynamic_addition": False}),
        ("as many children as allowed", {"max_width": 1}),
        ("no variance is small enough", {"variance": 0.0}),
    ],
)
async def test_dynamic_addition_does_not_happen_when(why_not, change):
    assert await dynamic_additions(embedder=OneVector(), judge=hates(), **change) == 0


async def test_dynamic_addition_does_not_happen_where_children_differ():
    assert await dynamic_additions(embedder=OwnVectors(), judge=hates()) == 0


async def test_dynamic_addition_does_not_happen_where_a_child_is_not_bad():
    assert await dynamic_additions(OneVector(), FakeJudge(lambda text: 0.0, 0.5)) == 0


async def dynamic_additions(embedder, judge, **change) -> int:
    """How many children came after the first ones; with three children a node."""
    options = SearchSettings(
        **{"lengths": (2,), "width": 3, "max_width": 6, "iterations": 40, "exploration": 20.0}
        | change
    )
    made_world = world(random_script(5, end=0), judge, options, embedder=embedder)
    await one_commit(made_world)
    judged_at = [i for i, e in enumerate(made_world.events) if isinstance(e, Judged)]
    first: dict[int, int] = {}
    late = Counter()
    for place, event in enumerate(made_world.events):
        if isinstance(event, Drafted):
            start = first.setdefault(event.parent, place)
            late[event.parent] += any(start < judged < place for judged in judged_at)
    for parent, count in late.items():
        assert count <= options.max_width - 1, parent
    return sum(late.values())


async def test_without_exploration_the_search_stays_with_the_first_child_that_is_not_bad():
    judge = FakeJudge(lambda text: 0.1, 0.8)
    visited = {}
    for exploration in (0.0, 5.0):
        options = SearchSettings(
            exploration=exploration, iterations=12, similarity=False, simulation=False
        )
        made_world = world(random_script(5, end=0), judge, options)
        await one_commit(made_world)
        visited[exploration] = sum(bool(n.real_visits) for n in made_world.search.root.children)
    assert visited[0.0] == 1
    assert visited[5.0] > 1


async def test_without_simulation_the_judge_sees_only_drafts():
    seen = {}
    for simulation in (True, False):
        options = SearchSettings(simulation=simulation, iterations=20)
        made_world = world(random_script(5, end=0), hates(), options)
        await one_commit(made_world)
        seen[simulation] = [event.simulated for event in made_world.of(Judged)]
    assert not any(seen[False])
    assert any(seen[True])
    for tokens in seen[True]:
        assert not any(mark in text_of(tokens) for mark in PHRASE_ENDS)
        assert len(tokens) <= SearchSettings().simulation_length


async def test_a_phrase_that_has_ended_is_not_simulated():
    options = SearchSettings(lengths=(3,), width=1, iterations=1)
    made_world = world(says("ab, cd."), hates(), options)
    await one_commit(made_world)
    assert made_world.judge.seen == ["ab,"]


async def test_without_similarity_siblings_keep_their_values():
    for similarity in (True, False):
        options = SearchSettings(similarity=similarity, iterations=1)
        made_world = world(random_script(5, end=0), hates(), options, embedder=OneVector())
        await one_commit(made_world)
        touched = [n for n in made_world.nodes if not n.real_visits and n.visits]
        assert bool(touched) is similarity
        for node in touched:
            assert node.visits == pytest.approx(0.2)
            assert node.value == -1


async def test_a_similar_sibling_is_updated_as_in_equation_3():
    options = SearchSettings(iterations=2, width=2, lengths=(1,), simulation=False)
    values = iter([0.6, -0.4])
    judge = FakeJudge(lambda text: next(values), 0.9)

    def two_letters(prefix):
        return {ids("a")[0]: 0.6, ids("b")[0]: 0.4}

    made_world = world(two_letters, judge, options, embedder=OneVector())
    await one_commit(made_world)
    a, b = sorted(made_world.search.root.children, key=lambda node: node.tokens)
    # a was judged 0.6, which b shares with weight 0.2; then the search looked below or at b.
    if b.real_visits:
        assert b.value == pytest.approx((0.6 * 0.2 - 0.4) / 1.2)
        assert a.value == pytest.approx((0.6 - 0.4 * 0.2) / 1.2)
    else:
        assert a.value == pytest.approx(0.1)
        assert b.value == pytest.approx((0.6 * 0.2 - 0.4 * 0.2) / 0.4)


async def test_siblings_that_are_less_alike_than_the_embedder_asks_for_keep_their_values():
    class HalfAlike(OwnVectors):
        def embed(self, texts):
            vectors = super().embed(texts) * np.sqrt(0.5)
            vectors[:, -1] = np.sqrt(0.5)
            return vectors.astype(np.float32)

    for similar, updated in ((0.6, False), (0.4, True)):
        embedder = HalfAlike()
        embedder.similar = similar
        options = SearchSettings(iterations=1)
        made_world = world(random_script(5, end=0), hates(), options, embedder=embedder)
        await one_commit(made_world)
        assert any(n.visits and not n.real_visits for n in made_world.nodes) is updated


async def test_a_weightless_similarity_update_changes_nothing():
    options = SearchSettings(similarity_weight=0.0, iterations=3)
    made_world = world(random_script(5, end=0), hates(), options, embedder=OneVector())
    await one_commit(made_world)
    assert all(node.visits == node.real_visits for node in made_world.nodes)


async def test_only_judged_siblings_are_updated_when_so_asked():
    options = SearchSettings(similarity_unvisited=False, iterations=3)
    made_world = world(random_script(5, end=0), hates(), options, embedder=OneVector())
    await one_commit(made_world)
    judged = [n for n in made_world.search.root.children if n.real_visits]
    assert len(judged) > 1
    assert any(node.visits > node.real_visits for node in judged)
    for node in made_world.nodes:
        if not node.real_visits:
            assert node.visits == 0


async def test_unvisited_children_wait_where_they_count_as_the_worst():
    judge = FakeJudge(lambda text: -0.5, 0.8)
    visited = {}
    for unvisited in (0.0, -1.0):
        options = SearchSettings(
            unvisited=unvisited, exploration=0.0, iterations=8, similarity=False, simulation=False
        )
        made_world = world(random_script(5, end=0), judge, options)
        await one_commit(made_world)
        visited[unvisited] = sum(bool(n.real_visits) for n in made_world.search.root.children)
    assert visited[0.0] > visited[-1.0] == 1


async def test_rescaled_values_double_the_weight_of_exploration():
    judge = random_judge(7, 2)
    tree = []
    for exploration, rescale in ((2.0, False), (1.0, True)):
        options = SearchSettings(
            exploration=exploration, rescale=rescale, iterations=40, simulation=False
        )
        made_world = world(random_script(5, end=0), judge, options)
        await one_commit(made_world)
        tree.append([e.node for e in made_world.of(Judged)])
    assert tree[0] == tree[1]


async def test_a_uniform_share_evens_out_the_priors_below_the_root():
    visits = {}
    judge = FakeJudge(lambda text: 0.0, 0.5)
    for share in (0.0, 1.0):
        options = SearchSettings(
            root_uniform=share, iterations=40, similarity=False, simulation=False, lengths=(1,)
        )

        def skewed(prefix):
            return {ids("a")[0]: 0.97, ids("b")[0]: 0.01, ids("c")[0]: 0.02}

        made_world = world(skewed, judge, options)
        await one_commit(made_world)
        visits[share] = sorted(n.real_visits for n in made_world.search.root.children)
    assert visits[1.0][0] >= 12
    assert visits[0.0][0] < 6


async def test_equal_priors_do_not_weigh_twice_what_is_drawn_often():
    def skewed(prefix):
        return {ids("a")[0]: 0.97, ids("b")[0]: 0.02, ids("c")[0]: 0.01}

    options = SearchSettings(priors="equal", lengths=(1,), width=3, iterations=1)
    made_world = world(skewed, hates(), options)
    await one_commit(made_world)
    assert [event.prior for event in made_world.of(Drafted) if event.parent == 0] == [1 / 3] * 3


@pytest.mark.parametrize(
    ("aim", "threshold", "judged", "value"),
    [
        (None, 0.2, 4, 0.3),  # content with the first batch
        (0.8, 0.2, 8, 0.9),  # the second batch, below the best draft of the first, has a good one
        (1.0, 0.2, 12, 0.9),  # not there: the best that is acceptable, once all is spent
        (1.0, 0.95, 12, None),  # and nothing where nothing is
        (0.1, 0.95, 12, None),  # an aim never makes a draft acceptable
    ],
)
async def test_a_search_that_aims_high_commits_what_is_acceptable_in_the_end(
    aim, threshold, judged, value
):
    def script(prefix):
        letters = "abcd" if len(prefix) == len(PROMPT.tokens) else "efgh"
        return dict.fromkeys(ids(letters), 0.25)

    judge = FakeJudge(lambda text: 0.9 if text == "ag" else 0.3 if text == "a" else -1.0, threshold)
    options = PRESETS["fast"].model_copy(
        update={"lengths": (1,), "aim": aim, "iterations": 12, "similarity": False}
    )
    made_world = world(script, judge, options)
    await one_commit(made_world)
    assert len(made_world.of(Judged)) == judged
    committed = made_world.of(Committed)
    assert {event.value for event in committed} == (set() if value is None else {value})
    # All of the draft that earned the value, and not its first step alone.
    steps = {None: "", 0.3: "a", 0.9: "ag"}[value]
    assert text_of([token for event in committed for token in event.tokens]) == steps


async def test_one_token_set_is_greedy_unless_switched_off():
    def script(prefix):
        return {ids("a")[0]: 0.4, ids("b")[0]: 0.3, ids("c")[0]: 0.3}

    offered = {}
    for greedy in (True, False):
        options = SearchSettings(lengths=(6,), greedy=greedy, width=4, iterations=1)
        made_world = world(script, hates(), options)
        await one_commit(made_world)
        offered[greedy] = [text_of(e.tokens) for e in made_world.of(Drafted) if e.parent == 0]
    assert offered[True][0] == "aaaaaa"
    assert "aaaaaa" not in offered[False]
    assert len(offered[True]) == len(offered[False]) == 4


async def test_sampled_sets_keep_to_the_most_likely_tokens():
    options = SearchSettings(lengths=(6,), top_k=1, width=4, iterations=1)
    made_world = world(random_script(5, end=0), hates(), options)
    await one_commit(made_world)
    assert len(made_world.search.root.children) == 1


async def test_token_sets_have_the_length_of_their_depth_also_after_a_commit():
    options = SearchSettings(lengths=(1, 2, 4, 10), visits=1)
    made_world = await whole(world(random_script(5, end=0), loves(), options), limit=30)
    assert [len(event.tokens) for event in made_world.of(Committed)] == [1, 2, 4, 10, 10, 3]


async def test_a_search_below_committed_tokens_drafts_sets_of_the_last_length():
    judge = loves()
    meter = Meter(scripted(random_script(5, end=0)), judge, Budget())
    search = TreeSearch(
        PROMPT,
        meter,
        HashedNgrams(),
        SearchSettings(visits=1),
        threshold=0.5,
        limit=30,
        rng=random.Random(0),
        committed=ids("abc"),
        next_id=7,
    )
    events = [event async for event in search.commit()]
    drafted = [event for event in events if isinstance(event, Drafted)]
    assert {len(event.tokens) for event in drafted} == {10}
    assert drafted[0].node == 7
    assert search.committed[:3] == ids("abc")
    assert len(search.committed) == 13
    assert all(seen.startswith("abc") for seen in judge.seen)


async def test_the_first_level_takes_the_most_likely_tokens_with_their_probabilities():
    options = SearchSettings(width=3, iterations=1)

    def script(prefix):
        return {ids(letter)[0]: mass for letter, mass in zip("abcde", (5, 4, 3, 2, 1), strict=True)}

    made_world = world(script, hates(), options)
    await one_commit(made_world)
    drafted = made_world.of(Drafted)
    assert [text_of(event.tokens) for event in drafted] == ["a", "b", "c"]
    assert [event.prior for event in drafted] == pytest.approx([5 / 12, 4 / 12, 3 / 12])
    assert (
        made_world.meter.cost().drafted
        - sum(len(event.simulated) for event in made_world.of(Judged))
        <= 1 + 1
    )  # one request of one token (and the look-ahead's stop)


async def test_an_end_of_the_reply_has_the_prior_of_its_probability():
    # After 'a' the model ends with probability 0.1, and otherwise says one of two letters.
    def script(prefix):
        if len(prefix) == len(PROMPT.tokens):
            return {ids("a")[0]: 1.0}
        return {END: 0.1, ids("b")[0]: 0.5, ids("c")[0]: 0.4}

    options = SearchSettings(lengths=(1, 2), width=8, iterations=2, similarity=False)
    judge = FakeJudge(lambda text: 0.0, 0.5)
    for seed in range(20):
        made_world = world(script, judge, options, seed=seed)
        await one_commit(made_world)
        [a] = made_world.search.root.children
        ends = [child for child in a.children or () if not child.tokens]
        if ends:
            others = [child for child in a.children if len(child.tokens) == 2]
            assert ends[0].prior < max(child.prior for child in others)
            return
    raise AssertionError("no seed drafted an immediate end")


async def test_several_leaves_are_in_flight_at_once():
    options = SearchSettings(leaves=4, iterations=20, lengths=(2,), similarity=False)
    made_world = world(random_script(5, end=0), random_judge(3), options)
    calls = []
    judge = made_world.judge.judge

    async def counted(prompt, replies):
        calls.append(len(replies))
        return await judge(prompt, replies)

    made_world.judge.judge = counted
    await one_commit(made_world)
    assert max(calls) == 4
    check_tree(made_world)


async def test_leaves_in_flight_are_settled_when_the_budget_ends_the_choice_of_more():
    # The tokens suffice for the first expansions and run out while a second leaf is chosen.
    for tokens in range(3, 60):
        options = SearchSettings(leaves=4, lengths=(2,), width=3, iterations=30, simulation=False)
        made_world = world(
            random_script(5, end=0), random_judge(3), options, budget=Budget(tokens=tokens)
        )
        await one_commit(made_world, exhausted_best=True)
        check_tree(made_world)


async def test_a_draft_is_told_also_when_the_budget_ends_the_choice_that_made_it():
    # One child more is drafted at the root; for the children of its sibling nothing is left.
    options = SearchSettings(
        lengths=(1,), width=2, variance=9.0, unvisited=-1, visits=9, simulation=False
    )

    def script(prefix):
        return {ids("a")[0]: 0.45, ids("b")[0]: 0.45, ids("c")[0]: 0.1}

    for tokens in range(1, 12):
        for seed in range(30):
            made_world = world(
                script,
                hates(),
                options,
                budget=Budget(tokens=tokens),
                embedder=OneVector(),
                seed=seed,
            )
            await one_commit(made_world)
            check_tree(made_world)
            told = {event.node for event in made_world.of(Drafted)}
            assert told == {node.id for node in made_world.nodes}


@anything
@given(cases(leaves=st.integers(2, 4)), st.integers(0, 12), st.booleans())
async def test_visits_and_values_agree_also_where_some_drafts_are_too_long_to_be_judged(
    case, room, exhausted_best
):
    judge = NearsightedJudge(room, random_judge(case["judge"]).opinion, case["threshold"])
    made_world = world(
        random_script(case["script"], end=case["end"]),
        judge,
        case["settings"],
        limit=case["limit"],
        budget=Budget(tokens=case["tokens"], iterations=case["iterations"]),
        embedder=EMBEDDERS[case["embedder"]](),
        seed=case["seed"],
    )
    search = made_world.search
    while not search.finished and len(search.committed) < case["limit"]:
        events = await one_commit(made_world, exhausted_best=exhausted_best)
        check_tree(made_world)
        if not any(isinstance(event, Committed) for event in events):
            break


async def test_a_draft_too_long_to_be_judged_is_asked_about_once():
    def script(prefix):
        said = text_of(prefix[len(PROMPT.tokens) :])
        if not said:
            return dict.fromkeys(ids("abc"), 1 / 3)
        return {ids("b")[0]: 1.0} if said.startswith("b") else {END: 1.0}

    judge = NearsightedJudge(5, lambda text: -1.0)
    options = SearchSettings(
        lengths=(9,), width=12, leaves=4, iterations=30, simulation=False, dynamic_addition=False
    )
    made_world = world(script, judge, options)
    await one_commit(made_world)
    assert sorted(judge.seen) == ["a", "c"]
    assert judge.too_long == ["b" * 9] * 2  # in a batch, and then alone


class NearsightedBelowA(FakeJudge):
    """Has room for a alone, and for all that begins with b."""

    async def judge(self, prompt, replies):
        if any(len(reply) > 1 and reply.startswith("a") for reply in replies):
            raise ContextError("too long for the judge")
        return await super().judge(prompt, replies)


async def test_where_all_that_follows_is_too_long_to_be_judged_the_search_goes_on_elsewhere():
    options = SearchSettings(
        lengths=(1,), width=2, leaves=4, iterations=60, exploration=20.0, visits=20
    )
    judge = NearsightedBelowA(lambda text: 1.0 if text == "a" else -1.0)
    made_world = world(
        lambda prefix: dict.fromkeys(ids("ab"), 0.5),
        judge,
        options.model_copy(update={"simulation": False, "dynamic_addition": False}),
        limit=3,
    )
    await one_commit(made_world)
    assert sorted(judge.seen) == ["a", "b", "ba", "baa", "bab", "bb", "bba", "bbb"]
    [committed] = made_world.of(Committed)
    assert (text_of(committed.tokens), committed.visits) == ("a", 20)
    check_tree(made_world)
    await one_commit(made_world)
    assert made_world.search.spent == "no room to judge a longer reply"


@pytest.mark.parametrize("slow", [True, False])
async def test_a_slow_embedder_lets_others_have_their_turn(slow):
    threads = set()

    class Watched(OwnVectors):
        def embed(self, texts):
            threads.add(threading.get_ident())
            return super().embed(texts)

    embedder = Watched()
    embedder.slow = slow
    await one_commit(world(random_script(5), random_judge(3), PRESETS["paper"], embedder=embedder))
    assert threads and (threading.get_ident() in threads) is not slow


async def test_nothing_is_left_in_flight_when_a_search_is_closed_early():
    options = SearchSettings(leaves=3, iterations=20)
    made_world = world(random_script(5, end=0), hates(), options)
    stream = made_world.search.commit()
    async for event in stream:
        if isinstance(event, Judged):
            break
    await stream.aclose()
    assert all(node.pending == 0 for node in made_world.nodes)


def family(**children: dict[str, Any]) -> Node:
    """A root with children of one token each, all with the same embedding."""

    def node(place: int, letter: str, parent: Node | None, **fields: Any) -> Node:
        plain = {"prior": 0.5, "logprob": -1.0, "start": 0, "depth": 0, "finished": False}
        vector = np.array([1, 0], dtype=np.float32)
        return Node(
            id=place, parent=parent, tokens=ids(letter), embedding=vector, **(plain | fields)
        )

    root = node(0, "", None)
    root.children = [
        node(place, letter, root, **fields)
        for place, (letter, fields) in enumerate(children.items(), 1)
    ]
    return root


def test_a_leaf_in_flight_counts_as_a_visit_of_the_worst_value():
    greedy = SearchSettings(exploration=0, root_uniform=0)
    a = {"visits": 1.0, "real_visits": 1, "value": 0.5, "prior": 0.6}
    b = {"visits": 1.0, "real_visits": 1, "value": 0.4, "prior": 0.4}
    root = family(a=a, b=b)
    assert best_child(root, greedy).tokens == ids("a")
    root.children[0].pending = 1
    assert best_child(root, greedy).tokens == ids("b")


def test_children_are_alike_and_bad_only_when_all_were_visited():
    bad = {"visits": 1.0, "real_visits": 1, "value": -0.5}
    similar = {"visits": 0.2, "real_visits": 0, "value": -0.5}
    settings = SearchSettings()
    assert alike_and_bad(family(a=bad, b=bad), settings)
    assert not alike_and_bad(family(a=bad, b=similar), settings)
    assert not alike_and_bad(family(a=bad, b=bad | {"value": 0.0}), settings)
    root = family(a=bad, b=bad)
    root.children[1].embedding = np.array([0, 1], dtype=np.float32)
    assert not alike_and_bad(root, settings)


def test_presets_are_those_of_the_paper_and_of_its_code():
    paper, code = PRESETS["paper"], PRESETS["code"]
    for preset in (paper, code):
        assert preset.exploration == 2.0
        assert preset.similarity_weight == 0.2
        assert preset.similarity and preset.dynamic_addition
        assert (preset.width, preset.max_width) == (10, 20)
        assert preset.lengths == (1, 2, 4, 10)
        assert (preset.iterations, preset.threshold) == (50, 0.8)
        assert preset.visits == 6 + 1  # more than T_m, harmless
        assert preset.top_k == 15 and preset.greedy
        assert preset.root_uniform == 0.25
        assert preset.variance == 0.03
        assert preset.leaves == 1
    assert not paper.simulation and code.simulation
    assert not paper.rescale and code.rescale
    assert paper.unvisited == 0.0 and code.unvisited == -1.0
    assert paper.similarity_unvisited and not code.similarity_unvisited


def test_settings_refuse_what_cannot_be():
    for wrong in (
        {"lengths": ()},
        {"lengths": (0,)},
        {"width": 0},
        {"iterations": 0},
        {"iterations": 10_001},
        {"visits": 0},
        {"threshold": 2},
        {"leaves": 0},
        {"exploration": -1},
        {"visit": 3},
    ):
        with pytest.raises(ValueError):
            SearchSettings(**wrong)


def test_noise_is_the_same_in_every_process():
    assert noise(1, "a") == noise(1, "a") != noise(2, "a")
