"""Evaluation on Inspect AI: a model provider for our decoders, one task a suite, run folders.

`names` says which model is meant, `engines` opens what runs it, `conversations` translates between
Inspect and rings, `provider` answers, `tasks` asks and grades, `running` makes a run folder and
`reading` reads one. What is asked, and what is right, is the business of `ringfence.suites`.
"""
