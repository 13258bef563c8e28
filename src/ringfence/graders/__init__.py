"""Graders: checks on replies, as data. Code only, never a model, and in bounded time.

A grader is JSON such as `{"check": "all", "of": [{"check": "words", "at_most": 50}, ...]}`. The
checks are listed in docs/graders.md.
"""

from ringfence.graders.algebra import Grader, dump_grader, grade, grader_schema, parse_grader
from ringfence.graders.grades import Grade

__all__ = ["Grade", "Grader", "dump_grader", "grade", "grader_schema", "parse_grader"]
