#!/bin/sh
# The packaged adapter, from synthesis to GGUF: `make train-embedded`, some two hours on two cores. Run again
# after an interruption it goes on. Everything lies in runs/train-embedded/ (or $OUT), the result in adapter.gguf.
set -eu
BIN=${BIN:-.venv/bin}
OUT=${OUT:-runs/train-embedded}
ringfence="$BIN/ringfence"
mkdir -p "$OUT"

echo "== 1 of 4: cases for training, and others to measure on"
"$ringfence" synthesize --count 2700 --split train --seed 1 --out "$OUT/hierarchy" --resume
"$ringfence" synthesize --count 2400 --split train --seed 3 --recipe conflict,multi-turn,tiers \
  --out "$OUT/tasks" --resume
"$ringfence" synthesize --count 450 --split eval --seed 1 --out "$OUT/evaluation" --resume

echo "== 2 of 4: the model's own replies to ordinary requests"
head -n 360 recipes/general_prompts.jsonl > "$OUT/prompts.jsonl"
"$ringfence" generate --prompts "$OUT/prompts.jsonl" --adapter none --decoder plain \
  --max-tokens 400 --temperature 0.5 --seed 1 --out "$OUT/replies.jsonl" --resume
"$BIN/python" packaging/conversations.py "$OUT/prompts.jsonl" "$OUT/replies.jsonl" "$OUT/general.jsonl"

echo "== 3 of 4: supervised training"
data="hierarchy=$OUT/hierarchy,judged=$OUT/hierarchy/judged.jsonl,tasks=$OUT/tasks,general=$OUT/general.jsonl"
"$ringfence" train sft --model embedded --recipe recipes/embedded.yaml --data "$data" \
  --check-against "$OUT/evaluation" --out "$OUT/sft" --resume

echo "== 4 of 4: for llama.cpp"
"$ringfence" adapter convert "$OUT/sft" --out "$OUT/adapter.gguf" --force
