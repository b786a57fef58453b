#!/usr/bin/env python3
"""Write methods/NAME.json: loss curves of methods whose first values are peftc's own.

How to run (from the repository root, after `cargo build`; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_method_traces.py --peftc target/debug/peftc [NAME …]

peftc runs one step at a vanishing rate and leaves the first values in its artifact; from there on everything is
PyTorch in f32 on one thread. Each curve is 20 AdamW steps. `methods/NAME.py` says what is trained:

- `CASES`: rows of a name, the method as a recipe writes it, and a rate.
- Nothing else: the method is peft's own class, which loads what peftc exported.
- `adapt(model, start, case, method)`: a transcription. It changes the model in place; `start` is what peftc trained, by
  name. It may return another module in the model's place. Parameters of the result whose names are in `start` get those values.
- `trained(case, key)`: of such a model, the parameters that are trained beside the head.
- `loss(model, feed, mask, labels, step)`: where the loss is not the plain cross-entropy.
- `group(case, key)`: the rate's factor for a parameter, where rates differ.
- `start(case, method)`: the method that one step is made with for the first values, where it is another.
- `after(model, step)`: what happens behind each update.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import make_side_traces as side
import make_traces as base
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn import functional as F

MODELS = ("bert-tiny", "roberta-tiny", "distilbert-tiny")


def first(peftc, model, method, tmp):
    """The folder of the adapter that peftc starts from."""
    path = Path(tmp) / "r.peft"
    path.write_text(side.recipe(HERE / model, f"adapter = {method}", 1e-30, 1), encoding="utf-8")
    subprocess.run([peftc, "run", "--quiet", str(path)], check=True)
    return next(Path(tmp).glob(".peftc/store/*/adapter"))


def is_head(key):
    return key.startswith(("classifier", "pre_classifier")) or "pooler" in key


def prepared(peftc, of, case, model_name, method):
    """The model with the method in it, as peftc starts."""
    with tempfile.TemporaryDirectory() as tmp:
        start = getattr(of, "start", lambda case, method: method)
        folder = first(peftc, model_name, start(case, method), tmp)
        model = base.load(model_name)
        base.no_dropout(model)
        if not hasattr(of, "adapt"):
            return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
        start = load_file(folder / "peftc.safetensors")
        model = of.adapt(model, start, case, method) or model
        for key, q in model.named_parameters():
            q.requires_grad_(is_head(key) or of.trained(case, key))
            if key in start:
                q.data.copy_(start[key])
        return model


def groups(of, case, named, lr):
    """AdamW's groups: those of a plain run, divided by what a method makes of the rate."""
    of_case = getattr(of, "group", lambda case, key: 1.0)

    def factor(key):
        return of_case(case, key)

    made = []
    for value in sorted({factor(k) for k, _ in named}):
        for group in side.adamw([(k, q) for k, q in named if factor(k) == value]):
            made.append({**group, "lr": lr * value})
    return [g for g in made if g["params"]]


def train(peftc, of, case, model_name, method, lr, rows):
    model = prepared(peftc, of, case, model_name, method)
    model.train()
    model.case = case
    named = [(k.lower(), q) for k, q in model.named_parameters() if q.requires_grad]
    optimizer = torch.optim.AdamW(groups(of, case, named, lr), lr=lr, eps=1e-8, foreach=False)
    tok, losses = base.tokenizer_of(model_name), []
    for step, (ids, types, mask, labels) in enumerate(base.batches(tok, rows, tok.pad_token_id), 1):
        feed, mask, labels = base.feed(model_name, ids, types), torch.tensor(mask), torch.tensor(labels)
        if hasattr(of, "loss"):
            loss = of.loss(model, feed, mask, labels, step)
        else:
            loss = F.cross_entropy(model(**feed, attention_mask=mask).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if hasattr(of, "after"):
            of.after(model, step)
        losses.append(loss.item())
    return losses


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--peftc", required=True)
    ask.add_argument("names", nargs="*")
    asked = ask.parse_args()
    torch.set_num_threads(1)
    peftc = str(Path(asked.peftc).resolve())
    os.chdir(HERE)
    rows = base.read_rows(HERE.parent.parent / "recipes" / "reviews" / "train.tsv")[: base.STEPS * base.BATCH]
    for path in sorted((HERE / "methods").glob("*.py")):
        if asked.names and path.stem not in asked.names:
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        of = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(of)
        curves = []
        for case, method, lr in of.CASES:
            for model in MODELS:
                losses = train(peftc, of, case, model, method, lr, rows)
                print(case, model, losses[0], losses[-1], flush=True)
                curves.append({"name": case, "model": model, "method": method, "lr": lr, "loss": losses})
        base.write_json(path.with_suffix(".json"), {"curves": curves})


if __name__ == "__main__":
    main()
