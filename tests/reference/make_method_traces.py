#!/usr/bin/env python3
"""Write methods.json: loss curves of methods whose first values are peftc's own.

How to run (from the repository root, after `cargo build`; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_method_traces.py --peftc target/debug/peftc

peftc runs one step at a vanishing rate and leaves the first values in its artifact; from there on everything is
PyTorch in f32 on one thread. DoRA and VeRA are peft's own classes, which load what peftc exported; Houlsby adapters,
which peft does not have, are transcribed here. Each curve is 20 AdamW steps.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import make_side_traces as side
import make_traces as base
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
ALL = side.ALL
CASES = [
    ("dora", f"dora {{ rank = 4, alpha = 8, on = {ALL} }}", 1e-2),
    ("vera", f"vera {{ rank = 16, on = {ALL} }}", 5e-2),
    ("houlsby", "houlsby { size = 8 }", 2e-3),
    ("houlsby_norms", "houlsby { size = 8, norms = true, activation = silu }", 2e-3),
]


class Adapter(nn.Module):
    """A bottleneck beside the identity."""

    def __init__(self, start, name, act):
        super().__init__()
        self.act = act
        for part in ("down", "up"):
            for kind in ("weight", "bias"):
                value = start[f"{name}.adapter_{part}.{kind}"].clone()
                self.register_parameter(f"adapter_{part}_{kind}", nn.Parameter(value))

    def forward(self, h):
        z = self.act(F.linear(h, self.adapter_down_weight, self.adapter_down_bias))
        return h + F.linear(z, self.adapter_up_weight, self.adapter_up_bias)


def with_adapters(model, start, act):
    """The model with an adapter where a dropout of rate 0, or nothing, stands before each residual."""
    names = {k.rsplit(".adapter_down", 1)[0] for k in start if k.endswith("adapter_down.weight")}
    for name in names:
        module, adapter = model.get_submodule(name), Adapter(start, name, act)
        if hasattr(module, "out_lin"):
            module.out_lin = nn.Sequential(module.out_lin, adapter)
        else:
            module.dropout = adapter


def trained(name, key):
    if "adapter_" in key or key.startswith(("classifier", "pre_classifier")) or "pooler" in key:
        return True
    return name == "houlsby_norms" and "norm" in key.lower()


def first(peftc, model, method, tmp):
    """The folder of the adapter that peftc starts from."""
    path = Path(tmp) / "r.peft"
    path.write_text(side.recipe(HERE / model, f"adapter = {method}", 1e-30, 1), encoding="utf-8")
    subprocess.run([peftc, "run", "--quiet", str(path)], check=True)
    return next(Path(tmp).glob(".peftc/store/*/adapter"))


def train(peftc, name, model_name, method, lr, rows):
    with tempfile.TemporaryDirectory() as tmp:
        folder = first(peftc, model_name, method, tmp)
        model = base.load(model_name)
        base.no_dropout(model)
        if name.startswith("houlsby"):
            start = load_file(folder / "peftc.safetensors")
            with_adapters(model, start, F.silu if "silu" in method else F.gelu)
            own = dict(model.named_parameters())
            for key, q in own.items():
                q.requires_grad_(trained(name, key))
                if q.requires_grad and key in start:
                    q.data.copy_(start[key])
        else:
            model = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    model.train()
    named = [(k.lower(), q) for k, q in model.named_parameters() if q.requires_grad]
    optimizer = torch.optim.AdamW(side.adamw(named), lr=lr, eps=1e-8, foreach=False)
    tok, losses = base.tokenizer_of(model_name), []
    for ids, types, mask, labels in base.batches(tok, rows, tok.pad_token_id):
        feed = base.feed(model_name, ids, types)
        logits = model(**feed, attention_mask=torch.tensor(mask)).logits
        loss = F.cross_entropy(logits, torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--peftc", required=True)
    ask.add_argument("--only", default="")
    asked = ask.parse_args()
    torch.set_num_threads(1)
    peftc = str(Path(asked.peftc).resolve())
    rows = base.read_rows(HERE.parent.parent / "recipes" / "reviews" / "train.tsv")[: base.STEPS * base.BATCH]
    out = HERE / "methods.json"
    kept = json.loads(out.read_text())["curves"] if out.exists() else []
    curves = [c for c in kept if asked.only not in c["name"]]
    for name, method, lr in CASES:
        for model in ("bert-tiny", "roberta-tiny", "distilbert-tiny"):
            if asked.only in name:
                losses = train(peftc, name, model, method, lr, rows)
                print(name, model, losses[0], losses[-1], flush=True)
                curves.append({"name": name, "model": model, "method": method, "lr": lr, "loss": losses})
    base.write_json(out, {"curves": curves})


if __name__ == "__main__":
    main()
