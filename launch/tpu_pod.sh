#!/usr/bin/env bash
# A Cloud TPU VM pod from creation to deletion. Each worker runs the same command; JAX finds the others by itself.
#
#   export TPU=my-pod ZONE=us-east5-b TYPE=v6e-64 RUNTIME=v2-alpha-tpuv6e STORE=my-bucket
#   launch/tpu_pod.sh create
#   launch/tpu_pod.sh install
#   launch/tpu_pod.sh run --config=configs/polymnist.py:best --workdir=/store/polymnist
#   launch/tpu_pod.sh delete
#
# STORE is a Cloud Storage bucket that `install` mounts at /store on every worker: work directories and data must be in
# it, because all workers write to them. `run` restarts after preemptions and crashes for as long as the pod exists, but
# not after an error that the user must fix, nor if it ends within two minutes five times in a row. If the pod itself is
# gone, `create`, `install` and the same `run` resume from the last checkpoint. SPOT=1 requests a preemptible pod.
usage() {
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
  exit 2
}
[[ $# -ge 1 ]] || usage
: "${TPU:?the name of the pod}" "${ZONE:?its zone}"
verb=$1
shift

on_all_workers() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

case $verb in
  create)
    : "${TYPE:?the accelerator type, such as v6e-64}" "${RUNTIME:?the runtime version of its VMs}"
    spot=()
    [[ -z ${SPOT:-} ]] || spot=(--spot)
    gcloud compute tpus tpu-vm create "$TPU" --zone="$ZONE" --accelerator-type="$TYPE" --version="$RUNTIME" "${spot[@]}"
    ;;
  install)
    : "${STORE:?the bucket for work directories and data}"
    here=$(cd "$(dirname "$0")/.." && pwd)
    archive=$(mktemp --suffix=.tar.gz)
    trap 'rm -f "$archive"' EXIT
    git -C "$here" archive --format=tar.gz -o "$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$TPU:sbm_jax.tar.gz" --zone="$ZONE" --worker=all
    on_all_workers "set -e
      rm -rf sbm_jax && mkdir sbm_jax && tar -xzf sbm_jax.tar.gz -C sbm_jax
      python3 -m pip install --quiet --user uv # the VM's own Python may be older than 3.11
      ~/.local/bin/uv venv --quiet --python 3.12 sbm_jax/venv
      ~/.local/bin/uv pip install --quiet --python sbm_jax/venv -e 'sbm_jax[tpu]'
      sudo mkdir -p /store && sudo chmod 777 /store
      # Checkpoints are committed by renaming a directory; files that another worker writes must not be cached.
      mountpoint -q /store || gcsfuse --implicit-dirs --rename-dir-limit=200000 --metadata-cache-ttl-secs=0 \
        $(printf %q "$STORE") /store"
    ;;
  run)
    [[ $# -ge 1 ]] || usage
    # On each worker: end what a broken ssh session has left behind, and record a status that running again would not
    # fix.
    command="cd sbm_jax || exit 1
      if [ -f pid ] && grep -q sbm_jax.main /proc/\$(cat pid)/cmdline 2>/dev/null; then
        kill -TERM \$(cat pid)
        timeout 180 tail --pid=\$(cat pid) -f /dev/null || kill -KILL \$(cat pid)
        sleep 1
      fi
      rm -f failed
      venv/bin/python -m sbm_jax.main$(printf ' %q' "$@") & echo \$! >pid
      status=0; wait \$! || status=\$?; rm -f pid
      case \$status in 1 | 2) touch failed ;; esac
      exit \$status"
    short=0
    while true; do
      start=$SECONDS status=0
      on_all_workers "$command" || status=$?
      ((status != 0)) || exit 0
      short=$((SECONDS - start < 120 ? short + 1 : 0))
      told=$(on_all_workers "if [ -e sbm_jax/failed ]; then echo an error to mend; fi") || true
      if [[ $told == *"error to mend"* ]] || ((short == 5)); then
        break
      fi
      ((short == 0)) || sleep "${PAUSE:-60}" # a worker may be restarting
    done
    echo "ended with status $status and is not run again, since it would fail again: see the first error" >&2
    exit 1
    ;;
  delete)
    gcloud compute tpus tpu-vm delete "$TPU" --zone="$ZONE" --quiet
    ;;
  *) usage ;;
esac
