#!/usr/bin/env python3
"""The same bits on a device: a training run twice, and one that is killed in its midst and goes on.

    python3 tests/cuda/same_bits.py --peftc target/release/peftc --device cuda

Recipes over the embedded encoder and the embedded LLaMA, in f32 and with weights, products and activations in bf16 or nf4.
Losses of every step and the bytes of every tensor file that a run leaves must be those of the first run. Prints a Markdown
table; exit code 1 if a bit differs. Needs Python alone.
"""

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
ENCODER = (f'model m = local "{REPO / "recipes" / "reviews-mini"}" {{ KEYS }}\n'
           f'data d = local "{REPO / "recipes" / "reviews"}" {{ text = sentence, label = label, take = 640 }}\n'
           "stage s = KIND { model = m, data = d.train, adapter = METHOD, lr = RATE, steps = STEPS, batch = 16, max_length = 64 }\n")
DECODER = (f'model m = local "{REPO / "recipes" / "tales-mini"}" {{ KEYS }}\n'
           f'data d = local "{REPO / "recipes" / "places-mini"}" {{ messages = messages }}\n'
           "stage s = KIND { model = m, data = d.train, objective = causal_lm, adapter = METHOD, lr = RATE, steps = STEPS, batch = 8 }\n")
KEPT = "precision = bf16, dtype = bf16, activations = bf16"
LORA = "lora { rank = 4, dropout = 0.1, on = {attention.{query, key, value, output}, ffn.{up, down}} }"
DECODED = "lora { rank = 4, dropout = 0.1, on = { attention.*, ffn.* } }"
CASES = [
    ("encoder, full, f32", ENCODER, "train", "full", "", 2e-5),
    ("encoder, LoRA, f32", ENCODER, "train", LORA, "", 1e-3),
    ("encoder, 3-LST, TF32", ENCODER, "train", "k_lst { k = 3, r = 8 }", "precision = tf32", 1e-3),
    ("encoder, MeZO, f32", ENCODER, "mezo", "full", "", 1e-6),
    ("encoder, LoRA, bf16", ENCODER, "train", LORA, KEPT, 1e-3),
    ("LLaMA, LoRA, f32", DECODER, "train", DECODED, "", 1e-3),
    ("LLaMA, LoRA, bf16", DECODER, "train", DECODED, KEPT, 1e-3),
    ("LLaMA, QLoRA", DECODER, "train", DECODED, "precision = bf16, dtype = nf4, activations = bf16", 1e-3),
]


def run(args, folder, store, more=(), kill_at=None):
    """Runs the recipe of a folder; with `kill_at`, kills it once so many steps are logged."""
    command = [str(args.peftc), "run", "--quiet", "--offline", "--device", args.device, "--threads", "2", "--store", store, "--out", f"{store}-out",
               *more, "r.peft"]
    if kill_at is None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-800:]}")
        return
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    log = folder / f"{store}-out" / "s" / "metrics.jsonl"
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError("it ended before it was killed")
        if log.is_file() and log.read_bytes().count(b"\n") >= kill_at:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


def left(folder, store):
    """Losses, and hashes of all tensors that a run left."""
    stage = folder / f"{store}-out" / "s"
    lines = (stage / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    result = json.loads((folder / f"{store}-out" / "result.json").read_text())["stages"][0]
    artifact = folder / result["artifact"]
    files = sorted(artifact.rglob("*.safetensors"))
    return losses, {str(f.relative_to(artifact)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--peftc", type=Path, default=REPO / "target" / "debug" / "peftc")
    p.add_argument("--device", default="cuda")
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("--only", help="a part of a case's name")
    args = p.parse_args()
    args.peftc = args.peftc.resolve()
    bad = 0
    print("| recipe | steps | twice | killed after | gone on |\n| --- | ---: | --- | ---: | --- |")
    for name, text, kind, method, keys, rate in CASES:
        if args.only and args.only not in name:
            continue
        for place, value in (("KEYS", keys), ("KIND", kind), ("METHOD", method), ("RATE", f"{rate}"), ("STEPS", f"{args.steps}")):
            text = text.replace(place, value)
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(tmp)
            (folder / "r.peft").write_text(text)
            try:
                run(args, folder, "one")
                run(args, folder, "two")
                run(args, folder, "three", ("--checkpoint-every", "0"), kill_at=args.steps // 4)
                killed = (folder / "three-out" / "s" / "metrics.jsonl").read_bytes().count(b"\n")
                run(args, folder, "three")
                wanted = left(folder, "one")
                if not wanted[1] or len(wanted[0]) != args.steps:
                    raise RuntimeError("the run left too little")
                twice, on = left(folder, "two") == wanted, left(folder, "three") == wanted
            except (RuntimeError, OSError, KeyError, ValueError) as error:
                print(f"| {name} | {args.steps} | failed: {error} | – | – |", flush=True)
                bad += 1
                continue
        said = lambda same: "the same bits" if same else "OTHER BITS"
        print(f"| {name} | {args.steps} | {said(twice)} | {killed} | {said(on)} |", flush=True)
        bad += not (twice and on)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
