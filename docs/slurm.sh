#!/usr/bin/env bash
# One row for each task of a SLURM array, in a checkout that all nodes share. From the project's folder:
#
#     source .venv/bin/activate
#     sed -i 's|# \(- suites/cifar10.yaml\)|\1|' dvc.yaml         # so that DVC knows the rows of CIFAR-10
#     dvc repro $(printf 'prepare@%s ' cifar10 cifar10-plain)   # what the rows share: images,
#     dvc repro buffer@cifar10                                   # and expert trajectories
#     sbatch docs/slurm.sh
#
# A task that the time limit has ended goes on from scratch/ where the same array is submitted again. When all tasks
# are done, let DVC take the results in, and build the rest row by row:
#
#     rm scratch/slurm-*.done
#     dvc commit -f distill@<row> train@<row>    # of every row below
#     python -m stages.tools.row <row>
#
# An example, which was not run: change the rows and what a task may use.
#
#SBATCH --job-name=rows
#SBATCH --array=0-3%2                  # four rows, at most two at a time
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --requeue                      # a task that is pre-empted begins again, and goes on from scratch/
#SBATCH --output=scratch/slurm-%A-%a.log
set -euo pipefail

ROWS=(cifar10-mtt-ipc1 cifar10-mtt-ipc10 cifar10-dc-ipc1 cifar10-dsa-ipc1)

cd "${SLURM_SUBMIT_DIR:?start it by sbatch}"
source .venv/bin/activate
row=${ROWS[$SLURM_ARRAY_TASK_ID]}
export DEVICE=cuda

# Once done, a stage is not begun again. Delete its mark after a change of the row's settings.
for stage in distill train; do
    mark=scratch/slurm-$row-$stage.done
    if [ ! -e "$mark" ]; then
        python -m "stages.$stage" "$row"
        touch "$mark"
    fi
done
