"""Measures how well methods learn the shipped chats: perplexity, exact match and ROUGE-L on the test split, by seed.

    python tests/reference/measure_chats.py --peftc target/debug/peftc --out DIR [--seeds 0,1,2] [--methods lora,full]

Each run trains three epochs as recipes/chat.peft does, with products in bf16, and scores what is generated. Finished runs are
taken from DIR/store, so that it may be stopped and called again. A table is printed at the end; figures that PyTorch,
transformers and peft give for LoRA (seed 0, bf16 autocast) stand above it.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALL = "on = { attention.*, ffn.* }"
# method: the model's keys, the adapter, the peak of the learning rate
METHODS = {
    "lora": ("", f"lora {{ rank = 8, alpha = 16, {ALL} }}", "3e-3"),
    "qlora": (", dtype = nf4", f"lora {{ rank = 8, alpha = 16, {ALL} }}", "3e-3"),
    "full": ("", "full", "1e-3"),
    "siva": ("", f"siva {{ rank = 32, {ALL} }}", "1e-3"),
    "lst": ("", "lst { r = 4 }", "3e-3"),
}
RECIPE = """model tales = local "{root}/recipes/tales-mini" {{ precision = bf16{model} }}
data places = local "{root}/recipes/places-mini" {{ messages = messages }}
stage tune = train {{ model = tales, data = places.train, objective = causal_lm, adapter = {adapter}, seed = {seed}, epochs = 3,
  batch = 16, optimizer = adamw {{ weight_decay = 0.01 }}, schedule = linear {{ peak = {lr}, warmup = 10% }} }}
stage score = eval {{ from = tune, data = places.test, metrics = [loss, perplexity, exact_match, bleu, rouge_l],
  generate = {{ max_new_tokens = 72 }} }}
"""
METRICS = ["perplexity", "exact_match", "bleu", "rouge_l"]


def run(peftc, out, name, seed):
    model, adapter, lr = METHODS[name]
    recipe = out / f"{name}-{seed}.peft"
    recipe.write_text(RECIPE.format(root=ROOT, model=model, adapter=adapter, seed=seed, lr=lr))
    words = [peftc, "run", "--quiet", "--json", "--offline", "--store", str(out / "store"), str(recipe)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{name}, seed {seed}: {done.stderr}")
    tune, score = json.loads(done.stdout)["stages"]
    return {**score["metrics"], "seconds": tune["wall_s"], "peak": tune["measured_peak_bytes"], "trained": tune["trainable_parameters"]}


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--peftc", required=True)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--seeds", default="0,1,2")
    asked.add_argument("--methods", default=",".join(METHODS))
    asked = asked.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    print("PyTorch, LoRA: perplexity 1.08, exact match 40.7 %, BLEU 87.6\n")
    print("| method | trained | peak of tensors | seeds | " + " | ".join(METRICS) + " |")
    print("| --- " * (4 + len(METRICS)) + "|")
    for name in asked.methods.split(","):
        rows = [run(asked.peftc, asked.out, name, int(seed)) for seed in asked.seeds.split(",")]
        cells = [name, f"{rows[0]['trained']:,}", f"{rows[0]['peak'] / 2**20:.0f} MiB", str(len(rows))]
        for metric in METRICS:
            list_ = [row[metric] for row in rows]
            spread = f" ± {statistics.stdev(list_):.3f}" if len(list_) > 1 else ""
            cells.append(f"{statistics.fmean(list_):.3f}{spread}")
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
