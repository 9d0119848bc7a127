#!/usr/bin/env bash
# All GPUs of one machine, in one process; resumes by itself after an interruption.
#
#   launch/gpu.sh --config=configs/polymnist.py:best --workdir=runs/polymnist
#
# Needs: pip install -e '.[cuda13]'. Status 75 of a run means that it was interrupted by SIGTERM and has saved: it is
# started again, unless this script itself is being ended.
set -euo pipefail
if [[ $# -eq 0 ]]; then
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
  exit 2
fi
status=75 ending=0 child=
trap 'ending=1; kill -TERM $child 2>/dev/null || true' TERM INT
while ((status == 75 && !ending)); do
  status=0
  "${PYTHON:-python}" -m sbm_jax.main "$@" &
  child=$!
  ((!ending)) || kill -TERM "$child" # a signal came while it was being started
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # a signal to this script interrupted the wait
    status=0
    wait "$child" || status=$?
  done
done
exit "$status"
