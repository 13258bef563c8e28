"""The tree of drafts as a fold over events, its rows, and how they look."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from fakes import PROMPT, VOCABULARY, FakeJudge, ids, noise, random_script, scripted

from ringfence.commandline import picture, terminal
from ringfence.decoding import decode
from ringfence.events import Committed, Cost, Drafted, Ended, Judged, Rewound
from ringfence.options import Options
from ringfence.tree_view import DraftTree, Row


def drafted(node: int, parent: int, text: str) -> Drafted:
    return Drafted(node=node, parent=parent, tokens=ids(text), prior=0.5)


def judged(node: int, value: float) -> Judged:
    return Judged(node=node, value=value, reason="because")


def committed(node: int, text: str, value: float | None = None) -> Committed:
    return Committed(node=node, tokens=ids(text), value=value, text=text)


def rewound(text: str, value: float) -> Rewound:
    return Rewound(kept=0, dropped=ids(text), value=value)


def ended(reason: str = "stop", detail: str = "") -> Ended:
    return Ended(reason=reason, value=0.5, detail=detail, cost=Cost())  # type: ignore[arg-type]


STORY = [
    drafted(1, 0, "bad"),
    drafted(2, 0, "good"),
    drafted(3, 0, "unseen"),
    judged(1, -0.8),
    rewound("bad", -0.8),
    drafted(4, 1, " and worse"),
    judged(4, -0.9),
    judged(2, 0.7),
    committed(2, "good", 0.7),
    drafted(5, 2, " end"),
    judged(5, 0.9),
    committed(5, " end", 0.9),
    ended(),
]


def tree_of(events: list[object]) -> DraftTree:
    return DraftTree.of(events, "It is", VOCABULARY)  # type: ignore[arg-type]


def test_what_was_dropped_stands_before_what_was_committed_in_its_place() -> None:
    assert [(row.kind, row.depth, row.text, row.value) for row in tree_of(STORY).rows()] == [
        ("prompt", 0, "It is", None),
        ("dropped", 1, "bad", -0.8),
        ("dropped", 2, " and worse", -0.9),
        ("committed", 0, "good", 0.7),
        ("committed", 0, " end", 0.9),
    ]


def test_drafts_that_were_never_judged_are_no_rows_but_are_counted() -> None:
    rows = list(tree_of(STORY).rows())
    assert not [row for row in rows if row.text == "unseen"]
    assert rows[3].drafts == 3


def test_rows_beyond_breadth_and_depth_are_summed_up() -> None:
    events: list[object] = []
    for node, value in enumerate((-0.5, -0.1, -0.3), 1):
        events += [drafted(node, 0, f"w{node}"), judged(node, value)]
    events += [drafted(4, 1, "deep"), judged(4, -0.9), ended("refused", "no luck")]
    rows = list(tree_of(events).rows(breadth=1, depth=1))
    assert [(row.kind, row.depth, row.text) for row in rows[1:]] == [
        ("dropped", 1, "w1"),
        ("more", 2, "1 more draft dropped, -0.90"),
        ("more", 1, "2 more drafts dropped, -0.30 to -0.10"),
        ("refused", 0, "no luck"),
    ]


async def test_the_trunk_of_any_decoder_is_its_reply() -> None:
    judge = FakeJudge(lambda text: 2 * noise(text) - 1, threshold=0.0)
    options = Options(max_tokens=24, exhausted="best", segment=6, seed=3)
    for decoder in ("plain", "best-of-n", "rejection", "rain", "guarded"):
        engine = scripted(random_script(1))
        events = [
            event
            async for event in decode(
                engine,
                PROMPT,
                decoder=decoder,  # type: ignore[arg-type]
                judge=judge,
                options=options,
            )
        ]
        tree = tree_of(list(events))
        reply = [t for event in events if isinstance(event, Committed) for t in event.tokens]
        assert [t for twig in tree.trunk[1:] for t in twig.tokens] == reply, decoder
        assert [twig.parent for twig in tree.trunk[1:]] == tree.trunk[:-1], decoder
        assert tree.text == "".join(e.text for e in events if isinstance(e, Committed))
        assert len(tree.to_json()) == sum(isinstance(event, Drafted) for event in events)
        assert tree.ended == events[-1]


def test_every_draft_is_in_the_json_with_its_place_and_its_verdict() -> None:
    first, *_, last = tree_of(STORY).to_json()
    assert first == {
        "node": 1,
        "parent": 0,
        "text": "bad",
        "tokens": list(ids("bad")),
        "prior": 0.5,
        "value": -0.8,
        "reason": "because",
        "committed": False,
    }
    assert last["committed"] and last["parent"] == 2


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202egnp[red]x[/red]:smile:\x00\x7f"


def test_hostile_text_is_drawn_as_escapes_and_never_as_markup() -> None:
    rows = [
        Row(kind="prompt", text=HOSTILE),
        Row(kind="dropped", text=HOSTILE, depth=1, value=-1.0),
        Row(kind="committed", text=HOSTILE, value=1.0),
        Row(kind="refused", text=HOSTILE),
    ]
    console = terminal.console()
    with console.capture() as captured:
        console.print(terminal.tree(rows, 400))
    text = captured.get()
    assert text.count(r"\x1b]0;owned\x07\x1b[2J\x9b1m\u202egnp[red]x[/red]:smile:\x00\x7f") == 4
    assert not set(text) & set("\x1b\x07\x9b\u202e\x00\x7f")


def test_long_drafts_are_broken_below_their_beginning() -> None:
    rows = [Row(kind="dropped", depth=2, value=-0.5, text="a word and " * 12)]
    lines = terminal.tree(rows, 60).plain.split("\n")
    assert len(lines) > 1
    assert lines[0].startswith("│   ✗ -0.50 a word")
    assert all(line.startswith("│           ") for line in lines[1:])
    assert max(map(len, lines)) <= 60


def test_the_picture_is_an_svg_that_escapes_what_it_shows() -> None:
    text = f"</text><script>alert(1)</script> {HOSTILE} " + "and a long tail " * 20
    rows = [*tree_of(STORY).rows(), Row(kind="dropped", text=text, depth=1, value=-0.2)]
    drawn = ElementTree.fromstring(picture.svg(rows, "a <title>", "a note"))
    assert drawn.tag.endswith("svg")
    assert not [one for one in drawn.iter() if one.tag.endswith("script")]
    assert "</text><script>alert(1)</script>" in "".join(drawn.itertext())
