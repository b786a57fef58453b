#!/usr/bin/env python3
"""Write optimizers.json: trainings with optimizers beside AdamW and SGD.

How to run (from the repository root; the environment of make_traces.py and bitsandbytes, whose optimizers run on a processor too):

    .venv/bin/python tests/reference/make_optimizer_traces.py

Training is that of curves.json, full fine-tuning without dropout, but for the optimizer. On a processor bitsandbytes rounds numbers near 0
to codes that are not the nearest ones; here they are rounded to the nearest, as its kernels for GPUs do.
"""

import json
import os

import make_traces as base  # sets the number of threads before torch is loaded

import bitsandbytes
import bitsandbytes.backends.cpu.ops as processor
import torch
from torch.nn import functional
from transformers.optimization import Adafactor

# The optimizer as a recipe has it, the rate, and the reference.
PLAIN = {"relative_step": False, "warmup_init": False}
RUNS = [
    ("adamw_8bit { weight_decay = 0.01 }", 3e-4, bitsandbytes.optim.AdamW8bit, {}),
    ("adafactor { weight_decay = 0.01 }", 3e-4, Adafactor, {"scale_parameter": False} | PLAIN),
    ("adafactor { weight_decay = 0.01, scale_parameter = true }", 3e-3, Adafactor, {"scale_parameter": True} | PLAIN),
]


def to_the_nearest(numbers, code, scales, codes, block):
    """Writes the codes of numbers, and the largest magnitude of each block."""
    flat = numbers.flatten()
    padded = functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scales.copy_(padded.abs().amax(1))
    part = (padded / scales.clamp(min=1e-38)[:, None]).flatten()[: len(flat)]
    codes.view(-1).copy_(torch.bucketize(part, (code[:-1] + code[1:]) / 2))


processor._quant_blockwise_fp32_direct = to_the_nearest


def train(make, rate, name, rows):
    model = base.prepare(name, "full", torch.float32)
    base.no_dropout(model)
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    named = [(k, p) for k, p in model.named_parameters() if p.requires_grad]
    plain = [p for k, p in named if k.endswith("bias") or id(p) in norms]
    decay = [p for k, p in named if not (k.endswith("bias") or id(p) in norms)]
    optimizer = make([{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=rate)
    tok, losses = base.tokenizer_of(name), []
    for ids, types, mask, labels in base.batches(tok, rows, tok.pad_token_id):
        feed, mask, labels = base.feed(name, ids, types), torch.tensor(mask), torch.tensor(labels)
        loss = functional.cross_entropy(model(**feed, attention_mask=mask).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    torch.set_num_threads(1)
    os.chdir(base.HERE)  # models are named by their folders
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    curves = []
    for recipe, rate, make, options in RUNS:
        for model in ["bert-tiny", "distilbert-tiny"]:
            losses = train(lambda groups, lr: make(groups, lr=lr, **options), rate, model, rows)
            curves.append({"optimizer": recipe, "lr": rate, "model": model, "loss": losses})
    text = ",\n".join(json.dumps(curve) for curve in curves)
    (base.HERE / "optimizers.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
