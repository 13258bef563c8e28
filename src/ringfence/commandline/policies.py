"""The command `policy`: a policy's rings, and what it says of instructions. Reads and shows."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringfence.commandline import terminal
from ringfence.commandline.escaping import one_line
from ringfence.errors import InputError
from ringfence.policy_files import as_file, load, schema
from ringfence.resolution import Instruction, Resolution
from ringfence.rings import Policy
from ringfence.yaml_files import explain, text_of

_MOST_BYTES = 10_000_000


class InstructionLine(BaseModel):
    """A line of a file of instructions; see `ringfence.resolution.Instruction`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: str
    ring: str
    about: str
    wants: str
    quoted: bool = False
    delegated_by: str = ""


def show(name_or_path: str, instructions: Path | None, console: Console, *, as_json: bool) -> None:
    """Print a policy, and its rulings on a file of instructions.

    Raises:
        InputError: no such policy, or a file that is broken; names file, line and field.
    """
    policy = load(name_or_path)
    resolution = policy.resolve(_read(instructions, policy)) if instructions else None
    if as_json:
        data = as_file(policy).model_dump(mode="json")
        if resolution is not None:
            data["rulings"] = _rulings(resolution)
        terminal.emit(json.dumps(data))
        return
    _show_rings(policy, console)
    if resolution is not None:
        _show_rulings(resolution, console)


def show_schema() -> None:
    """Print the JSON Schema of policy files."""
    terminal.emit(json.dumps(schema()))


def _read(path: Path, policy: Policy) -> list[Instruction]:
    # Not splitlines: a text may hold U+2028 and others that Python takes for line ends.
    lines = text_of(path, _MOST_BYTES).split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            given = InstructionLine.model_validate_json(line)
            ring = policy.ring(given.ring)
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: {explain(error)}") from None
        except InputError as error:
            raise InputError(f"{path}, line {number}: ring: {error}") from None
        found.append(Instruction(**given.model_dump(exclude={"ring"}), ring=ring))
    return found


def _rulings(resolution: Resolution) -> list[dict[str, object]]:
    return [
        {
            "id": ruling.instruction.id,
            "holds": ruling.holds,
            "authority": ruling.authority.name if ruling.authority else None,
            "overruled_by": ruling.overruled_by or None,
            "reason": ruling.reason,
        }
        for ruling in resolution.rulings
    ]


def _show_rings(policy: Policy, console: Console) -> None:
    table = Table("ring", "name", "roles", "authority", box=None, pad_edge=False)
    for ring in policy.rings:
        roles = ", ".join(role for role, name in policy.roles.items() if name == ring.name)
        own = "none of its own" if ring.name in policy.silent else "its own"
        table.add_row(*(Text(one_line(cell)) for cell in (str(ring.level), ring.name, roles, own)))
    which = "later" if policy.supersession else "earlier"
    lent = "may" if policy.delegation else "may not"
    console.print(Text(one_line(f"policy {policy.name}"), style="bold"))
    console.print(table)
    console.print(Text(f"Between equals the {which} instruction holds. Authority {lent} be lent."))


def _show_rulings(resolution: Resolution, console: Console) -> None:
    table = Table("instruction", "wants", "", "why", box=None, pad_edge=False)
    for ruling in resolution.rulings:
        item = ruling.instruction
        verdict = Text("holds", style="green") if ruling.holds else Text("void", style="red")
        table.add_row(
            Text(one_line(f"{item.id} ({item.ring.name})")),
            Text(one_line(f"{item.about}: {item.wants}")),
            verdict,
            Text(one_line(ruling.reason)),
        )
    console.print()
    console.print(table)
