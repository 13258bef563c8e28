"""Training of the rings into a model: supervised and by preferences, on TRL's trainers.

`recipe` says how, `sources` reads data and refuses evaluation sets, `encoding` renders it into
tokens with rings and masks, `mixing` and `packing` put it in order, `trainers` and `watching` run
TRL, `job` ties them together; `pairs` makes preferences from a model's own failures. torch, TRL,
PEFT and transformers are imported when a run begins.
"""
