#!/usr/bin/env bash
# A Slurm job with one task per node, each with all GPUs of its node; JAX finds the others by Slurm's variables.
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/polymnist.py:best --workdir=/shared/polymnist
#
# Submit from the directory of the repository, with the environment active; the work directory and the data must be on a
# file system that all nodes see. Two minutes before the time limit, or when the job is preempted, the processes receive
# SIGTERM and save, and the job is requeued. It is also requeued after a crash of a process or a node, but not after an
# error that the user must fix, nor if it crashes within two minutes three times in a row.
#SBATCH --job-name=sbm_jax
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sbm_jax-%j.log
set -euo pipefail
if [[ $# -eq 0 || -z ${SLURM_JOB_ID:-} ]]; then
  sed -n '2,/^#SBATCH/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2
  exit 2
fi
trap '' TERM # the tasks handle it
# One task has all GPUs of its node; without this, JAX uses one GPU per task.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((${SLURM_GPUS_ON_NODE:-1} - 1)))
export JAX_LOCAL_DEVICE_IDS
# srun ends with the highest status of its tasks: 255 marks an error that running again would not fix. A task passes
# SIGTERM on, which Slurm may send only to it.
# shellcheck disable=SC2016 # for the tasks to expand
task='
  trap "kill -TERM \$child 2>/dev/null" TERM
  "$@" &
  child=$! status=0
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  exit "$((status == 1 || status == 2 ? 255 : status))"'
status=0
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  bash -c "$task" task "${PYTHON:-python}" -m sbm_jax.main "$@" || status=$?

# Crashes within two minutes are counted, until a run lasts longer or saves.
crashes="${SLURM_SUBMIT_DIR:-.}/sbm_jax-$SLURM_JOB_ID.crashes"
if ((status == 0 || status == 75 || SECONDS >= 120)); then
  rm -f "$crashes"
else
  echo "$status" >>"$crashes"
fi
if ((status == 0)); then
  exit 0
fi
if ((status == 255)) || [[ -e $crashes && $(wc -l <"$crashes") -ge 3 ]]; then
  rm -f "$crashes"
  echo "ended with status $status and is not requeued, since it would fail again: see the first error" >&2
  exit 1
fi
scontrol requeue "$SLURM_JOB_ID"
exit "$status"
