"""Templates are programs of strangers: what they may cost, and what they may use."""

from __future__ import annotations

import time

import pytest
from chat_templates import NAMES, source

from ringfence.rendering.templates import (
    LONGEST_SOURCE,
    Allowance,
    TemplateCostly,
    TemplateFailed,
    TemplateRefused,
    run,
)


def made(template: str, **variables: object) -> str:
    return run(template, variables, Allowance(seconds=0.5))


GROWING = (
    "{% set ns = namespace(x='aaaa') %}{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}"
)
LISTS = "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}"
EXPENSIVE = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n-1) ~ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "text": "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
    "times": "{{ 'x' * 10 ** 10 }}",
    "list times": "{{ [1] * 10 ** 9 }}",
    "doubling": GROWING.replace("STEP", "ns.x ~ ns.x"),
    "adding": GROWING.replace("STEP", "ns.x + ns.x"),
    "replacing": GROWING.replace("STEP", "ns.x.replace('a', 'aaaa')"),
    "replace filter": GROWING.replace("STEP", "ns.x | replace('a', 'aaaa')"),
    "joining": GROWING.replace("STEP", "ns.x.join([ns.x, ns.x])"),
    "join filter": GROWING.replace("STEP", "[ns.x, ns.x] | join"),
    "formatting": GROWING.replace("STEP", "'%s%s' % (ns.x, ns.x)"),
    "str.format": GROWING.replace("STEP", "'{0}{0}'.format(ns.x)"),
    "nested lists": LISTS.replace("STEP", "[ns.x, ns.x]") + "{{ ns.x }}",
    "nested objects": LISTS.replace("STEP", "dict(a=ns.x, b=ns.x)") + "{{ ns.x | tojson }}",
    "list adding": LISTS.replace("STEP", "ns.x + ns.x"),
    "join of many": "{{ range(100000) | map('string') | join('x' * 1000000) }}",
    "width": "{{ '%999999999d' % 1 }}",
    "starred width": "{{ '%*d' % (999999999, 1) }}",
    "format width": "{{ '{:>999999999}'.format('x') }}",
    "nested width": "{{ '{:{}}'.format('x', 999999999) }}",
    "padding": "{{ 'a'.ljust(10 ** 10) }}",
    "tabs": "{{ '\t'.expandtabs(10 ** 10) }}",
    "bytes": "{{ 'a'.encode().ljust(10 ** 10) }}",
    "big bytes": "{{ (1).to_bytes(10 ** 10, 'big') }}",
    "indent": "{{ 'a' | indent(10 ** 10, true) }}",
    "json indent": "{{ [[1]] | tojson(indent=10 ** 9) }}",
    "batch": "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "rounding": "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "powers": "{{ 9 ** (9 ** 9) }}",
}


@pytest.mark.parametrize("case", sorted(EXPENSIVE))
def test_a_template_that_would_take_for_ever_or_fill_the_memory_is_stopped(case):
    started = time.process_time()
    with pytest.raises(TemplateCostly):
        made(EXPENSIVE[case])
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "template",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ lipsum(n=1000000) }}",
        "{{ cycler('a') }}",
        "{{ [1, 2] | random }}",
        "{{ 'a' | attr('upper') }}",
        "{{ 'a'.translate({}) }}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{% if 1 %}" * 200 + "{% endif %}" * 200,
        "x" * (LONGEST_SOURCE + 1),
    ],
)
def test_what_no_chat_template_needs_is_an_error(template):
    with pytest.raises(TemplateFailed):
        made(template)


def test_a_refusal_is_told_from_a_failure():
    with pytest.raises(TemplateRefused, match="no system"):
        made("{{ raise_exception('no system') }}")
    with pytest.raises(TemplateFailed) as caught:
        made("{{ 1 / 0 }}")
    assert not isinstance(caught.value, TemplateRefused)


def test_markers_of_generation_mean_nothing_for_the_text():
    assert made("a{% generation %}b{% set x = 1 %}{% endgeneration %}c") == "abc"


def test_ordinary_operations_do_what_they_do_in_jinja():
    template = (
        "{% set ns = namespace(l=[]) %}{% for x in 'abc' %}{% set ns.l = ns.l + [x ~ loop.index] %}"
        "{% endfor %}{{ ns.l | join(', ') }} {{ 'abc'[::-1] }} {{ (1, 2)[1:] }} {{ '%s!' % 'x' }} "
        "{{ 'a-b'.replace('-', '+') }} {{ {'b': 1, 'a': [2]} | tojson }} {{ 'x' * 3 }} {{ 2 ** 3 }}"
    )
    assert made(template) == 'a1, b2, c3 cba (2,) x! a+b {"b": 1, "a": [2]} xxx 8'


@pytest.mark.hf
@pytest.mark.parametrize("name", NAMES)
def test_real_templates_make_the_text_that_transformers_makes(name):
    module = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [
        {"role": "user", "content": " Hi "},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "Go"},
    ]
    if name == "smolvlm":
        messages = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]
    variables = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
    theirs, _ = module.render_jinja_template([messages], chat_template=source(name), **variables)
    assert made(source(name), messages=messages, tools=None, **variables) == theirs[0]
