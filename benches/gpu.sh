#!/usr/bin/env bash
# Measures everything that needs an NVIDIA GPU, the most valuable first, and leaves two files a part and nothing else.
#
#   benches/gpu.sh [--rehearse] OUT PEFTC PROVE [PART…]
#
# OUT is the folder for the results, PEFTC the binary, PROVE the example `prove`. Parts, all of them if none is named:
#
#   doctor    what the machine offers                                         OUT/doctor.txt
#   curves    every method and decoder family beside PyTorch's losses         OUT/curves.txt, curves.json
#   bits      trainings twice, and killed in their midst (same_bits.py)       OUT/bits.txt
#   devices   the same recipes on processor and GPU (compare_devices.py)      OUT/devices.txt, devices.json
#   compare   samples/s and memory against PyTorch (compare.py)               OUT/compare.txt, compare.json
#   language  tokens/s and memory of language models (language.py)            OUT/language.txt, language.json
#   prove     60 random recipes: memory as estimated and as measured there    OUT/prove.txt, prove.csv
#
# and always OUT/summary.md, of all parts whose results lie in OUT. `compare` goes on with what its file holds already;
# the other parts begin anew. The exit code is 0 if every part that was asked for met its targets.
#
# Needs no Rust and no network, but this repository's benches, tests, recipes, and a python3 ($PYTHON) with numpy, torch,
# transformers, peft, tokenizers. CUDA's libraries are looked for in LD_LIBRARY_PATH, that python's packages, CUDA_HOME and
# the usual places. DEVICE (cuda) may name another GPU, ROWS some of the rows that `compare` measures; DOCTOR_S, CURVES_S, BITS_S,
# DEVICES_S, COMPARE_S, LANGUAGE_S, PROVE_S are the parts' seconds. `language` wants bitsandbytes for its rows in four bits.
# PROVE_JOBS (8) recipes are proved at once; with one the memory of the whole GPU is watched, too, in six times the time.
#
# --rehearse: everything once, small, on the processor (or on DEVICE), to try the whole where there is no GPU.
set -uo pipefail

rehearse=
[ "${1:-}" = --rehearse ] && { rehearse=1; shift; }
[ $# -ge 3 ] || { sed -n '2,/^set/{/^set/!p}' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
repo=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" || exit 1
out=$(cd "$1" && pwd) binary=$(realpath "$2") prove=$(realpath "$3")
shift 3
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(doctor curves bits devices compare language prove)
for part in "${parts[@]}"; do
  case $part in doctor|curves|bits|devices|compare|language|prove) ;; *) echo "there is no part $part" >&2; exit 2;; esac
done
for file in "$binary" "$prove"; do
  [ -x "$file" ] || { echo "$file is not there, or cannot be run" >&2; exit 2; }
done
python=${PYTHON:-python3}
device=${DEVICE:-${rehearse:+cpu}}
device=${device:-cuda}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# peftc finds CUDA's libraries by itself in what follows; PyTorch keeps to its own.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
packages=$("$python" -c 'import sys, glob, os
print(":".join(d for p in sys.path if p for d in sorted(glob.glob(os.path.join(p, "nvidia", "*", "lib")))))' 2>/dev/null)
libraries=${LD_LIBRARY_PATH:-}
IFS=: read -ra found <<<"$packages:${CUDA_HOME:+$CUDA_HOME/lib64}:/usr/local/cuda/lib64:/usr/local/nvidia/lib64:/usr/local/nvidia/lib"
for folder in "${found[@]}"; do
  [ -n "$folder" ] && [ -d "$folder" ] && libraries="$libraries${libraries:+:}$folder"
done
printf '#!/bin/sh\nexport LD_LIBRARY_PATH=%q\nexec %q "$@"\n' "$libraries" "$binary" >"$scratch/peftc"
chmod +x "$scratch/peftc"
peftc=$scratch/peftc

rows=${ROWS:-full,lora,siva,siva_key_value,last_3,lst,5_lst,9_lst,mezo}
if [ -n "$rehearse" ]; then
  small=${TMPDIR:-/tmp}/peftc-gpu-small.json # always the same, so that `compare` can go on
  cat >"$small" <<'JSON'
{"architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "vocab_size": 6100, "hidden_size": 64, "num_hidden_layers": 4,
 "num_attention_heads": 4, "intermediate_size": 128, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
 "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
 "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
JSON
  curves_args=(--models bert-tiny --only bitfit,ia3 --jobs 2)
  bits_args=(--only "LoRA, f32" --steps 8)
  language_args=(--rows lora-kept --steps 1 --batch 2 --length 16)
  devices_args=(--models tiny --batch 2 --max-length 16 --precision f32,tf32,bf16,bf16_kept)
  prove_args=(--draws 60 --only 6 --precision any)
  compare_args=(--shape "$small" --methods lora --precision f32,bf16 --peer-dtype f32,bf16 --batch 2
                --max-length 16 --steps 1 --warmup 1 --repeats 1 --targets)
else
  curves_args=(--jobs 8)
  bits_args=()
  language_args=()
  devices_args=(--models mini,tales,random --precision f32,tf32,bf16_kept,nf4_kept,q8_0)
  prove_args=(--draws 60 --precision any --jobs "${PROVE_JOBS:-8}")
  compare_args=(--shape large --methods "$rows" --precision f32,tf32,bf16 --peer-dtype f32,bf16 --batch 16,64
                --steps 20 --warmup 5 --repeats 1)
fi

# run PART SECONDS COMMAND…: ended 20 s after its time (what has a limit of its own has printed its table by then).
run() {
  local part=$1 seconds=$2 begun=$SECONDS code
  shift 2
  echo "$part: at most $seconds s" >&2
  if [ "$(type -t "$1")" = function ]; then
    "$@" >"$out/$part.txt" 2>"$scratch/said"
  else
    timeout -k 5 $((seconds + 20)) "$@" >"$out/$part.txt" 2>"$scratch/said"
  fi
  code=$?
  { echo; echo "---- standard error"; tail -c 200000 "$scratch/said"; echo "---- exit code $code after $((SECONDS - begun)) s"; } >>"$out/$part.txt"
  echo "$part: exit code $code after $((SECONDS - begun)) s" >&2
  return $code
}

# Two shapes, each within its seconds; small if rehearsed.
language() {
  local each=("$python" "$repo/benches/pytorch/language.py" --peftc "$peftc" --device "$device" --limit "$1" --json "$out/language.json")
  if [ -n "$rehearse" ]; then
    "${each[@]}" "${language_args[@]}"
  else
    "${each[@]}" --shape llama3.2-1b --batch 8 --length 512 --steps 6 --warmup 3 --rows lora-kept,qlora,lora-tf32
    "${each[@]}" --shape smollm2-135m --batch 16 --steps 6 --warmup 3 --rows lora-kept,qlora
  fi
}

bad=0
for part in "${parts[@]}"; do
  case $part in
    doctor)
      run doctor "${DOCTOR_S:-30}" sh -c '"$0" doctor --device "$1"; code=$?; nvidia-smi; exit $code' "$peftc" "$device" ;;
    devices)
      limit=${DEVICES_S:-240}
      run devices "$limit" "$python" "$repo/tests/cuda/compare_devices.py" --peftc "$peftc" --devices "cpu,$device" \
        --json "$out/devices.json" --limit "$limit" "${devices_args[@]}" ;;
    prove)
      limit=${PROVE_S:-210}
      run prove "$limit" "$prove" --peftc "$peftc" --device "$device" --csv "$out/prove.csv" --limit "$limit" "${prove_args[@]}" ;;
    curves)
      limit=${CURVES_S:-90}
      run curves "$limit" "$python" "$repo/tests/cuda/curves.py" --peftc "$peftc" --device "$device" --limit "$limit" \
        --json "$out/curves.json" "${curves_args[@]}" ;;
    bits)
      run bits "${BITS_S:-90}" "$python" "$repo/tests/cuda/same_bits.py" --peftc "$peftc" --device "$device" "${bits_args[@]}" ;;
    language)
      limit=${LANGUAGE_S:-180}
      run language "$limit" language "$((limit / 2))" ;;
    compare)
      limit=${COMPARE_S:-660}
      run compare "$limit" "$python" "$repo/benches/pytorch/compare.py" --peftc "$peftc" --device "$device" \
        --json "$out/compare.json" --resume --limit "$limit" "${compare_args[@]}" ;;
  esac || bad=1
done

# What matters of each part's text, on a page.
{
  echo "# Measured on a GPU"
  echo
  echo "$("$peftc" --version 2>&1 | head -1), device \`$device\`${rehearse:+ (a rehearsal: nothing here is a measurement)}, $(date -u '+%Y-%m-%d %H:%M UTC')"
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null
  for part in doctor curves bits devices compare language prove; do
    file=$out/$part.txt
    [ -f "$file" ] || continue
    echo
    echo "## $part: $(sed -n 's/^---- //p' "$file" | tail -1)"
    echo
    case $part in
      doctor) sed -n '/^---- standard error/q; /^  *\(built\|processor\|memory\|driver\|libraries\|gpu\|GPU\|Nothing\|cuda\|problem\)/p' "$file" | sed 's/^ */- /' ;;
      curves|bits|language) sed -n '/^---- standard/q; p' "$file" ;;
      devices) sed -n '/^---- standard/q; s/^.* against .*$/- &/p; s/^.* combinations, .*$/- &/p' "$file" ;;
      prove) sed -n '/^---- standard/q; /^[0-9]* draws, /s/^/- /p; /^device bytes/s/^/- /p; /^the whole GPU/s/^/- /p; /^the GPU.s whole/s/^/- /p; /^above the/s/^/- /p; /^estimated otherwise/s/^/- /p; /^targets:/s/^/- /p; /^stopped/s/^/- /p' "$file" ;;
      compare) sed -n '/^---- standard/q; /^RoBERTa-/p; s/^Estimate:/- Estimate:/; /^- /p' "$file" ;;
    esac
    # Of tables only the lines that missed something.
    case $part in doctor|curves|bits|language) continue ;; esac
    missed=$(sed -n '/^---- standard/q; /| nothing |$/d; /^| row /d; /^| model /d; /^| ---/d; /^| /p' "$file")
    if [ -n "$missed" ]; then
      echo
      sed -n '/^---- standard/q; /^| row /p; /^| model /p; /^| ---/p' "$file"
      echo "$missed"
    fi
  done
} >"$out/summary.md"
cat "$out/summary.md"
exit $bad
