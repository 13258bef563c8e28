#!/usr/bin/env bash
# The table of docs/results.md for the packaged model, one row after another; a run cut short goes on when
# the same line is given again.
#
#   runs/embedded-table.sh OUT DATA [ROW...]      DATA: the data sets that are not packaged
#
# A row is base or trained, then perhaps -prompt (the prompt-only baseline), then perhaps -guarded or
# -best-of-n. ADAPTER names the trained rows' adapter (default: packaged), SUITES those beside hierarchy,
# LIMIT items a suite (default 60), CASES siblings of the hierarchy suite (default 300, some 50 cases), N the
# drafts of best-of-n (default 4). --dry-run prints the commands only.
set -euo pipefail

dry=""
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
if [ $# -lt 2 ]; then sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
out=$1 data=$2; shift 2
adapter=${ADAPTER:-packaged} limit=${LIMIT:-60} cases=${CASES:-300} n=${N:-4} ringfence=${RINGFENCE:-ringfence}
suites=${SUITES:-extraction,indirect,over-refusal,jailbreak,guardrails,iheval,capability}

model() {
  local row=$1 name options=""
  case $row in
    base*) name='embedded?adapter=none' row=${row#base} ;;
    trained*) name="embedded?adapter=$adapter" row=${row#trained} ;;
    *) echo "unknown row $1" >&2; exit 2 ;;
  esac
  if [ "${row#-prompt}" != "$row" ]; then options='&prompt-only=true' row=${row#-prompt}; fi
  case $row in
    "") ;;
    -guarded) options="$options&decoder=guarded&principle=rings" ;;
    -best-of-n) options="$options&decoder=best-of-n&principle=rings&n=$n" ;;
    *) echo "unknown row $1" >&2; exit 2 ;;
  esac
  echo "$name$options"
}
run() { printf '%q ' "$@"; printf '\n'; if [ -z "$dry" ]; then "$@"; fi; }
# Exit code 1 of evaluate: a sample failed, and all others are there. With another one the row cannot be
# had: no further row is begun, and the report is of those before it.
failed=0
evaluate() {
  local folder=$1 resume="" status=0; shift
  if [ -e "$folder/run.json" ]; then resume=--resume; fi
  run "$ringfence" evaluate --out "$folder" "$@" ${resume:+"$resume"} || status=$?
  if [ "$status" -gt "$failed" ]; then failed=$status; fi
  if [ "$status" -gt 1 ]; then return 1; fi
  folders+=("$folder")
}

if [ $# -eq 0 ]; then set -- base base-prompt trained trained-prompt trained-guarded trained-best-of-n; fi
for row in "$@"; do model "$row" > /dev/null; done
[ -n "$dry" ] || mkdir -p "$out"
folders=()
for row in "$@"; do
  name=$(model "$row")
  evaluate "$out/$row-hierarchy" --model "$name" --suite hierarchy --limit "$cases" || break
  evaluate "$out/$row-suites" --model "$name" --suite "$suites" --limit "$limit" --data "$data" || break
done
[ "${#folders[@]}" -eq 0 ] || run "$ringfence" report "${folders[@]}" --table instruction-hierarchy --out "$out/report"
exit "$failed"
