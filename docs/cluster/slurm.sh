#!/bin/bash
#SBATCH --job-name=autovae
#SBATCH --array=0-7                 # eight workers; more may join at any time
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1           # leave out for CPU
#SBATCH --time=04:00:00
#SBATCH --signal=INT@60             # a minute before the end: hand the trials back
#SBATCH --requeue                   # a preempted worker comes back as another one
#SBATCH --output=autovae-%A_%a.out
#
# sbatch --export=ALL,STUDY=mnist_pairing_v1,AUTOVAE_STORAGE=postgresql://user:password@host/autovae docs/cluster/slurm.sh
#
# The array needs a PostgreSQL server that the nodes reach, and a results folder that they share. Submit it again to go on.
set -euo pipefail

: "${STUDY:?which study? STUDY=quickstart}"
: "${AUTOVAE_STORAGE:?where are the trials kept? AUTOVAE_STORAGE=postgresql://user:password@host/autovae}"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# exec: signals of SLURM reach the worker itself
exec "${AUTOVAE:-autovae}" worker "$STUDY" \
    --results "${RESULTS:-$HOME/autovae-results}" \
    --name "slurm-${SLURM_ARRAY_TASK_ID:-0}" \
    --of "${SLURM_ARRAY_TASK_COUNT:-1}"
