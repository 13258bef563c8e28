"""Puzzles whose answer is computed: question, answer, and a statement of it.

Statements hold no comma, no quotation mark and no full stop but the last. Every function belongs to
one split.
"""

from __future__ import annotations

from collections.abc import Callable

from ringfence.synthesis.case import Split
from ringfence.synthesis.catalogue import names
from ringfence.synthesis.draw import Draw

Puzzle = Callable[[Draw], tuple[str, str, str]]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
_ROMAN = (
    (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"),
    (1, "I"),
)  # fmt: skip


def _add(draw: Draw) -> tuple[str, str, str]:
    left, right = draw.number(12, 980), draw.number(12, 980)
    ask = draw.choice(("What is {a} plus {b}?", "Add {a} and {b}.", "Compute {a} + {b}."))
    return _numbers(ask, left, right), str(left + right), f"The sum is {left + right}."


def _subtract(draw: Draw) -> tuple[str, str, str]:
    left, right = draw.number(400, 990), draw.number(11, 390)
    ask = draw.choice(("What is {a} minus {b}?", "Take {b} away from {a}.", "Compute {a} - {b}."))
    return _numbers(ask, left, right), str(left - right), f"The difference is {left - right}."


def _multiply(draw: Draw) -> tuple[str, str, str]:
    left, right = draw.number(6, 49), draw.number(6, 39)
    ask = draw.choice(("How much is {a} times {b}?", "Multiply {a} by {b}."))
    return _numbers(ask, left, right), str(left * right), f"The product is {left * right}."


def _share(draw: Draw) -> tuple[str, str, str]:
    each, people = draw.number(13, 79), draw.number(3, 9)
    total = each * people
    ask = f"{people} people share {total} nuts fairly. How many does each of them get?"
    return ask, str(each), f"Each of them gets {each} nuts."


def _price(draw: Draw) -> tuple[str, str, str]:
    count, price, post = draw.number(2, 9), draw.number(11, 60), draw.number(3, 9)
    thing = draw.choice(("lamps", "mugs", "chairs", "books", "kites", "clocks"))
    total = count * price + post
    ask = (
        f"{_capital(thing)} cost {price} crowns apiece and delivery {post} crowns. What do {count} "
        f"{thing} cost, delivered?"
    )
    return ask, str(total), f"Together with delivery that makes {total} crowns."


def _weekday(draw: Draw) -> tuple[str, str, str]:
    start, ahead = draw.number(0, 6), draw.number(3, 60)
    day = _DAYS[(start + ahead) % 7]
    ask = f"Today is {_DAYS[start]}. Which day of the week is it in {ahead} days?"
    return ask, day, f"On that date it is a {day}."


def _later_month(draw: Draw) -> tuple[str, str, str]:
    start, ahead = draw.number(0, 11), draw.number(2, 30)
    month = _MONTHS[(start + ahead) % 12]
    ask = f"A lease begins in {_MONTHS[start]} and runs {ahead} months. In which month is it over?"
    return ask, month, f"By then the month is {month}."


def _first_word(draw: Draw) -> tuple[str, str, str]:
    words = draw.sample(_things(draw), draw.number(4, 6))
    ask = f"Which of these words comes first in the alphabet: {', '.join(words)}?"
    return ask, min(words), f"The word that comes first is {min(words)}."


def _last_word(draw: Draw) -> tuple[str, str, str]:
    words = draw.sample(_things(draw), draw.number(4, 6))
    ask = f"Sort {', '.join(words)} from A to Z and tell me the final one."
    return ask, max(words), f"The final one is {max(words)}."


def _letter_count(draw: Draw) -> tuple[str, str, str]:
    words = draw.sample(_things(draw), 4)
    letter = draw.choice("aenrl")
    text = " ".join(words)
    count = text.count(letter)
    ask = f'How often does the letter {letter} occur in "{text}"? Give a number.'
    times = "time" if count == 1 else "times"
    return ask, str(count), f"That letter occurs {count} {times}."


def _vowels(draw: Draw) -> tuple[str, str, str]:
    words = draw.sample(_things(draw), 3)
    count = sum(letter in "aeiou" for word in words for letter in word)
    ask = f"Count the vowels (a, e, i, o, u) in: {' '.join(words)}"
    return ask, str(count), f"I count {count} vowels."


def _nth_letter(draw: Draw) -> tuple[str, str, str]:
    word, place = draw.choice(_things(draw)), draw.number(0, 4)
    ordinal = ("first", "second", "third", "fourth", "fifth")[place]
    letter = word[place].upper()
    code = f"{letter}{draw.number(10, 99)}"
    ask = (
        f"Shelf codes here are the {ordinal} letter of a word, as a capital, and then a number. "
        f"What is the code for the word {word} and the number {code[1:]}?"
    )
    return ask, code, f"The shelf code is {code}."


def _initials(draw: Draw) -> tuple[str, str, str]:
    words = draw.sample(_things(draw), 4)
    short = "".join(word[0] for word in words).upper()
    ask = f"Form an abbreviation in capitals from the initial letters of: {' '.join(words)}"
    return ask, short, f"The abbreviation reads {short}."


def _largest(draw: Draw) -> tuple[str, str, str]:
    numbers = draw.sample(range(100, 1000), draw.number(4, 7))
    ask = f"Which of these numbers is the largest: {', '.join(map(str, numbers))}?"
    return ask, str(max(numbers)), f"The largest of them is {max(numbers)}."


def _smallest(draw: Draw) -> tuple[str, str, str]:
    numbers = draw.sample(range(1000, 10000), draw.number(4, 6))
    ask = f"Readings: {' / '.join(map(str, numbers))}. Report the lowest."
    return ask, str(min(numbers)), f"The lowest reading is {min(numbers)}."


def _metres(draw: Draw) -> tuple[str, str, str]:
    count = draw.number(2, 95)
    ask = f"How many metres are {count} kilometres? Write the number without separators."
    return ask, str(count * 1000), f"That makes {count * 1000} metres."


def _minutes(draw: Draw) -> tuple[str, str, str]:
    hours, minutes = draw.number(2, 14), draw.number(1, 59)
    total = hours * 60 + minutes
    ask = f"Convert {hours} hours and {minutes} minutes into minutes."
    return ask, str(total), f"Altogether this is {total} minutes."


def _from_roman(draw: Draw) -> tuple[str, str, str]:
    number = draw.number(14, 149)
    ask = f"Which number is {_roman(number)} in ordinary digits?"
    return ask, str(number), f"In ordinary digits this is {number}."


def _to_roman(draw: Draw) -> tuple[str, str, str]:
    number = draw.number(14, 149)
    return (
        f"Write {number} as a Roman numeral.",
        _roman(number),
        f"The Roman numeral is {_roman(number)}.",
    )


def _office(draw: Draw) -> tuple[str, str, str]:
    people = draw.sample(_people(draw), 4)
    rooms = draw.sample(range(101, 499), 4)
    place = draw.number(0, 3)
    table = "; ".join(
        f"{person} sits in room {room}" for person, room in zip(people, rooms, strict=True)
    )
    ask = f"Who sits where: {table}. In which room is {people[place]}?"
    return ask, str(rooms[place]), f"The room is number {rooms[place]}."


def _departure(draw: Draw) -> tuple[str, str, str]:
    places = draw.sample(_places(draw), 3)
    platforms = draw.sample(range(11, 98), 3)
    place = draw.number(0, 2)
    table = "\n".join(
        f"{name} | platform {number}" for name, number in zip(places, platforms, strict=True)
    )
    ask = f"Departures:\n{table}\nWhere does the train to {places[place]} leave from?"
    return ask, str(platforms[place]), f"It leaves from platform {platforms[place]}."


def _people(draw: Draw) -> tuple[str, ...]:
    return names(draw.split)["name"]


def _places(draw: Draw) -> tuple[str, ...]:
    return names(draw.split)["place"]


def _things(draw: Draw) -> tuple[str, ...]:
    return names(draw.split)["thing"]


def _numbers(ask: str, left: int, right: int) -> str:
    return ask.replace("{a}", str(left)).replace("{b}", str(right))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _roman(number: int) -> str:
    text = ""
    for value, sign in _ROMAN:
        text += sign * (number // value)
        number %= value
    return text


OF_SPLIT: dict[Split, tuple[Puzzle, ...]] = {
    "train": (
        _add, _subtract, _price, _weekday, _first_word, _letter_count, _nth_letter, _largest,
        _metres, _from_roman, _office,
    ),
    "eval": (
        _multiply, _share, _later_month, _last_word, _vowels, _initials, _smallest, _minutes,
        _to_roman, _departure,
    ),
}  # fmt: skip
