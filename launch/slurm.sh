#!/usr/bin/env bash
# A Slurm job with one task on each node, each with all GPUs of its node; JAX finds the others by Slurm's variables.
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/polymnist.py:best --workdir=/shared/polymnist
#
# Submit from the directory of the repository, with the environment active; the work directory and the data must be on a
# file system that all nodes see. Two minutes before the time is over, or when the job is preempted, the processes are
# told to end: they save, end with status 75, and the job is put back into the queue.
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
trap '' TERM # it is for the tasks
# One task has all GPUs of its node: without this JAX takes one for each task.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((${SLURM_GPUS_ON_NODE:-1} - 1)))
export JAX_LOCAL_DEVICE_IDS
status=0
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${PYTHON:-python}" -m sbm_jax.main "$@" || status=$?
if ((status == 75)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
