#!/usr/bin/env python3
"""Write formats.json: loss curves of LoRA on weights that went through storage formats.

How to run (from the repository root; the environment of make_traces.py, and `pip install gguf==0.19.0 bitsandbytes==0.50.2`):

    .venv/bin/python tests/reference/make_format_traces.py

A curve is 20 AdamW steps of peft's LoRA in PyTorch, f32 on one thread, on a model whose backbone's matrices were
quantised and dequantised by gguf, or by bitsandbytes for nf4, before the first step. `q4_k` has none: the rows of these
models are shorter than its blocks.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import json
from pathlib import Path

import bitsandbytes.functional as bnb
import make_side_traces as side
import make_traces as base
import torch
from gguf import GGMLQuantizationType as Type
from gguf import quants
from peft import PeftModel
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent


def gguf(kind):
    return lambda x: torch.from_numpy(quants.dequantize(quants.quantize(x.numpy(), kind), kind))


def nf4(x):
    made, state = bnb.quantize_4bit(x, blocksize=64, compress_statistics=True, quant_type="nf4")
    return bnb.dequantize_4bit(made, state)


FORMATS = [("q8_0", gguf(Type.Q8_0), 32), ("nf4", nf4, 64), ("q4_0", gguf(Type.Q4_0), 32)]


def curve(name, through, width, rows):
    model = base.load(name)
    base.no_dropout(model)
    head = base.HEAD[base.arch_of(name)]
    for key, q in model.named_parameters():
        if q.dim() == 2 and q.shape[1] % width == 0 and not any(h in key for h in head):
            q.data.copy_(through(q.detach()))
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
    for name, through, width in FORMATS:
        for model in ("bert-tiny", "roberta-tiny", "distilbert-tiny"):
            losses = curve(model, through, width, rows)
            print(name, model, losses[0], losses[-1], flush=True)
            out["curves"].append({"dtype": name, "model": model, "lr": 1e-3, "loss": losses})
    base.write_numbers(HERE / "formats.json", out)


if __name__ == "__main__":
    main()
