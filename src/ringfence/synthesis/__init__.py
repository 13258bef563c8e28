"""Training and evaluation cases for the instruction hierarchy, made and checked by code.

A case is one conversation in several siblings; which instruction holds in each is computed by
`Policy.resolve`, the reply that follows it is written by code, and a grader tells it from the reply
that does not. See docs/synthesis.md.
"""
