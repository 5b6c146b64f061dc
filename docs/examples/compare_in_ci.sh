#!/usr/bin/env bash
# Compare two leaderboards in CI: measure anew, and fail where a score fell by more than half a percent.
#
#     docs/examples/compare_in_ci.sh BASELINE [RESULTS]
#
# BASELINE is a results folder of the main branch, kept as an artifact of its last run; where there is none yet, this run
# becomes it. Exit code 0: nothing fell; 1: something did, or a row went; 2: the two do not compare.
set -euo pipefail
baseline=$1
results=${2:-hashzoo-results/ci}
hashzoo bench digits --quick --methods itq,csq --seeds 0,1 --no-baselines --results "$results"
if [ ! -e "$baseline" ]; then
  cp -r "$results" "$baseline"
  echo "no baseline yet: $baseline is now this run"
  exit 0
fi
hashzoo compare "$baseline" "$results" --fail-on 'map@all:-0.5%'
