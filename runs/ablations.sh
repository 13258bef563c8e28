#!/usr/bin/env bash
# Short trainings of the packaged model that differ in one thing, each measured on the same items; a run cut
# short goes on when the same line is given again.
#
#   runs/ablations.sh OUT DATA ROW...      DATA: the data sets that are not packaged
#
# Rows: base and packaged (nothing trained), and trainings of the base on one core with a seed at the end of
# their names: sft-1 (a tenth of recipes/embedded.yaml), input-1 and blocks-1 (with a ring signal), general-1
# (ordinary requests only), without-judged-1, without-extraction-1 (or another part of the recipe), and dpo-1
# (preferences, on the packaged adapter's own failures).
# OUT needs hierarchy/, tasks/, evaluation/ and general.jsonl as runs/train-embedded.sh makes them, and for
# dpo pairs/. CASES siblings of the hierarchy suite (default 120), LIMIT items of each other (default 60).
set -euo pipefail

if [ $# -lt 3 ]; then sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
out=$1 data=$2; shift 2
ringfence=${RINGFENCE:-ringfence} cases=${CASES:-120} limit=${LIMIT:-60}
recipe=recipes/embedded.yaml
# As many steps for each: examples of one part may be longer than those of another.
short="s/^examples: .*/examples: 900/; s/^sft: {/sft: {steps: 55, /; s/^hardware: {/hardware: {threads: 1, /"

resumed() { if [ -e "$1" ]; then echo --resume; fi; }
sft() {  # ROW SED-EXPRESSION...
  local row=$1; shift
  mkdir -p "$out/$row"
  sed -e "$short" "$@" "$recipe" > "$out/$row/recipe.yaml"
  # shellcheck disable=SC2046
  "$ringfence" train sft --model embedded --recipe "$out/$row/recipe.yaml" \
    --data "hierarchy=$out/hierarchy,judged=$out/hierarchy/judged.jsonl,tasks=$out/tasks,general=$out/general.jsonl" \
    --check-against "$out/evaluation" --out "$out/$row/adapter" $(resumed "$out/$row/adapter")
}
known() {  # ROW
  local kind=${1%-*} seed=${1##*-}
  case $1 in base|packaged) return ;; esac
  case $seed in ""|*[!0-9]*) kind="" ;; esac
  case $kind in
    sft|input|blocks|general|without-judged|dpo) ;;
    without-*)
      grep -q "name: ${kind#without-}," "$recipe" || { echo "$1: $recipe has no part ${kind#without-}" >&2; exit 2; } ;;
    *) echo "unknown row $1" >&2; exit 2 ;;
  esac
}
trained() {  # ROW
  local kind=${1%-*} seed="s/^seed: .*/seed: ${1##*-}/"
  case $kind in
    sft) sft "$1" -e "$seed" ;;
    input|blocks) sft "$1" -e "$seed; /^title:/asegments: $kind" ;;
    general) sft "$1" -e "$seed; /name: general/!{/^  - {name:/d}" ;;
    without-judged) sft "$1" -e "$seed; s/\[hierarchy, judged\]/[hierarchy]/" ;;
    without-*) sft "$1" -e "$seed; /name: ${kind#without-},/d" ;;
    dpo)
      [ -e "$out/packaged" ] || "$ringfence" adapter restore packaged --out "$out/packaged"
      mkdir -p "$out/$1"
      sed -e "$seed" -e '$a examples: 128' recipes/embedded-dpo.yaml > "$out/$1/recipe.yaml"
      # shellcheck disable=SC2046
      "$ringfence" train dpo --model embedded --recipe "$out/$1/recipe.yaml" --adapter "$out/packaged" \
        --data "$out/pairs" --check-against "$out/evaluation" --out "$out/$1/adapter" \
        $(resumed "$out/$1/adapter") ;;
  esac
}
# Exit code 1 of evaluate: a sample failed, and all others are there. With another one the row cannot be
# had, and no further one is begun.
failed=0
evaluate() {  # FOLDER OPTIONS...
  local folder=$1 status=0; shift
  # shellcheck disable=SC2046
  "$ringfence" evaluate "$@" --out "$folder" $(resumed "$folder/run.json") || status=$?
  if [ "$status" -gt "$failed" ]; then failed=$status; fi
  [ "$status" -le 1 ]
}

for row in "$@"; do known "$row"; done
for row in "$@"; do
  model="embedded?adapter=$out/$row/adapter"
  case $row in
    base) model='embedded?adapter=none' ;;
    packaged) model='embedded?adapter=packaged' ;;
    # llama.cpp has no ring signals.
    input-*|blocks-*) trained "$row"; model="hf:embedded?adapter=$out/$row/adapter" ;;
    *) trained "$row" ;;
  esac
  evaluate "$out/$row-hierarchy" --model "$model" --suite hierarchy --limit "$cases" || break
  evaluate "$out/$row-suites" --model "$model" --suite extraction,over-refusal --limit "$limit" \
    --data "$data" || break
done
exit "$failed"
