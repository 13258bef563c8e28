#!/bin/sh
# The packaged adapters, from synthesis to GGUF: `make train-embedded`, some two hours on two cores. Run again
# after an interruption it goes on. Everything lies in runs/train-embedded/ (or $OUT), the results in adapter.gguf and judge.gguf.
set -eu
BIN=${BIN:-.venv/bin}
OUT=${OUT:-runs/train-embedded}
ringfence="$BIN/ringfence"
mkdir -p "$OUT"

echo "== 1 of 5: cases for training, and others to measure on"
"$ringfence" synthesize --count 1440 --split train --seed 1 --out "$OUT/hierarchy" --resume
"$ringfence" synthesize --count 540 --split train --seed 2 --out "$OUT/judging" --resume
"$ringfence" synthesize --count 2100 --split train --seed 3 --recipe conflict,multi-turn,tiers \
  --out "$OUT/tasks" --resume
"$ringfence" synthesize --count 450 --split eval --seed 1 --out "$OUT/evaluation" --resume

echo "== 2 of 5: the model's own replies to ordinary requests"
head -n 360 recipes/general_prompts.jsonl > "$OUT/prompts.jsonl"
"$ringfence" generate --prompts "$OUT/prompts.jsonl" --adapter none --decoder plain \
  --max-tokens 400 --temperature 0.5 --seed 1 --out "$OUT/replies.jsonl" --resume
"$BIN/python" packaging/conversations.py "$OUT/prompts.jsonl" "$OUT/replies.jsonl" "$OUT/general.jsonl"

echo "== 3 of 5: supervised training, to obey the rings"
"$ringfence" train sft --model embedded --recipe recipes/embedded.yaml \
  --data "hierarchy=$OUT/hierarchy,tasks=$OUT/tasks,general=$OUT/general.jsonl" \
  --check-against "$OUT/evaluation" --out "$OUT/sft" --resume

echo "== 4 of 5: and to judge by them, an adapter of its own"
"$ringfence" train sft --model embedded --recipe recipes/embedded-judge.yaml \
  --data "judged=$OUT/judging/judged.jsonl" \
  --check-against "$OUT/evaluation" --out "$OUT/judge" --resume

echo "== 5 of 5: for llama.cpp, small enough to ship together"
"$ringfence" adapter convert "$OUT/sft" --out "$OUT/adapter.gguf" --precision q8_0 --force
"$ringfence" adapter convert "$OUT/judge" --out "$OUT/judge.gguf" --precision q8_0 --force
