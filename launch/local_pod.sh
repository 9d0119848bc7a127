#!/usr/bin/env bash
# Several processes of one job on this machine, each with its own devices: a pod in small, on CPUs.
#
#   launch/local_pod.sh PROCESSES DEVICES --config=configs/quickstart.py:smoke --workdir=runs/pod
#
# PROCESSES processes with DEVICES virtual CPU devices each run `python -m sbm_jax.main` with the other arguments. If one
# fails, the others are given 60 seconds to notice, and are ended then. Ends with the first status that is not 0.
set -euo pipefail
if [[ $# -lt 3 ]]; then
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
  exit 2
fi
processes=$1 devices=$2
shift 2
python=${PYTHON:-python}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export SBM_JAX_COORDINATOR="localhost:$port" SBM_JAX_NUM_PROCESSES="$processes"
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices"

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((number = 0; number < processes; number++)); do
  SBM_JAX_PROCESS_ID=$number "$python" -m sbm_jax.main "$@" &
  pids+=($!)
done

# Wait for the first failure, or for all to end well.
status=0
for ((ended = 0; ended < processes; ended++)); do
  code=0
  wait -n || code=$?
  while ((code > 128)) && [[ $(jobs -rp | wc -l) -eq $((processes - ended)) ]]; do
    code=0 # a signal to this script interrupted the waiting: nobody has ended
    wait -n || code=$?
  done
  if ((code != 0)); then
    status=$code
    break
  fi
done
if ((status != 0)); then
  for ((second = 0; second < 60; second++)); do
    [[ -z $(jobs -rp) ]] && break
    sleep 1
  done
  for pid in $(jobs -rp); do
    echo "process $pid did not end within 60 seconds, and is killed" >&2
    kill -KILL "$pid" 2>/dev/null || true
  done
  wait || true
fi
exit "$status"
