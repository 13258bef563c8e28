"""Templates are programs of strangers: what they may cost, and what they may use."""

from __future__ import annotations

import re
import time
import tracemalloc

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
from ringfence.rendering.traits import Program, traits


def made(template: str, *, seconds: float = 0.5, **variables: object) -> str:
    return run(template, variables, Allowance(seconds=seconds))


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
# Each would make hundreds of megabytes at once, and be stopped too late if it paid only then.
SUDDEN = {
    "tabs by name": r"{{ '\t'.expandtabs(tabsize=200000000)|length }}",
    "many widths": "{{ ((('%(a)9999s')*20000) % {'a': 1})|length }}",
    "many fields": "{{ ((('%(a)s')*2000) % {'a': 'b'*100000})|length }}",
    "many floats": "{{ ((('%(a)f')*500000) % {'a': 1e308})|length }}",
    "many long numbers": "{{ ((('%(a)x')*2000) % {'a': ('1'*999999)|int(base=2)})|length }}",
    "format widths": "{{ ('{0:9999}'*20000).format('a')|length }}",
    "format in other digits": "{{ '{0:２００００００００}'.format('a')|length }}",
    "format reaching in": "{% set ns = namespace(x='a'*100000) %}{{ ('{0.x}'*2000).format(ns) }}",
    "format filter": "{{ (('%(a)9999s')*20000)|format(a=1)|length }}",
    "replace filter by name": "{{ ('a'*20000)|replace(new='b'*10000, old='a')|length }}",
    "replacing numbers": "{{ ('1'*20000)|replace(1, ['b'*10000])|length }}",
    "joining letters": "{{ ('B'*100000).join('a'*2000)|length }}",
    "joining a generator": "{{ ('B'*100000).join(('a'*2000)|map('upper'))|length }}",
    "bytes times": "{{ ('a'.encode() * 200000000)|length }}",
    "text below nothing": "{% set x = 'a'.ljust(-10**9) %}{{ ('a' * 10**8)|length }}",
    "values": "{{ dict(a=['a'*1000000]*99).values()|string|length }}",
    "filter of a list": "{{ (['a'*1000000]*99)|upper|length }}",
    "refusing at length": "{{ raise_exception(['a'*1000000]*99) }}",
    "list as Python spells it": r"{{ ['\U000e0001'*3500000]|string|length }}",
    "json separators": "{{ ([0]*2000)|tojson(separators=('B'*100000, ':'))|length }}",
    "json escapes": r"{{ ('\U000e0001'*3000000)|tojson(ensure_ascii=true)|length }}",
    "adding up lists": "{{ ([range(100000)|list]*150)|sum(start=[])|length }}",
    "escaping": "{{ ('&'*8000000)|e|length }}",
    "adding to safe text": "{{ (('a'|safe) + '&'*8000000)|length }}",
}


@pytest.mark.parametrize("case", sorted(SUDDEN))
def test_what_would_be_enormous_is_paid_for_before_it_is_made(case):
    tracemalloc.start()
    try:
        with pytest.raises(TemplateCostly):
            made(SUDDEN[case], seconds=10)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


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
        "{{ (('a', 'b')*9)|join(attribute='x', d='B') }}",
        "{{ ['a'] is lower }}",
        "{{ ('a{}'|safe).format(1) }}",
        "{% autoescape true %}{{ '&' }}{% endautoescape %}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{% if 1 %}" * 200 + "{% endif %}" * 200,
        "x" * (LONGEST_SOURCE + 1),
    ],
)
def test_what_no_chat_template_needs_is_an_error(template):
    with pytest.raises(TemplateFailed):
        made(template)


def test_a_namespace_does_not_write_out_what_it_holds():
    assert made("{% set ns = namespace(x='a') %}{{ ns }}{{ ns.x }}") == "<Namespace>a"


def test_trying_a_template_out_has_one_allowance(monkeypatch):
    given = []
    monkeypatch.setattr(
        "ringfence.rendering.traits.Allowance",
        lambda seconds: given.append(seconds) or Allowance(seconds=0.05),
    )
    traits(Program(source=EXPENSIVE["loops"]), re.compile("(?!)"))
    assert given == [2]


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


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ '%s: %5.2f%%' % ('a', 2) }}{{ '%s-%(a)s' % {'a': 1} }}", "a:  2.00%{'a': 1}-1"),
        ("{{ '{:>3}|{x.y}|{!r}'.format('a', 'b', x={'y': 1}) }}", "  a|1|'b'"),
        ("{{ '{a}'.format_map({'a': 3}) }}{{ '%s-%s'|format(1, 2) }}", "31-2"),
        ("{{ 'a,b'.split(',', maxsplit=1) }}{{ '-'.join('ab') }}", "['a', 'b']a-b"),
        ("{{ [1, 2]|join }}{{ [{'a': 1}]|map(attribute='a')|join('-') }}", "121"),
        ("{{ 'a\nb'|indent(2, true) }}{{ 'aa'|replace('a', 'b', 1) }}", "  a\n  bba"),
        ("{{ {'a': 1}.items() }}{{ [1, 2]|sum }}{{ [3]|batch(1)|list }}",
         "dict_items([('a', 1)])3[[3]]"),
    ],
)  # fmt: skip
def test_what_pays_beforehand_makes_what_jinja_makes(template, text):
    assert made(template) == text


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
