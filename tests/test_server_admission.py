"""The queue before the slots, and requests that never get to run."""

from __future__ import annotations

import asyncio
import socket

import pytest
from server_parts import WORDS, Parts, Running, serving, until, user

from ringfence.options import Options
from ringfence.rendering import render_text
from ringfence.server import gate
from ringfence.server.admission import Admission
from ringfence.server.failures import Failure
from ringfence.server.jobs import Job, Plan
from ringfence.server.metrics import Metrics


async def hold(admission: Admission, order: list[int], number: int, leave: asyncio.Event) -> None:
    async with admission.slot():
        order.append(number)
        await leave.wait()


async def settle() -> None:
    """Let everything that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_waits_longest_comes_next() -> None:
    admission, order, leave = Admission(2, 10), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(admission, order, n, leave)) for n in range(6)]
    await settle()
    assert (admission.running, admission.waiting, order) == (2, 4, [0, 1])
    leave.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4, 5]
    assert (admission.running, admission.waiting) == (0, 0)


async def test_a_slot_passed_to_somebody_who_just_left_is_passed_on() -> None:
    admission, order = Admission(1, 10), list[int]()
    leaves = [asyncio.Event() for _ in range(4)]
    tasks = [asyncio.create_task(hold(admission, order, n, leaves[n])) for n in range(4)]
    await settle()
    # In one turn of the loop: the slot becomes free, and the next two in the queue leave.
    leaves[0].set()
    tasks[1].cancel()
    await asyncio.sleep(0)
    tasks[2].cancel()
    await settle()
    assert order[-1] == 3 and admission.waiting == 0 and admission.running == 1
    leaves[3].set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends[1:3]] == [asyncio.CancelledError] * 2
    assert admission.running == 0


async def test_a_full_queue_says_when_to_come_again() -> None:
    admission, leave = Admission(1, 0), asyncio.Event()
    task = asyncio.create_task(hold(admission, [], 0, leave))
    await settle()
    with pytest.raises(Failure) as caught:
        admission.check()
    assert caught.value.status == 429 and 1 <= int(caught.value.headers["Retry-After"]) <= 60
    leave.set()
    await task
    admission.check()


async def test_nobody_gets_in_while_the_server_stops() -> None:
    admission = Admission(1, 1)
    admission.stopping = True
    with pytest.raises(Failure) as caught:
        async with admission.slot():
            raise AssertionError
    assert caught.value.status == 503


async def test_a_job_broken_off_before_it_ran_tells_its_reader() -> None:
    admission = Admission(1, 1)
    plan = Plan(
        prompt=render_text("x", WORDS),
        decoder="plain",
        principle=None,
        judge=None,
        options=(Options(),),
    )
    job = Job(Parts(), plan, admission, Metrics(admission))
    job.start()
    job.break_off("the server is stopping")
    with pytest.raises(Failure, match="stopping"):
        _ = [step async for step in job.steps(5)]


def slow_post(running: Running) -> socket.socket:
    """A request whose body does not arrive."""
    host, port = running.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{"
    )
    return connection


def test_more_requests_than_there_is_room_for_are_not_even_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "_PASSING", 0)
    body = {"model": "tiny", "messages": user("hi")}
    with serving(Parts(), concurrency=1, queue=0) as running, running.http() as http:
        with slow_post(running) as connection:
            until(lambda: len(running.server.server_state.tasks) == 1, "the server reads")
            assert http.post("/v1/chat/completions", json=body).status_code == 429
            assert http.get("/health").status_code == 200
            connection.sendall(b"}")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_BODY_SECONDS", 0.05)
    with serving(Parts()) as running, slow_post(running) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
