#!/usr/bin/env python3
"""Write pruned.json: which rows of the tiny backbones a pruned side network keeps.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_pruned_traces.py

A plain transcription of Ladder Side-Tuning's pruning without residual, in f64: a set of kept indices
walks from the token embedding through query, key and value (jointly), output, ffn.up and ffn.down of
each kept block. `kept` holds each matrix's kept rows in that order (of the embedding, its columns).
Importance is |w| or, for `fisher`, the sum of squared gradients over the first examples, one at a time,
with their true labels, through the model with its own head, without dropout. The smallest relative
distance between the last kept and the first dropped score is printed: it says how much rounding a
comparison forgives.
"""

import json
from pathlib import Path

import make_traces as base
import torch
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
CASES = [
    ("bert-tiny", "lst { r = 4, init = magnitude }", 4, [0, 1, 2], 0),
    ("roberta-tiny", "lst { r = 2, layers = [0, 2], init = magnitude }", 2, [0, 2], 0),
    ("distilbert-tiny", "k_lst { k = 3, r = 4, init = magnitude }", 4, [0, 1, 2], 0),
    ("bert-tiny", "lst { r = 4, init = fisher { samples = 24 } }", 4, [0, 1, 2], 24),
    ("distilbert-tiny", "lst { r = 2, layers = [1, 2], init = fisher { samples = 24 } }", 2, [1, 2], 24),
]


def names(model, layer):
    """Matrices of a block, those ranked jointly together."""
    if model == "distilbert-tiny":
        at = f"distilbert.transformer.layer.{layer}."
        return [[at + f"attention.{m}_lin" for m in "qkv"], [at + "attention.out_lin"], [at + "ffn.lin1"], [at + "ffn.lin2"]]
    at = f"{model.split('-')[0]}.encoder.layer.{layer}."
    joint = [at + f"attention.self.{m}" for m in ("query", "key", "value")]
    return [joint, [at + "attention.output.dense"], [at + "intermediate.dense"], [at + "output.dense"]]


def norms(model, layer):
    """The norms after the output and after the last map of a block."""
    if model == "distilbert-tiny":
        at = f"distilbert.transformer.layer.{layer}."
        return [at + "sa_layer_norm", at + "output_layer_norm"]
    at = f"{model.split('-')[0]}.encoder.layer.{layer}."
    return [at + "attention.output.LayerNorm", at + "output.LayerNorm"]


def fisher(name, samples):
    model = base.load(name, torch.float64)
    base.no_dropout(model)
    tok = base.tokenizer_of(name)
    sums = {k: torch.zeros_like(p) for k, p in model.named_parameters()}
    for text, label in base.read_rows(REPO / "recipes" / "reviews" / "train.tsv")[:samples]:
        ids = torch.tensor([tok(text, truncation=True, max_length=64)["input_ids"]])
        model.zero_grad()
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        F.cross_entropy(logits, torch.tensor([label])).backward()
        for k, p in model.named_parameters():
            if p.grad is not None:
                sums[k] += p.grad**2
    return sums


def choose(scores, keep):
    order = torch.sort(scores, descending=True, stable=True)
    margin = ((order.values[keep - 1] - order.values[keep]) / order.values[keep]).item()
    return sorted(order.indices[:keep].tolist()), margin


def walk(name, importance, r, layers):
    word = f"{name.split('-')[0]}.embeddings.word_embeddings"
    table = importance[f"{word}.weight"]
    kept, margin = choose(table.sum(0), table.shape[1] // r)
    chosen, margins = {word: kept}, [margin]
    for layer in layers:
        for group in names(name, layer):
            product = torch.stack([importance[f"{m}.weight"][:, kept] for m in group]).prod(0)
            kept, margin = choose(product.sum(1), product.shape[0] // r)
            margins.append(margin)
            chosen.update({m: kept for m in group})
    return chosen, min(margins)


def main():
    cases = []
    for name, method, r, layers, samples in CASES:
        if samples:
            importance = fisher(name, samples)
        else:
            weights = base.load(name, torch.float64).state_dict()
            importance = {k: v.abs() for k, v in weights.items()}
        kept, margin = walk(name, importance, r, layers)
        print(f"{name:16} {method:70} smallest margin {margin:.1e}")
        blocks = [[layer, names(name, layer), norms(name, layer)] for layer in layers]
        word = next(iter(kept))
        cases.append({"model": name, "method": method, "word": word, "blocks": blocks, "kept": kept})
    (HERE / "pruned.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
