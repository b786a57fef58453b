#!/usr/bin/env bash
# A recipe on a SLURM of one node, from submission to its results: tests/scale/slurm.sh [PEFTC]
#
# Needs root (the daemons act for users), and Debian's packages slurm-wlm and munge; what is missing is installed with apt-get. Where
# that cannot be, it says why and ends with exit code 0. All that SLURM writes is in a scratch folder, and its ports are not the usual
# ones. It shows that
#   1. jobs and arrays leave the bits that one run leaves;
#   2. a cancelled job keeps a checkpoint, and the next submission goes on from it to the same bits;
#   3. a job that is told of its limit goes back into the queue by itself, and ends with the same bits.
set -euo pipefail
cd "$(dirname "$0")/../.."
peftc=$(realpath "${1:-target/debug/peftc}")
here=$PWD

skip() {
  echo "SLURM was not tried: $1"
  exit 0
}

[ -x "$peftc" ] || skip "there is no $peftc"
[ "$(id -u)" = 0 ] || skip "its daemons have to be started by root"
missing=()
command -v slurmctld >/dev/null && command -v slurmd >/dev/null || missing+=(slurm-wlm)
command -v munged >/dev/null || missing+=(munge)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || skip "${missing[*]} cannot be installed: there is no apt-get"
  install=(apt-get -o DPkg::Lock::Timeout=20 install -y --no-install-recommends "${missing[@]}")
  if ! said=$(DEBIAN_FRONTEND=noninteractive timeout -k 5 120 "${install[@]}" 2>&1 </dev/null); then
    skip "apt-get could not install ${missing[*]} ($(tail -n 1 <<<"$said"))"
  fi
fi

work=$(mktemp -d)
daemons=()
finish() {
  local code=$?
  for id in "${daemons[@]}"; do kill "$id" 2>/dev/null || true; done
  wait 2>/dev/null || true
  if [ $code != 0 ]; then
    tail -n 20 "$work"/log/* "$work"/project/.peftc/runs/*/.slurm/*.log 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT

# --- SLURM ---
mkdir -p "$work"/{state,spool,log,project}
node=$(hostname -s)
cat >"$work/slurm.conf" <<END
ClusterName=scale
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmdSpoolDir=$work/spool
StateSaveLocation=$work/state
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF="$work/slurm.conf"
head -c 128 /dev/urandom >"$work/munge.key"
chmod 600 "$work/munge.key"
chmod 755 "$work"
munged --foreground --force --socket="$work/munge.socket" --key-file="$work/munge.key" --pid-file="$work/munged.pid" \
  --seed-file="$work/munge.seed" --log-file="$work/log/munged" >"$work/log/munged.out" 2>&1 &
daemons+=($!)
for _ in $(seq 50); do
  [ -S "$work/munge.socket" ] && break
  sleep 0.1
done
slurmctld -D >"$work/log/slurmctld" 2>&1 &
daemons+=($!)
slurmd -D -N "$node" >"$work/log/slurmd" 2>&1 &
daemons+=($!)
for _ in $(seq 100); do
  [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] && break
  sleep 0.2
done
if [ "$(sinfo --noheader --format=%t 2>&1)" != idle ]; then
  skip "it does not start here ($(tail -qn 1 "$work"/log/* | tr '\n' ';'))"
fi

# --- the recipes ---
cd "$work/project"
export XDG_CONFIG_HOME="$work/config" XDG_CACHE_HOME="$work/cache"
head="model m = local \"$here/tests/reference/bert-tiny\"
data d = local \"$here/recipes/reviews\" { text = sentence, label = label, take = 48 }"
cat >sweep.peft <<END
let seed = 1
sweep seeds = grid { seed = [1, 2, 3] }
$head
stage warm = train { model = m, data = d.train, adapter = bitfit, lr = 1e-3, steps = 4 }
stage learn = train { from = warm, data = d.train, adapter = lora { rank = 2 }, lr = 1e-3, seed = seed, steps = 8 }
stage score = eval { from = learn, data = d.dev }
END
cat >long.peft <<END
$head
stage long = train { model = m, data = d.train, adapter = lora { rank = 2 }, lr = 1e-4, steps = 1200, features = 0B }
END

fail() {
  echo "SLURM: $1" >&2
  exit 1
}

told=
# Asks until a condition on `peftc status --json` holds; leaves what was told in `told`.
until_status() {
  local recipe=$1 what=$2 condition=$3
  for _ in $(seq 600); do
    told=$("$peftc" status "$recipe" --json --threads 1)
    if eval "$condition"; then return 0; fi
    sleep 0.2
  done
  fail "no $what within two minutes: $told"
}

same() {
  cmp "$1" "$2" || fail "$1 and $2 have other bits"
}

# 1. A sweep.
begun=$SECONDS
for recipe in sweep long; do
  "$peftc" run $recipe.peft --quiet --threads 1 --store here --out "here-$recipe" >/dev/null
done
"$peftc" run sweep.peft --on slurm --threads 1
until_status sweep.peft "end of the sweep" '! grep -qE "\"state\": \"(new|waiting|running)\"" <<<"$told"'
[ "$(grep -c '"state": "done"' <<<"$told")" = 7 ] || fail "stages are not done: $told"
for seed in 1 2 3; do
  same ".peftc/runs/sweep/learn@seed=$seed/adapter/peftc.safetensors" "here-sweep/learn@seed=$seed/adapter/peftc.safetensors"
  same ".peftc/runs/sweep/score@seed=$seed/predictions.tsv" "here-sweep/score@seed=$seed/predictions.tsv"
done
[ "$(grep -c '"wall_s"' .peftc/runs/sweep/result.json)" = 7 ] || fail "result.json lacks stages"
"$peftc" report .peftc/runs/sweep >/dev/null

job() {
  grep -o '"job": "[0-9]*"' <<<"$told" | tr -dc 0-9
}

# 2. A job that is cancelled.
"$peftc" run long.peft --on slurm --threads 1 --checkpoint-every 1000 >/dev/null
until_status long.peft "step" 'grep -qE "\"done\": [1-9]" <<<"$told"'
scancel "$(job)"
until_status long.peft "end of the cancelled job" 'grep -q "\"state\": \"cancelled\"" <<<"$told"'
grep -qE '"resumes_at": [1-9]' <<<"$told" || fail "the cancelled job left no checkpoint: $told"

# 3. It is submitted again, and told of its limit.
"$peftc" run long.peft --on slurm --threads 1 --checkpoint-every 1000 >/dev/null
until_status long.peft "step" 'grep -q "\"state\": \"running\"" <<<"$told" && grep -qE "\"done\": [1-9]" <<<"$told"'
limited=$(job)
scancel --signal=USR1 --batch "$limited"
until_status long.peft "job in the queue again" 'grep -q "\"state\": \"waiting\"" <<<"$told"'
for _ in $(seq 100); do
  # SLURM lets a job that goes back wait for two minutes.
  scontrol update JobId="$limited" StartTime=now 2>/dev/null && break
  sleep 0.2
done
until_status long.peft "end" 'grep -q "\"state\": \"done\"" <<<"$told"'
[ "$(grep -c '"event":"resumed"' ".peftc/runs/long/.slurm/long-$limited.log")" = 2 ] || fail "the job did not go on twice"
same .peftc/runs/long/long/adapter/peftc.safetensors here-long/long/adapter/peftc.safetensors
echo "SLURM: a sweep of 7 stages as an array, a cancelled job and one at its limit: the same bits ($((SECONDS - begun)) s)"
