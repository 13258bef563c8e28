"""Policies from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.errors import InputError
from ringfence.policy_files import as_file, load, schema
from ringfence.rings import PRESETS, Policy

GOOD = """\
name: shop
rings: [company, shop, customer, web]
roles: {system: company, developer: shop, user: customer, tool: web}
silent: [web]
supersession: false
"""
SCHEMA = Path(__file__).parent.parent / "docs" / "policy.schema.json"


def written(folder, text):
    file = folder / "policy.yaml"
    file.write_text(text)
    return str(file)


def test_a_file_says_what_a_policy_says(tmp_path):
    policy = load(written(tmp_path, GOOD))
    assert policy.ring_of("tool").level == 3 and policy.silent == {"web"}
    assert not policy.supersession and policy.delegation


@pytest.mark.parametrize("policy", [*PRESETS.values(), Policy.tiers(12)], ids=lambda p: p.name)
def test_every_preset_can_be_said_as_a_file(policy, tmp_path):
    file = written(tmp_path, json.dumps(as_file(policy).model_dump(mode="json")))
    assert load(file) == policy == load(policy.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("silent: [web]", "silent: [moon]"), "policy.yaml: policy shop: silent: no ring 'moon'"),
        (("user: customer", "user: guest"), "policy.yaml: policy shop: roles: 'user'"),
        (("name: shop", "nam: shop"), "policy.yaml: name: .*; nam: "),
        (("[company, shop, customer, web]", "[company]"), "policy.yaml: rings: "),
        (("name: shop", "name: ["), "policy.yaml: not valid YAML"),
        (("supersession: false", "rings: [a, b]"), "stands here twice"),
    ],
)
def test_a_broken_file_names_file_and_field(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        load(written(tmp_path, GOOD.replace(*change)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such.yaml", "no file no/such.yaml"),
        ("openai", "unknown policy 'openai'"),
        ("tiers(1)", "2 to 12"),
        ("tiers(13)", "2 to 12"),
    ],
)
def test_a_policy_that_is_not_there_is_an_error(name, words):
    with pytest.raises(InputError, match=words):
        load(name)


def test_the_published_schema_is_that_of_the_code():
    assert json.loads(SCHEMA.read_text()) == schema()
