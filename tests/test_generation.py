"""Batches: nothing finished is lost or doubled, whenever the job is cut short."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ringfence.errors import InputError
from ringfence.generation import Ledger, Line, Prompt, generate, manifest, read_prompts

COUNT = 12


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f'{{"prompt": "say {n}", "id": "p{n}"}}\n' for n in range(COUNT)))
    return read_prompts(file)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def job(prompts: list[Prompt], seed: int = 1) -> dict[str, object]:
    return manifest(prompts, {"decoder": "plain", "seed": seed})


async def answer(prompt: Prompt) -> Line:
    """Takes a different while for every prompt, so that they finish out of order."""
    for _ in range(random.Random(str(prompt.id)).randrange(5)):
        await asyncio.sleep(0)
    return {"id": prompt.id, "reply": f"{prompt.text}\u2028{prompt.seed(1)}"}


def failing(after: int) -> Callable[[Prompt], Awaitable[Line]]:
    made = 0

    async def answer_or_fail(prompt: Prompt) -> Line:
        nonlocal made
        made += 1
        if made > after:
            raise RuntimeError("power cut")
        return await answer(prompt)

    return answer_or_fail


async def run(
    prompts: list[Prompt],
    out: Path,
    how: Callable[[Prompt], Awaitable[Line]] = answer,
    *,
    concurrency: int = 4,
    seed: int = 1,
    **options: bool,
) -> int:
    ledger = Ledger(out, job(prompts, seed))
    done = ledger.open(**options)
    if ledger.complete:
        return 0
    lines = generate(prompts, ledger, done, how, concurrency=concurrency)
    return len([line async for line in lines])


def partial(out: Path) -> Path:
    return Path(f"{out}.partial")


async def test_lines_come_in_the_order_of_the_prompts_whatever_runs_side_by_side(
    prompts: list[Prompt], out: Path, tmp_path: Path
) -> None:
    await run(prompts, out, concurrency=5)
    await run(prompts, tmp_path / "one.jsonl", concurrency=1)
    assert out.read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    lines = [json.loads(line) for line in out.read_text().split("\n")[:-1]]
    assert [line["id"] for line in lines] == [f"p{n}" for n in range(COUNT)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "one.jsonl",
        "out.jsonl",
        "prompts.jsonl",
    ]


@pytest.mark.parametrize("after", [0, 1, 5, COUNT - 1])
async def test_what_was_finished_before_a_failure_is_not_made_again(
    prompts: list[Prompt], out: Path, tmp_path: Path, after: int
) -> None:
    with pytest.raises(RuntimeError):
        await run(prompts, out, failing(after), concurrency=1)
    assert not out.exists()
    if after:
        assert len(partial(out).read_text().splitlines()) == 1 + after
    else:
        assert not partial(out).exists(), "a start without a line is in the way of nothing"
    assert await run(prompts, out, resume=True) == COUNT - after
    await run(prompts, tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


async def test_a_partial_file_cut_anywhere_is_resumed(
    prompts: list[Prompt], out: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError):
        await run(prompts, out, failing(2), concurrency=1)
    whole = partial(out).read_bytes()
    await run(prompts, tmp_path / "whole.jsonl")
    expected = (tmp_path / "whole.jsonl").read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    near = {end + step for end in ends for step in (0, 1, 2)} & set(range(len(whole) + 1))
    for cut in sorted(near | set(range(0, len(whole), 23))):
        partial(out).write_bytes(whole[:cut])
        made = await run(prompts, out, resume=True)
        finished = max(0, whole[:cut].count(b"\n") - 1)
        assert made == COUNT - finished, cut
        assert out.read_bytes() == expected, cut
        out.unlink()


async def test_a_crash_between_rename_and_removal_doubles_nothing(
    prompts: list[Prompt], out: Path
) -> None:
    ledger = Ledger(out, job(prompts))
    ledger.open()
    for prompt in reversed(prompts):
        ledger.append(await answer(prompt))
    lines = partial(out).read_bytes()
    ledger.finish([prompt.id for prompt in prompts])
    ledger.close()
    finished = out.read_bytes()
    partial(out).write_bytes(lines)
    assert await run(prompts, out, resume=True) == 0
    assert out.read_bytes() == finished
    assert not partial(out).exists()


async def test_resuming_what_is_complete_makes_nothing_and_touches_nothing(
    prompts: list[Prompt], out: Path
) -> None:
    await run(prompts, out)
    before = out.stat()
    assert await run(prompts, out, failing(0), resume=True) == 0
    assert out.stat().st_mtime_ns == before.st_mtime_ns


async def test_output_in_the_way_is_an_error_unless_forced(
    prompts: list[Prompt], out: Path
) -> None:
    out.write_text("precious\n")
    with pytest.raises(InputError, match="--force replaces"):
        await run(prompts, out)
    with pytest.raises(InputError, match="not made with these settings"):
        await run(prompts, out, resume=True)
    assert out.read_text() == "precious\n"
    with pytest.raises(RuntimeError):
        await run(prompts, out, failing(3), force=True)
    assert out.read_text() == "precious\n", "replaced before the new one was complete"
    await run(prompts, out, resume=True)
    assert len(out.read_text().splitlines()) == COUNT


async def test_an_unfinished_run_in_the_way_names_both_ways_out(
    prompts: list[Prompt], out: Path
) -> None:
    with pytest.raises(RuntimeError):
        await run(prompts, out, failing(3))
    with pytest.raises(InputError, match=r"--resume goes on.*--force"):
        await run(prompts, out)
    assert await run(prompts, out, force=True) == COUNT


async def test_resuming_with_other_settings_or_prompts_is_an_error_that_names_them(
    prompts: list[Prompt], out: Path
) -> None:
    with pytest.raises(RuntimeError):
        await run(prompts, out, failing(3))
    with pytest.raises(InputError, match="seed was 1, now 2"):
        await run(prompts, out, seed=2, resume=True)
    with pytest.raises(InputError, match="other prompts"):
        await run(prompts[1:], out, resume=True)
    assert await run(prompts, out, resume=True) >= COUNT - 3
    with pytest.raises(InputError, match="not made with these settings"):
        await run(prompts, out, seed=2, resume=True)


async def test_a_line_that_no_crash_leaves_is_an_error(prompts: list[Prompt], out: Path) -> None:
    with pytest.raises(RuntimeError):
        await run(prompts, out, failing(3))
    lines = partial(out).read_text().splitlines(keepends=True)
    partial(out).write_text("".join([lines[0], "{broken\n", *lines[1:]]))
    with pytest.raises(InputError, match="line 2: damaged"):
        await run(prompts, out, resume=True)


@pytest.mark.parametrize(
    "notes",
    [
        b"my notes without newline",
        b"nul \0 here\nmore\n",
        b"\0\nmine\n",
        b'{"note": "whole"}',
        b"[" * 200_000 + b"\n",
    ],
)
async def test_a_file_of_somebody_elses_is_not_cut_off(
    prompts: list[Prompt], out: Path, notes: bytes
) -> None:
    partial(out).write_bytes(notes)
    with pytest.raises(InputError, match=r"not made by ringfence; --force starts anew"):
        await run(prompts, out, resume=True)
    assert partial(out).read_bytes() == notes


@pytest.mark.parametrize(
    "torn", [b"", b"\0\n\0", b'{"jo', b'{"job": {"deco', b'{"job"\0\0\0', b"\0" * 9]
)
async def test_a_first_line_torn_by_a_crash_is_begun_again(
    prompts: list[Prompt], out: Path, torn: bytes
) -> None:
    partial(out).write_bytes(torn)
    assert await run(prompts, out, resume=True) == COUNT


async def test_two_runs_do_not_write_one_file(prompts: list[Prompt], out: Path) -> None:
    first = Ledger(out, job(prompts))
    first.open()
    with pytest.raises(InputError, match="another run is writing"):
        Ledger(out, job(prompts)).open(resume=True)
    with pytest.raises(InputError, match="another run is writing"):
        Ledger(out, job(prompts)).open(force=True)
    first.close()
    assert await run(prompts, out, resume=True) == COUNT


async def test_leaving_early_cancels_what_is_in_flight(prompts: list[Prompt], out: Path) -> None:
    flying = 0

    async def slow(prompt: Prompt) -> Line:
        nonlocal flying
        if prompt.id == "p0":
            return await answer(prompt)
        flying += 1
        try:
            await asyncio.sleep(3600)
        finally:
            flying -= 1
        return {}

    ledger = Ledger(out, job(prompts))
    lines = generate(prompts, ledger, ledger.open(), slow, concurrency=4)
    assert (await anext(lines))["id"] == "p0"
    await lines.aclose()
    assert flying == 0
    assert await run(prompts, out, resume=True) == COUNT - 1


def test_seeds_depend_on_the_id_and_not_on_the_place() -> None:
    one, two = (Prompt(id=id_, where="here", text="x") for id_ in ("a", "b"))
    assert one.seed(1) == Prompt(id="a", where="there", text="y").seed(1)
    assert len({one.seed(1), two.seed(1), one.seed(2)}) == 3
    assert 0 <= one.seed(1) < 2**31


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no prompt"),
        ("{", "line 1: not valid JSON"),
        ("[" * 200_000, "line 1: not valid JSON"),
        ('{"prompt": "a"}\n[1]', "line 2: must be an object"),
        ('{"prompt": "a", "messages": []}', "either prompt or messages"),
        ('{"prompt": ""}', "prompt must be text and not empty"),
        ('{"prompt": 3}', "prompt must be text"),
        ('{"messages": "a"}', "messages must be a list"),
        ('{"prompt": "a", "seed": 3}', "unknown field 'seed'"),
        ('{"prompt": "a", "id": 1.5}', "id must be"),
        ('{"prompt": "a", "id": true}', "id must be"),
        ('{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}', "line 2: id 'x' is that of"),
        ('{"prompt": "a", "id": "2"}\n{"prompt": "b"}', "line 2: id 2 is that of"),
    ],
)
def test_prompts_that_cannot_be_used_are_named_by_file_and_line(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_prompts(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_prompts_are_read_with_their_ids_up_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a\u2028b"}\n\n{"messages": [{"role": "user"}], "id": 7}\nbroken')
    first, second = read_prompts(file, limit=2)
    assert (first.id, first.text) == (1, "a\u2028b")
    assert (second.id, second.messages) == (7, ({"role": "user"},))
