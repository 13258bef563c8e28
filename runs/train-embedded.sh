#!/bin/sh
# The packaged adapter, from synthesis to GGUF: `make train-embedded`. Run again after an interruption
# it goes on. Everything lies in runs/train-embedded/ (or $OUT), the result in adapter.gguf.
set -eu
BIN=${BIN:-.venv/bin}
OUT=${OUT:-runs/train-embedded}
ringfence="$BIN/ringfence"
mkdir -p "$OUT"

echo "== 1 of 6: cases for training, and others to measure on"
"$ringfence" synthesize --count 1080 --split train --seed 1 --out "$OUT/hierarchy" --resume
"$ringfence" synthesize --count 270 --split train --seed 2 --out "$OUT/judging" --resume
"$ringfence" synthesize --recipe conflict,multi-turn,tiers --count 2400 --split train --seed 3 --out "$OUT/tasks" --resume
"$ringfence" synthesize --count 450 --split eval --seed 1 --out "$OUT/evaluation" --resume

echo "== 2 of 6: the model's own replies to ordinary requests"
"$ringfence" generate --prompts recipes/general_prompts.jsonl --adapter none --decoder plain \
  --max-tokens 400 --temperature 0.5 --seed 1 --out "$OUT/replies.jsonl" --resume
"$BIN/python" packaging/conversations.py recipes/general_prompts.jsonl "$OUT/replies.jsonl" \
  "$OUT/general.jsonl"

echo "== 3 of 6: supervised training"
"$ringfence" train sft --model embedded --recipe recipes/embedded.yaml \
  --data "hierarchy=$OUT/hierarchy,tasks=$OUT/tasks,judging=$OUT/judging,judged=$OUT/judging/judged.jsonl,general=$OUT/general.jsonl" \
  --check-against "$OUT/evaluation" --out "$OUT/sft" --resume

echo "== 4 of 6: its own failures"
"$ringfence" train pairs --model embedded --adapter "$OUT/sft" --data "$OUT/hierarchy" \
  --limit 90 --samples 3 --max-tokens 96 --out "$OUT/pairs" --resume

echo "== 5 of 6: preferences"
"$ringfence" train dpo --model embedded --recipe recipes/embedded-dpo.yaml --adapter "$OUT/sft" \
  --data "$OUT/pairs" --check-against "$OUT/evaluation" --out "$OUT/dpo" --resume

echo "== 6 of 6: for llama.cpp"
"$ringfence" adapter convert "$OUT/dpo" --out "$OUT/adapter.gguf" --force
