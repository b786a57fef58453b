#!/usr/bin/env bash
# Trainings shared among processes by Open MPI, on one machine: tests/scale/mpi.sh [PEFTC]
#
# PEFTC is one that was built with `--features mpi`; it is built where none is given. Needs Debian's packages openmpi-bin,
# libopenmpi-dev and libclang-dev (the last two to build); what is missing is installed with apt-get, by root. Where that cannot be, it
# says why and ends with exit code 0. It shows of LoRA, full fine-tuning, a ladder and MeZO that
#   1. two ranks leave the same bits twice, and one rank's losses within 1e-5;
#   2. a rank that is killed ends all, and the next run goes on to the same bits;
#   3. one process goes on from a checkpoint of two ranks;
#   4. what crosses the wire in a step, as MPI itself counts it, is what `check --ranks` says;
#   5. a `peftc` without MPI does not run several times beside itself.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD

skip() {
  echo "MPI was not tried: $1"
  exit 0
}

fail() {
  echo "MPI: $1" >&2
  exit 1
}

missing=()
command -v mpirun >/dev/null || missing+=(openmpi-bin)
if [ -z "${1:-}" ]; then
  command -v mpicc >/dev/null || missing+=(libopenmpi-dev)
  ldconfig -p | grep -q libclang || ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 || missing+=(libclang-dev)
fi
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || skip "${missing[*]} cannot be installed: there is no apt-get"
  [ "$(id -u)" = 0 ] || skip "${missing[*]} would have to be installed by root"
  install=(apt-get -o DPkg::Lock::Timeout=20 install -y --no-install-recommends "${missing[@]}")
  if ! said=$(DEBIAN_FRONTEND=noninteractive timeout -k 5 300 "${install[@]}" 2>&1 </dev/null); then
    skip "apt-get could not install ${missing[*]} ($(tail -n 1 <<<"$said"))"
  fi
fi

work=$(mktemp -d)
finish() {
  local code=$?
  if [ $code != 0 ]; then tail -n 20 "$work"/*.log 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

plain=
if [ -n "${1:-}" ]; then
  peftc=$(realpath "$1")
else
  target=${CARGO_TARGET_DIR:-target}
  # Without MPI, before it is built over.
  [ ! -x "$target/debug/peftc" ] || { plain="$work/plain" && cp "$target/debug/peftc" "$plain"; }
  cargo build --quiet --features mpi --bin peftc
  peftc="$work/peftc"
  cp "$target/debug/peftc" "$peftc"
fi
[ -x "$peftc" ] || skip "there is no $peftc"

cd "$work"
export XDG_CONFIG_HOME="$work/config" XDG_CACHE_HOME="$work/cache"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpi=(mpirun --oversubscribe --bind-to none)
head="model m = local \"$here/tests/reference/bert-tiny\"
data d = local \"$here/recipes/reviews\" { text = sentence, label = label, take = 48 }"
common="model = m, data = d.train, batch = 12, lr = 1e-3"
cat >all.peft <<END
$head
stage lora = train { $common, steps = 8, adapter = lora { rank = 2, dropout = 0.1 }, micro_batch = 4 }
stage whole = train { $common, steps = 8, adapter = full, dev = d.dev, best = accuracy }
stage ladder = train { $common, steps = 8, adapter = lst { r = 4 } }
stage blind = mezo { $common, steps = 8, adapter = lora { rank = 2 }, perturbations = 2 }
stage score = eval { from = whole, data = d.dev }
END
for steps in 10 20; do
  cat >wire-$steps.peft <<END
$head
stage s = train { $common, steps = $steps, adapter = full }
END
done
cat >long.peft <<END
$head
stage s = train { $common, steps = 600, adapter = lora { rank = 2 }, features = 0B }
END

flags=(--quiet --threads 1 --offline)
# Runs a recipe among so many ranks into a folder of its own.
among() {
  local count=$1 recipe=$2 into=$3
  shift 3
  "${mpi[@]}" -n "$count" "$peftc" run "$recipe.peft" "${flags[@]}" --store "$into/store" --out "$into/out" "$@" >>"$work/run.log" 2>&1
}

same() {
  cmp "$1" "$2" || fail "$1 and $2 have other bits"
}

# The losses of a log.
losses() {
  sed -E 's/.*"loss":([^,]*),.*/\1/' "$1"
}

# Whether two logs have as many steps, and losses within 1e-5 (of them, where they are above 1).
near() {
  paste -d' ' <(losses "$1") <(losses "$2") | awk '
    function off(a, b,  d, s) { d = a - b; if (d < 0) d = -d; s = a < 0 ? -a : a; if (s < 1) s = 1; return d > 1e-5 * s }
    NF != 2 || off($1, $2) { bad = 1 } END { exit bad || NR == 0 }' || fail "$1 and $2 differ by more than 1e-5"
}

# 1. The same bits twice, and one rank's losses.
begun=$SECONDS
among 2 all two
among 2 all again
among 1 all one
for stage in lora whole ladder blind; do
  near "one/out/$stage/metrics.jsonl" "two/out/$stage/metrics.jsonl"
  file=adapter/peftc.safetensors
  [ -e "two/out/$stage/$file" ] || file=model/model.safetensors
  same "two/out/$stage/$file" "again/out/$stage/$file"
done
same two/out/score/predictions.tsv again/out/score/predictions.tsv
# What is finished is taken from the store, by one process too.
"$peftc" run all.peft "${flags[@]}" --ranks 2 --store two/store --out two/out --stage score >/dev/null || fail "the store does not know two ranks' results"

# 2. A rank is killed.
among 2 long whole
among 2 long killed --checkpoint-every 0.2 &
job=$!
for _ in $(seq 600); do
  [ "$(cat killed/store/*/checkpoint/latest 2>/dev/null)" ] && break
  sleep 0.1
done
sleep 0.5
launcher=$(pgrep -P "$job" mpirun || echo "$job")
mapfile -t ranks < <(pgrep -P "$launcher" | tail -n 1)
kill -KILL "${ranks[0]}" || fail "no rank could be killed"
if wait "$job"; then fail "a run whose rank was killed ended well"; fi
grep -q "signal 9" run.log || fail "nothing said that a rank was killed"
[ ! -e killed/out/s/adapter ] || fail "the run was over before its rank was killed"
cp -r killed half
among 2 long killed
same killed/out/s/adapter/peftc.safetensors whole/out/s/adapter/peftc.safetensors

# 3. One process goes on from where two ranks were.
"$peftc" run long.peft --threads 1 --offline --resume any --store half/store --out half/out >one.log 2>&1 || fail "one process does not go on"
grep -q "goes on from the checkpoint at step" one.log || fail "one process began anew"
near half/out/s/metrics.jsonl whole/out/s/metrics.jsonl

# 4. Bytes on the wire, by MPI's own count.
sent() {
  local own=wire-$1
  "${mpi[@]}" -n 2 --mca pml_monitoring_enable 1 --mca pml_monitoring_enable_output 3 --mca pml_monitoring_filename "$work/$own" \
    "$peftc" run "$own.peft" "${flags[@]}" --store "$own/store" --out "$own/out" >>run.log 2>&1
  cat "$own".*.prof | awk '$1 == "E" { sum += $4 } END { print sum + 0 }'
}
if ompi_info 2>/dev/null | grep -q "MCA pml: monitoring"; then
  planned=$("$peftc" check wire-10.peft --offline --ranks 2 --json | grep -o '"sent_bytes_per_step":[0-9]*' | tr -dc 0-9)
  measured=$(($(sent 20) - $(sent 10)))
  # Ten steps of two ranks.
  [ "$measured" = $((20 * planned)) ] || fail "10 steps sent $measured bytes, and $((20 * planned)) were planned"
else
  planned="not counted: this Open MPI has no pml monitoring;"
fi

# 5. Without MPI.
if [ -n "$plain" ]; then
  if "${mpi[@]}" -n 2 "$plain" run wire-10.peft --store no/store --out no/out >plain.log 2>&1; then fail "two processes without MPI ran"; fi
  grep -q "built without MPI" plain.log || fail "two processes without MPI were refused for another reason"
  [ ! -e no/store ] || fail "two processes without MPI began to run"
fi
echo "MPI: four trainings of two ranks, a rank that was killed, a checkpoint of two gone on from by one; $planned bytes a rank and step ($((SECONDS - begun)) s)"
