#!/usr/bin/env bash
# One search as a Slurm job, with its own Ray cluster that ends with the job:
#
#     sbatch clusters/slurm.sh mnist-100-full --trials 64
#
# Run it in the root of a checkout that all nodes see, with its .venv (`make search`). More: docs/clusters.md.
# Fill in the lines marked EDIT; each can also be given to sbatch.

#SBATCH --job-name=ladder-search
#SBATCH --nodes=2                     # EDIT
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16            # EDIT
#SBATCH --gpus-per-node=1             # EDIT
#SBATCH --time=12:00:00               # EDIT
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ladder-search-%j.log
# Slurm sends the signal five minutes before the time limit; the script then stops the search and queues itself again.
#SBATCH --signal=B:USR1@300

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH"
ulimit -n 65536 2> /dev/null || ulimit -n "$(ulimit -H -n)"

name="slurm-$SLURM_JOB_ID"
root="$PWD/results"                   # EDIT: on a file system that all nodes share
mkdir -p "$root"

# The cluster's password, for this job only; srun passes the variables on, and every node reads the file.
private=$(umask 077 && mktemp --directory "$root/.$name-XXXXXX")
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' > "$private/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$private/token"

# Another job may run Ray on the same node: this job uses its own temporary folder and free ports. `ray stop` would end the
# other job's Ray as well; with --block, Ray ends with the step that started it.
export RAY_TMPDIR="/tmp/ladder-search-$SLURM_JOB_ID"
read -r port client < <(python - <<'END'
import socket
found = [socket.create_server(("", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in found))
END
)
here=$(hostname -I | cut -d ' ' -f 1)
start=(ray start --block --disable-usage-stats --num-cpus="${SLURM_CPUS_PER_TASK:-1}"
    --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)
head=(--head --node-ip-address="$here" --port="$port" --ray-client-server-port="$client"
    --dashboard-host=127.0.0.1 --include-dashboard=false)

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
count=${#nodes[@]}
steps=()
again=
# shellcheck disable=SC2317  # the trap calls it
leave() {
    kill "${steps[@]}" 2> /dev/null || true
    wait "${steps[@]}" 2> /dev/null || true
    srun --nodes="$count" --ntasks="$count" rm -rf "$RAY_TMPDIR" || true
    rm -rf "$private"
    if [ -n "$again" ]; then scontrol requeue "$SLURM_JOB_ID"; fi
}
trap leave EXIT

srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" "${start[@]}" "${head[@]}" > "$private/head.log" 2>&1 &
steps+=($!)
until (: < "/dev/tcp/$here/$port") 2> /dev/null; do
    kill -0 "${steps[0]}" 2> /dev/null || { echo "Ray did not start:"; cat "$private/head.log"; exit 1; } >&2
    sleep 0.5
done
if ((count > 1)); then
    srun --nodes=$((count - 1)) --ntasks=$((count - 1)) --exclude="${nodes[0]}" \
        "${start[@]}" --address="$here:$port" > "$private/workers.log" 2>&1 &
    steps+=($!)
fi

# Options of the search besides its arguments. A job that was queued again resumes its search.
export LADDER_SEARCH_OPTIONS="--address $here:$port --root $root --name $name"
search=("$@")
if [ -e "$root/$name/study.json" ]; then
    search=(--resume)
    # The address of the tracking store may have a password, which no record of the search contains. It is better to leave
    # --tracking out and to submit the job with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or with MLFLOW_TRACKING_URI.
    while (($#)); do
        case $1 in
            --tracking) search+=("$1" "${2-}") ;;
            --tracking=*) search+=("$1") ;;
        esac
        shift
    done
fi
python search.py "${search[@]}" &
running=$!

# The first signal lets the search stop with checkpoints. After USR1 (time limit) this script queues the job again; after
# TERM (preemption) Slurm does.
trap 'kill -TERM $running' TERM
trap 'again=yes; kill -TERM $running' USR1
code=0
while kill -0 $running 2> /dev/null; do # a signal ends `wait`, but not the search
    wait $running && code=0 || code=$?
done
if ((code == 0)); then again=; fi
exit "$code"
