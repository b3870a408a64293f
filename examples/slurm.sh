#!/usr/bin/env bash
# One continual run on 2 nodes of 4 GPUs each, however often it is cut off:   sbatch examples/slurm.sh
#SBATCH --job-name=lightning-cl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4        # one process a GPU, as Lightning expects
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=SIGTERM@120       # to the processes, two minutes before the end: the step is finished and saved
#SBATCH --open-mode=append
set -euo pipefail

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
status=0
srun python "${1:-examples/train_nodes.py}" || status=$?
if [ "$status" -eq 143 ]; then # stopped by the signal, so there is more to do: go on from checkpoints/last.ckpt
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
