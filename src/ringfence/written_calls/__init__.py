"""Calls of tools inside a reply's text, written and read. Knows no tool, no model, no template."""

from __future__ import annotations

from ringfence.written_calls.marked import apart, calls_in, settled, written

__all__ = ["apart", "calls_in", "settled", "written"]
