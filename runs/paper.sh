#!/usr/bin/env bash
# The tables of both papers for a model behind an OpenAI-compatible completions server, from 7B to 70B.
#
#   vllm serve meta-llama/Llama-3.1-8B-Instruct --port 8001         # --tensor-parallel-size 4 for 70B
#   runs/paper.sh http://127.0.0.1:8001/v1#meta-llama/Llama-3.1-8B-Instruct TOKENIZER_FOLDER OUT [DATA]
#
# TOKENIZER_FOLDER holds the model's tokenizer.json and tokenizer_config.json. Without DATA, suites that are
# not packaged are left out. A run cut short goes on when the same line is given again. --dry-run prints the
# commands only. The key of the server comes from RINGFENCE_API_KEY.
set -euo pipefail

run() { printf '%q ' "$@"; printf '\n'; if [ -z "$dry" ]; then "$@"; fi; }
dry=""
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
if [ $# -lt 3 ]; then sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
url=$1 tokenizer=$2 out=$3 data=${4:+--data=$4}

model() { printf '%s?tokenizer=%s%s' "$url" "$tokenizer" "${1:+&$1}"; }
# Exit code 1 of evaluate: a sample failed, and all others are there. With another one the table cannot be
# had: no further one is begun, and the reports are of those before it.
failed=0
tables=()
evaluate() {  # TABLE OPTIONS...
  local table=$1 resume="" status=0; shift
  if [ -e "$out/$table/run.json" ]; then resume=--resume; fi
  run ringfence evaluate --out "$out/$table" --table "$table" --max-samples 64 "$@" ${data:+"$data"} \
    ${resume:+"$resume"} || status=$?
  if [ "$status" -gt "$failed" ]; then failed=$status; fi
  if [ "$status" -gt 1 ]; then return 1; fi
  tables+=("$table")
}

# A judge at chance steers nothing: its figures come first.
for principle in rings harmless positive; do
  run ringfence judge check --force --principle "$principle" --engine "$url" --tokenizer "$tokenizer"
done
evaluate instruction-hierarchy --limit 500 \
  --model "$(model),$(model prompt-only=true),$(model 'decoder=guarded&principle=rings'),$(model 'decoder=best-of-n&principle=rings')" &&
evaluate rain --limit 300 --seeds 3 \
  --model "$(model temperature=0.7),$(model 'decoder=rain&principle=harmless'),$(model 'decoder=best-of-n&principle=harmless')" || true
for table in ${tables[@]+"${tables[@]}"}; do run ringfence report "$out/$table" --table "$table"; done
exit "$failed"
