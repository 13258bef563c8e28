"""Runs chat templates: programs that strangers wrote. Knows nothing of messages, marks or tokens.

Jinja's immutable sandbox keeps a template away from Python's internals. It does not keep it from
taking for ever or filling the memory, so everything here that repeats or grows is counted: loops
and macros look at the clock, and whatever makes text or lists pays for its length. What remains
unbounded is in docs/rendering.md.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from ringfence.rendering.prices import PAYING as PAYING
from ringfence.rendering.prices import Allowance as Allowance
from ringfence.rendering.prices import TemplateCostly as TemplateCostly
from ringfence.rendering.prices import TemplateFailed as TemplateFailed
from ringfence.rendering.prices import TemplateRefused as TemplateRefused
from ringfence.rendering.prices import (
    extent,
    field,
    filtering,
    in_json,
    joining,
    made,
    method,
    operation,
    pay,
    shape,
    written,
)

if TYPE_CHECKING:
    import jinja2

LONGEST_SOURCE = 200_000
# Filters of Jinja that no chat template needs: they draw lots, fetch attributes around the
# sandbox's checks, or pad to any width.
_WITHOUT = (
    "attr center filesizeformat forceescape pprint random striptags truncate urlencode urlize "
    "wordwrap xmlattr"
).split()
# Filters that write out what they get, or make more of it.
_GROWING = frozenset(
    "batch capitalize e escape format indent lower replace round safe slice string sum title trim "
    "upper wordcount".split()
)
_WITHOUT_GLOBALS = ("lipsum", "cycler", "joiner")
# Tests that write out whatever they look at.
_WITHOUT_TESTS = ("lower", "upper")


def run(source: str, variables: Mapping[str, Any], allowance: Allowance) -> str:
    """The text a template makes.

    Args:
        source: of the template.
        variables: what it may see; it cannot change them.
        allowance: pays for this run, and for others of the same rendering.

    Raises:
        TemplateRefused: the template says that it will not.
        TemplateCostly: it ran out of time or space.
        TemplateFailed: it fails in any other way.
    """
    allowance.begin(dict(variables))
    token = PAYING.set(allowance)
    try:
        text: str = compiled(source).render(**variables)
        return text
    except TemplateFailed:
        raise
    except Exception as error:  # a template is a program, and may fail as any program may
        raise TemplateFailed(str(error) or type(error).__name__) from error
    finally:
        PAYING.reset(token)


@functools.lru_cache(maxsize=32)
def compiled(source: str) -> jinja2.Template:
    """A template ready to run.

    Raises:
        TemplateFailed: it is no Jinja template, or too long to be one for chats.
    """
    if len(source) > LONGEST_SOURCE:
        raise TemplateFailed(f"it has {len(source)} characters; {LONGEST_SOURCE} are the most")
    try:
        template: jinja2.Template = _environment().from_string(source)
        return template
    except Exception as error:  # Jinja's own errors, Python's for what Jinja makes, RecursionError
        raise TemplateFailed(str(error) or type(error).__name__) from error


def _environment() -> Any:
    return _sandbox_class()()


@functools.lru_cache(maxsize=1)
def _sandbox_class() -> Any:
    """The environment's class; made late, so that importing this module needs no Jinja."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
    from jinja2.utils import Namespace
    from jinja2.visitor import NodeTransformer

    def own(name: str, *args: Any) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)

    class Counting(NodeTransformer):
        """Puts a look at the clock into whatever repeats, and a price on whatever grows."""

        def repeating(self, node: Any) -> Any:
            self.generic_visit(node)
            node.body.insert(0, nodes.ExprStmt(own("tick"), lineno=node.lineno))
            return node

        visit_For = visit_Macro = visit_CallBlock = repeating

        def visit_Concat(self, node: Any) -> Any:
            self.generic_visit(node)
            return own("joined", *node.nodes)

        def visit_Getitem(self, node: Any) -> Any:
            self.generic_visit(node)
            if not isinstance(node.arg, nodes.Slice):
                return node
            bounds = (node.arg.start, node.arg.stop, node.arg.step)
            return own(
                "sliced", node.node, *(nodes.Const(None) if b is None else b for b in bounds)
            )

        def literal(self, node: Any) -> Any:
            self.generic_visit(node)
            return node if getattr(node, "ctx", "load") != "load" else own("held", node)

        visit_List = visit_Tuple = visit_Dict = literal

        def visit_ScopedEvalContextModifier(self, node: Any) -> Any:
            raise TemplateFailed("it uses `autoescape`, which makes text longer unpaid")

    class Generation(Extension):
        """`{% generation %}` marks what a model writes; for the text it means nothing."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Unprinted(Namespace):
        """A namespace that does not write out what it holds: nobody pays for that."""

        def __repr__(self) -> str:
            return "<Namespace>"

    class Formatter(SandboxedFormatter):
        """Pays field by field, since a field may hold others and reach into what it is given."""

        def convert_field(self, value: Any, conversion: Any) -> Any:
            field("", value)
            return super().convert_field(value, conversion)

        def format_field(self, value: Any, format_spec: str) -> Any:
            field(format_spec, value)
            return super().format_field(value, format_spec)

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def __init__(self) -> None:
            super().__init__(
                trim_blocks=True,
                lstrip_blocks=True,
                extensions=["jinja2.ext.loopcontrols", Generation],
                optimized=False,  # folding constants would run them without an allowance
                finalize=_finalized,
            )
            for name in _WITHOUT_GLOBALS:
                del self.globals[name]
            for name in _WITHOUT:
                del self.filters[name]
            for name in _WITHOUT_TESTS:
                del self.tests[name]
            self.globals["namespace"] = Unprinted
            self.globals["raise_exception"] = _raise_exception
            self.globals["strftime_now"] = _strftime_now
            self.filters["tojson"] = _tojson
            self.filters["join"] = _join
            self.filters |= {name: _paid(name, code) for name, code in self.filters.items()}

        def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
            tree = Counting().visit(super()._parse(source, name, filename))
            tree.set_environment(self)
            return tree

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
            return made(super().call(context, called, *method(called, args), **kwargs))

        def wrap_str_format(self, value: Any) -> Any:
            if super().wrap_str_format(value) is None:
                return None

            def formatted(*args: Any, **kwargs: Any) -> str:
                if type(value.__self__) is not str:
                    raise TemplateFailed("it formats text that is marked as safe")
                if value.__name__ == "format_map":
                    (kwargs,), args = args, ()
                return Formatter(self).vformat(value.__self__, args, kwargs)

            return formatted

        @staticmethod
        def concat(parts: Any) -> str:
            held = []
            for part in parts:
                PAYING.get().charge(len(part))
                held.append(part)
            return "".join(held)

        def tick(self) -> str:
            PAYING.get().tick()
            return ""

        def joined(self, *parts: Any) -> str:
            for part in parts:
                written(part)
            return "".join(map(str, parts))

        def sliced(self, value: Any, *bounds: Any) -> Any:
            return made(value[slice(*bounds)])

        def held(self, value: Any) -> Any:
            allowance = PAYING.get()
            allowance.charge(extent(shape(value), limit=allowance.characters)[0])
            return value

    return Sandbox


def _finalized(value: Any) -> Any:
    written(value)
    return value


def _raise_exception(message: str) -> NoReturn:
    written(message)
    raise TemplateRefused(str(message)[:500])


def _strftime_now(form: str) -> str:
    pay(1000 * len(form))
    return PAYING.get().now.strftime(form)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as chat templates expect it: Jinja's own filter escapes HTML."""
    in_json(value, indent, separators)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _join(value: Iterable[Any], d: str = "") -> str:
    """Without the `attribute` of Jinja's own filter, which fetches what nobody paid for."""
    parts = []
    for part in value:
        written(part)
        parts.append(str(part))
    written(d)
    between = str(d)
    joining(between, parts)
    return between.join(parts)


def _paid(name: str, code: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for what it makes; beforehand where that may be much more than it got."""
    value_at = 1 if hasattr(code, "jinja_pass_arg") else 0
    signature = inspect.signature(code)

    @functools.wraps(code)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        if name in _GROWING:
            given = dict(signature.bind(*args, **kwargs).arguments)
            filtering(name, args[value_at], dict(list(given.items())[value_at + 1 :]))
        return made(code(*args, **kwargs))

    return filtered
