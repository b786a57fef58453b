#!/usr/bin/env python3
"""Write formats.json: blocks of storage formats, and loss curves of LoRA on weights that went through them.

How to run (from the repository root; the environment of make_traces.py, and `pip install gguf==0.19.0`):

    .venv/bin/python tests/reference/make_format_traces.py

Blocks are what gguf's `quantize` and `dequantize` give. A curve is 20 AdamW steps of peft's LoRA in PyTorch, f32 on one
thread, on a model whose backbone's matrices were quantised and dequantised by gguf before the first step.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import json
from pathlib import Path

import make_side_traces as side
import make_traces as base
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import quants
from peft import PeftModel
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
FORMATS = [("q8_0", Type.Q8_0, 32)]


def rows_of(count):
    """Blocks with what may go wrong in one: nothing, ties, an outlier, a scale below f16's normal numbers."""
    rng = np.random.default_rng(7)
    normal = rng.standard_normal(count).astype(np.float32)
    outlier = (0.02 * normal).astype(np.float32)
    outlier[5] = -40.0
    ties = ((np.arange(count) - count // 2) * 0.5).astype(np.float32)
    ties[0] = 127.0
    named = {
        "normal": 0.02 * normal,
        "large": 3e5 * normal,
        "outlier": outlier,
        "ties": ties,
        "zeros": np.zeros(count),
        "tiny": 1e-5 * normal,
        "vanishing": 1e-9 * normal,
        "one": np.eye(1, count, 3)[0],
        "negative": -np.abs(normal),
    }
    return {name: x.astype(np.float32) for name, x in named.items()}


def blocks(kind, count):
    cases = []
    for name, numbers in rows_of(count).items():
        made = quants.quantize(numbers[None, :], kind)
        decoded = quants.dequantize(made, kind)[0]
        # Shortest texts that are read back as the same f32.
        texts = lambda x: [float(str(v)) for v in x]
        cases.append({"name": name, "numbers": texts(numbers), "blocks": made[0].tolist(), "decoded": texts(decoded)})
    return cases


def curve(name, kind, width, rows):
    model = base.load(name)
    base.no_dropout(model)
    head = base.HEAD[base.arch_of(name)]
    for key, q in model.named_parameters():
        if q.dim() == 2 and q.shape[1] % width == 0 and not any(h in key for h in head):
            made = quants.quantize(q.detach().numpy(), kind)
            q.data.copy_(torch.from_numpy(quants.dequantize(made, kind)))
    model = PeftModel.from_pretrained(model, str(HERE / f"{name}-lora"), is_trainable=True)
    model.train()
    named = [(k.lower(), q) for k, q in model.named_parameters() if q.requires_grad]
    optimizer = torch.optim.AdamW(side.adamw(named), lr=1e-3, eps=1e-8, foreach=False)
    tok, losses = base.tokenizer_of(name), []
    for ids, types, mask, labels in base.batches(tok, rows, tok.pad_token_id):
        logits = model(**base.feed(name, ids, types), attention_mask=torch.tensor(mask)).logits
        loss = F.cross_entropy(logits, torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    torch.set_num_threads(1)
    os.chdir(HERE)
    rows = base.read_rows(HERE.parent.parent / "recipes" / "reviews" / "train.tsv")[: base.STEPS * base.BATCH]
    out = {"curves": []}
    for name, kind, width in FORMATS:
        out[name] = blocks(kind, width)
        for model in ("bert-tiny", "roberta-tiny", "distilbert-tiny"):
            losses = curve(model, kind, width, rows)
            print(name, model, losses[0], losses[-1], flush=True)
            out["curves"].append({"dtype": name, "model": model, "lr": 1e-3, "loss": losses})
    base.write_numbers(HERE / "formats.json", out)


if __name__ == "__main__":
    main()
