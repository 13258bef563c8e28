"""Imports point down, and heavy libraries are imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ringfence"

# Low to high. A module imports from lower rows, and from its own row only the named neighbours;
# the modules of a package (engines, server, …) may import each other.
ROWS = [
    ("errors",),
    ("resolution", "yaml_files", "partial_files", "tool_calls"),
    (
        "engine",
        "concurrency",
        "rings",
        "gguf_metadata",
        "tokenizer_json",
        "written_calls",
        "search_settings",
        "principle",
        "records",
    ),
    ("events", "stop_strings", "vocabulary", "policy_files", "phrasing", "segments"),
    ("rendering", "statistics", "embedding", "toolbox", "graders", "adapters"),
    ("judges", "judged_items", "engines", "audit"),
    ("budget", "judge_check", "tree"),
    ("proposals", "likeness"),
    ("options", "search"),
    ("decoders",),
    ("decoding",),
    ("generation", "tree_view", "configuration", "server", "synthesis"),
    ("suites",),
    ("reports",),
    ("evaluation",),
    ("training",),
    ("commandline",),
    ("cli",),
]
NEIGHBOURS: set[tuple[str, str]] = set()
# Engines know nothing of conversations, although rings and rendering lie below them.
ENGINES_MAY_IMPORT = {"errors", "engine", "concurrency", "gguf_metadata", "tokenizer_json"} | {
    "vocabulary",
    "adapters",
    "segments",  # tokens that carry rings, and the model's own signal: no messages
}
# Heavy libraries and where they may be imported at the top of a module.
HEAVY = {
    "torch": {"adapters/applying.py", "segments/signal.py"}
    | {"engines/transformers.py", "engines/kept_caches.py", "engines/rows.py"}
    | {"training/collation.py", "training/isolation.py", "training/running.py"}
    | {"training/processes.py"}
    | {"training/trainers.py", "training/watching.py", "training/shared_attention.py"},
    "transformers": {"engines/transformers.py"}
    | {"training/running.py", "training/trainers.py", "training/watching.py"}
    | {"training/shared_attention.py"},
    "trl": set(),
    "peft": set(),
    "datasets": set(),
    "accelerate": set(),
    "fastapi": {"server/"},
    "uvicorn": {"server/"},
    "xllamacpp": {"engines/llama_child.py"},
    "rich": {"commandline/", "cli.py"},
    "inspect_ai": {"evaluation/"},
    "sentence_transformers": set(),
    "gguf": set(),
    "openai": set(),
}
ROW_OF = {module: row for row, modules in enumerate(ROWS) for module in modules}


def files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py"))


def home(path: Path) -> str:
    """The module of the table that a file belongs to; empty for the package itself."""
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module by its full name, and whether it is imported inside a function."""
    package = ["ringfence", *path.relative_to(SOURCE).parts[:-1]]

    def visit(node: ast.AST, late: bool) -> Iterator[tuple[str, bool]]:
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                above = package[: len(package) + 1 - child.level] if child.level else []
                name = ".".join([*above, *([child.module] if child.module else [])])
                if name == "ringfence":
                    yield from ((f"ringfence.{alias.name}", late) for alias in child.names)
                else:
                    yield name, late
            yield from visit(child, late)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def own_imports(path: Path) -> set[str]:
    """Modules of the table that a file imports, its own package left out."""
    modules = {
        name.split(".")[1]
        for name, _ in imports(path)
        if name.startswith("ringfence.") and name != "ringfence.__version__"
    }
    return modules - {home(path)}


def test_every_module_has_its_row():
    assert {home(path) for path in files()} - {""} <= set(ROW_OF)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    here = home(path)
    if not here:
        return  # public names, imported when they are used
    for module in own_imports(path):
        lower = ROW_OF[module] < ROW_OF[here]
        assert lower or (here, module) in NEIGHBOURS, f"{here} imports {module}"


def test_engines_import_no_conversations_and_no_judges():
    for path in files():
        if home(path) == "engines":
            assert own_imports(path) <= ENGINES_MAY_IMPORT, path


def test_heavy_libraries_are_imported_late_or_in_modules_of_their_own():
    for path in files():
        place = path.relative_to(SOURCE).as_posix()
        for name, late in imports(path):
            allowed = HEAVY.get(name.split(".")[0])
            if allowed is not None and not late:
                assert place.startswith(tuple(allowed)), f"{place} imports {name} at its top"


def test_the_table_can_fail():
    source = SOURCE / "search.py"
    assert {"budget", "tree", "search_settings"} <= own_imports(source)
    assert ("jinja2.sandbox", True) in set(imports(SOURCE / "rendering" / "templates.py"))
    assert ROW_OF["search"] < ROW_OF["decoding"] < ROW_OF["server"] < ROW_OF["cli"]


@pytest.mark.parametrize("module", ["ringfence", "ringfence.cli"])
def test_importing_the_package_or_the_command_line_loads_nothing_heavy(module):
    if module.endswith("cli") and not (SOURCE / "cli.py").exists():
        pytest.skip("no command line yet")
    program = (
        f"import sys, {module}\n"
        "heavy = 'numpy torch transformers fastapi uvicorn xllamacpp gguf tokenizers openai'\n"
        "print(*[name for name in heavy.split() if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_public_names_are_all_there():
    import ringfence

    for name in ringfence.__all__:
        assert getattr(ringfence, name) is not None
    assert set(ringfence.__all__) == set(dir(ringfence))
    with pytest.raises(AttributeError, match="no attribute 'brain'"):
        _ = ringfence.brain
