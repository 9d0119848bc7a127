#!/usr/bin/env bash
# Several processes of one job on this machine, each with its own devices: a miniature pod on CPUs.
#
#   launch/local_pod.sh PROCESSES DEVICES --config=configs/quickstart.py:smoke --workdir=runs/pod
#
# PROCESSES processes with DEVICES virtual CPU devices each run `python -m sbm_jax.main` (or what the variables PYTHON
# and MODULE name) with the other arguments. If one fails, the others get 60 seconds to notice before they are killed.
# Ends with the first nonzero status; SIGTERM is passed on.
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

declare -A running=() # process number by pid
told=0
trap 'told=1; kill -TERM "${!running[@]}" 2>/dev/null || true' TERM INT
for ((number = 0; number < processes; number++)); do
  SBM_JAX_PROCESS_ID=$number "$python" -m "${MODULE:-sbm_jax.main}" "$@" &
  running[$!]=$number
  ((!told)) || kill -TERM "$!" # a signal came while it was being started
done

kill_later() {
  sleep 60 >/dev/null 2>&1 # or it would keep the output open
  kill -KILL "$@" 2>/dev/null && echo "killing processes that did not end within 60 seconds" >&2
}

status=0 killer=
while ((${#running[@]})); do
  sleep 0.2 # not `wait -n`, which misses a process that ends while another one is handled
  for pid in "${!running[@]}"; do
    ! kill -0 "$pid" 2>/dev/null || continue
    code=0
    wait "$pid" || code=$?
    number=${running[$pid]}
    unset "running[$pid]"
    if ((code != 0)); then
      echo "process $number ended with status $code" >&2
      if ((status == 0)); then
        status=$code
        kill_later "${!running[@]}" &
        killer=$!
      fi
    fi
  done
done
[[ -z $killer ]] || kill "$killer" 2>/dev/null || true
exit "$status"
