#!/usr/bin/env bash
# A lab whose GPU is behind a scheduler: sbatch deploy/lab.slurm.sh
# The job takes part until the run is over. Near its time limit it stops in order and is queued
# again; the run goes on at its quorum meanwhile, and the lab rejoins when the job starts anew.
# A compute node needs to reach the coordinator's one port: docs/deployment.md.
#SBATCH --job-name=crossply-lab
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=crossply-lab.%j.log
# to this shell alone, two minutes before the end
#SBATCH --signal=B:TERM@120
set -euo pipefail

CROSSPLY_HOME="${CROSSPLY_HOME:-$HOME/crossply}"
# on a file system that all nodes see: the key, the policy and the log of what left
export CROSSPLY_LAB_STATE="${CROSSPLY_LAB_STATE:-$HOME/crossply-lab}"
export CROSSPLY_CACHE="${CROSSPLY_CACHE:-$HOME/.cache/crossply}"
export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1

stopped=0
# shellcheck disable=SC2329  # called by the trap
stop() {
    stopped=1
    kill -TERM "$lab"
}

"$CROSSPLY_HOME/.venv/bin/crossply" lab start --forever --log-json &
lab=$!
trap stop TERM

# `wait` ends when a signal comes, and is asked again for the lab's own exit code
code=0
wait "$lab" || code=$?
if ((stopped)); then
    code=0
    wait "$lab" || code=$?
    if ((code == 0)); then
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$code"
