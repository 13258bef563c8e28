"""Policies as YAML files, with their JSON Schema. Knows nothing of what a policy decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ringfence.errors import InputError
from ringfence.rings import PRESETS, Policy
from ringfence.yaml_files import read


class PolicyFile(BaseModel):
    """What a policy file holds; see `Policy` for what the fields mean."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, title="ringfence policy", use_attribute_docstrings=True
    )

    name: str = Field(min_length=1, max_length=80)
    """What people call the policy."""
    rings: tuple[str, ...] = Field(min_length=2, max_length=12)
    """Names of the rings, highest privilege first."""
    roles: dict[str, str]
    """Role of a chat message → name of its ring."""
    supersession: bool = True
    """Of two conflicting instructions of one authority the later one holds."""
    delegation: bool = True
    """An instruction may lend its authority to quoted text or to a lower ring."""
    silent: tuple[str, ...] = ()
    """Rings without authority of their own."""

    def policy(self) -> Policy:
        """The policy.

        Raises:
            InputError: names that do not match.
        """
        return Policy.of(
            self.name,
            self.rings,
            self.roles,
            supersession=self.supersession,
            delegation=self.delegation,
            silent=self.silent,
        )


def load(name_or_path: str) -> Policy:
    """A preset by name (`paper`, `harmony`, `model-spec`, `tiers(N)`), or a YAML file by path.

    Raises:
        InputError: no such policy, or a broken file; names file, field and the fix.
    """
    if Path(name_or_path).is_file():
        try:
            return read(PolicyFile, Path(name_or_path)).policy()
        except InputError as error:
            where = "" if str(error).startswith(name_or_path) else f"{name_or_path}: "
            raise InputError(f"{where}{error}") from None
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        raise InputError(f"policy: no file {name_or_path}. Presets: {', '.join(PRESETS)}, tiers(N)")
    return Policy.preset(name_or_path)


def schema() -> dict[str, Any]:
    """JSON Schema of a policy file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **PolicyFile.model_json_schema(),
    }


def as_file(policy: Policy) -> PolicyFile:
    """A policy as its file would say it."""
    return PolicyFile(
        name=policy.name,
        rings=tuple(ring.name for ring in policy.rings),
        roles=dict(policy.roles),
        supersession=policy.supersession,
        delegation=policy.delegation,
        silent=tuple(ring.name for ring in policy.rings if ring.name in policy.silent),
    )
