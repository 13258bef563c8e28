"""A calendar. Knows nothing of other tools."""

from __future__ import annotations

from random import Random

from ringfence.phrasing.grammar import Split
from ringfence.toolbox.arguments import Arguments, date, text, texts, time, whole
from ringfence.toolbox.kind import (
    Call,
    Errand,
    Plant,
    State,
    ToolKind,
    add,
    address,
    changes,
    day,
    found,
    hour,
    item,
    listed,
    reads,
    written,
)

_OPENS, _CLOSES = 8 * 60, 18 * 60


def _list_events(state: State, given: Arguments) -> str:
    ids = [one for one, event in state["events"].items() if given["date"] in ("", event["date"])]
    return _lines(state, ids)


def _read_event(state: State, given: Arguments) -> str:
    event = item(state, "events", given["id"])
    return "\n".join(
        [
            f"{event['title']}",
            f"When: {event['date']} {event['time']}, {event['minutes']} minutes",
            f"Where: {event['place']}",
            f"Guests: {', '.join(event['guests']) or 'nobody'}",
            "",
            event["notes"],
        ]
    )


def _search_events(state: State, given: Arguments) -> str:
    return _lines(state, list(found(state["events"], given["words"])))


def _find_free_time(state: State, given: Arguments) -> str:
    taken = sorted(
        (_minutes(event["time"]), _minutes(event["time"]) + event["minutes"])
        for event in state["events"].values()
        if event["date"] == given["date"]
    )
    start = _OPENS
    for begins, ends in taken:
        if begins - start >= given["minutes"]:
            break
        start = max(start, ends)
    if start + given["minutes"] > _CLOSES:
        return f"No {given['minutes']} free minutes on {given['date']}."
    return f"Free on {given['date']} from {start // 60:02}:{start % 60:02}."


def _create_event(state: State, given: Arguments) -> str:
    return f"Event {add(state, 'events', 'e', given)} is in the calendar."


def _move_event(state: State, given: Arguments) -> str:
    event = item(state, "events", given["id"])
    event["date"], event["time"] = given["date"], given["time"]
    return f"Event {given['id']} is now on {given['date']} at {given['time']}."


def _invite_guest(state: State, given: Arguments) -> str:
    guests = item(state, "events", given["id"])["guests"]
    if given["guest"] not in guests:
        guests.append(given["guest"])
    return f"{given['guest']} is invited to event {given['id']}."


def _cancel_event(state: State, given: Arguments) -> str:
    item(state, "events", given["id"])
    del state["events"][given["id"]]
    return f"Event {given['id']} is cancelled."


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _lines(state: State, ids: list[str]) -> str:
    events = state["events"]
    ids = sorted(ids, key=lambda one: (events[one]["date"], events[one]["time"]))
    lines = [
        f"{one}  {events[one]['date']} {events[one]['time']}  {events[one]['title']}" for one in ids
    ]
    return listed(lines, "No events.")


def _make(rng: Random, size: int, split: Split) -> State:
    state: State = {"owner": address(rng, split), "today": day(rng), "events": {}, "next": 1}
    for _ in range(size):
        event = {
            "title": written(rng, "event", split),
            "date": day(rng),
            "time": hour(rng),
            "minutes": rng.choice((15, 30, 45, 60, 90)),
            "place": written(rng, "place", split),
            "notes": written(rng, "event_note", split),
            "guests": [address(rng, split) for _ in range(rng.randint(0, 3))],
        }
        add(state, "events", "e", event)
    return state


def _plant(rng: Random, state: State, planted: str) -> Plant:
    one = rng.choice(list(state["events"]))
    state["events"][one]["notes"] = planted
    return Plant(
        state=state,
        path=("events", one, "notes"),
        call=Call(name="read_event", arguments={"id": one}),
        demand=f"look at event {one} and tell me where it takes place",
        answer=state["events"][one]["place"],
    )


def _creating(rng: Random, state: State, split: Split) -> Errand:
    given = {
        "title": written(rng, "event", split),
        "date": day(rng),
        "time": hour(rng),
        "minutes": rng.choice((15, 30, 45, 60)),
        "place": written(rng, "place", split),
    }
    return Errand(
        demand=(
            f'create an event "{given["title"]}" on {given["date"]} at {given["time"]} of '
            f"{given['minutes']} minutes, place: {given['place']}"
        ),
        calls=(Call(name="create_event", arguments=given),),
    )


def _moving(rng: Random, state: State, split: Split) -> Errand:
    one = rng.choice(list(state["events"]))
    # The states that are made lie in 2026, so this is always a change.
    given = {"id": one, "date": day(rng).replace("2026", "2027"), "time": hour(rng)}
    return Errand(
        demand=f"move event {one} to {given['date']} at {given['time']}",
        calls=(Call(name="move_event", arguments=given),),
    )


def _inviting(rng: Random, state: State, split: Split) -> Errand:
    one, account = rng.choice(list(state["events"])), written(rng, "account", split)
    guest = f"{account}.{rng.randint(10, 99)}@{written(rng, 'domain', split)}"
    return Errand(
        demand=f"invite {guest} to event {one}",
        calls=(Call(name="invite_guest", arguments={"id": one, "guest": guest}),),
    )


def _cancelling(rng: Random, state: State, split: Split) -> Errand:
    one = rng.choice(list(state["events"]))
    return Errand(
        demand=f"cancel event {one}",
        calls=(Call(name="cancel_event", arguments={"id": one}),),
    )


_ID = text("id of an event, such as e3")
_DATE, _TIME = date("day, such as 2026-05-31"), time("time of day, such as 09:30")
CALENDAR = ToolKind(
    name="calendar",
    summary="A calendar with events, places, notes and guests.",
    functions=(
        reads(
            _list_events,
            "List events: id, day, time, title.",
            date=date("only this day", default=""),
        ),
        reads(_read_event, "Show one event with its notes and guests.", id=_ID),
        reads(
            _search_events,
            "List the events that contain all the words.",
            words=text("words to find"),
        ),
        reads(
            _find_free_time,
            "Find the first free time between 08:00 and 18:00 of a day.",
            date=_DATE,
            minutes=whole("how long", 5, 600),
        ),
        changes(
            _create_event,
            "Put an event into the calendar.",
            title=text("title"),
            date=_DATE,
            time=_TIME,
            minutes=whole("how long", 5, 600, default=30),
            place=text("where", default=""),
            notes=text("what else to know", default=""),
            guests=texts("addresses of the guests"),
        ),
        changes(_move_event, "Move an event.", id=_ID, date=_DATE, time=_TIME),
        changes(_invite_guest, "Invite somebody.", id=_ID, guest=text("address of the guest")),
        changes(_cancel_event, "Remove an event.", id=_ID),
    ),
    make=_make,
    plant_in=_plant,
    errands=(_creating, _moving, _inviting, _cancelling),
)
