#!/usr/bin/env bash
# The table of docs/results.md for the packaged model, one row after another; a run cut short goes on when
# the same line is given again.
#
#   runs/embedded-table.sh OUT DATA [ROW...]      DATA: the data sets that are not packaged
#
# ADAPTER names the trained rows' adapter (default: packaged); LIMIT items a suite (default 60) and CASES
# siblings of the hierarchy suite (default 300, some 50 cases). --dry-run prints the commands only.
set -euo pipefail

dry=""
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
if [ $# -lt 2 ]; then sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
out=$1 data=$2; shift 2
adapter=${ADAPTER:-packaged} limit=${LIMIT:-60} cases=${CASES:-300} ringfence=${RINGFENCE:-ringfence}
suites=extraction,indirect,over-refusal,jailbreak,guardrails,iheval,capability

model() {
  case $1 in
    base) echo 'embedded?adapter=none' ;;
    base-prompt) echo 'embedded?adapter=none&prompt-only=true' ;;
    trained) echo "embedded?adapter=$adapter" ;;
    trained-prompt) echo "embedded?adapter=$adapter&prompt-only=true" ;;
    trained-guarded) echo "embedded?adapter=$adapter&decoder=guarded&principle=rings" ;;
    trained-best-of-n) echo "embedded?adapter=$adapter&decoder=best-of-n&principle=rings&n=4" ;;
    *) echo "unknown row $1" >&2; exit 2 ;;
  esac
}
run() { printf '%q ' "$@"; printf '\n'; if [ -z "$dry" ]; then "$@"; fi; }
evaluate() {
  local folder=$1 resume=""; shift
  if [ -e "$folder/run.json" ]; then resume=--resume; fi
  run "$ringfence" evaluate --out "$folder" "$@" ${resume:+"$resume"}
}

if [ $# -eq 0 ]; then set -- base base-prompt trained trained-prompt trained-guarded trained-best-of-n; fi
[ -n "$dry" ] || mkdir -p "$out"
folders=()
for row in "$@"; do
  name=$(model "$row")
  evaluate "$out/$row-hierarchy" --model "$name" --suite hierarchy --limit "$cases"
  evaluate "$out/$row-suites" --model "$name" --suite "$suites" --limit "$limit" --data "$data"
  folders+=("$out/$row-hierarchy" "$out/$row-suites")
done
run "$ringfence" report "${folders[@]}" --table instruction-hierarchy --out "$out/report"
