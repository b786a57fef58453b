#!/usr/bin/env python3
"""Write embed.json: vectors of texts, as sentence-transformers learns them, by a model of transformers and a few lines of PyTorch.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_embed_traces.py

The texts of a row are words 1 to 6 of a review, words 7 to 12 of it, and words 7 to 12 of the next one: anchor, positive and negative. Rows with a
score are the first with the second where the row's number is odd, and with the third where it is even. `multiple_negatives` is
MultipleNegativesRankingLoss, `cosine_similarity` CosineSimilarityLoss. Training is that of curves.json but for the loss and
epsilon; after the last step rows 320 .. 367 are scored, and the vectors of the first four rows' first texts are written.
"""

import json
import math
import os

import make_traces as base  # sets the number of threads before torch is loaded

import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

LR, EPSILON, SCORED = 2e-4, 1e-5, range(320, 368)
SCORES, TOP = [5.0, 1.25, 3.5, 0.0, 4.25, 2.0], 5.0
RUNS = [
    # model, loss, pooling, negatives, scale
    ("bert-tiny", "multiple_negatives", "mean", 0, 20.0),
    ("roberta-tiny", "multiple_negatives", "mean", 1, 20.0),
    ("distilbert-tiny", "multiple_negatives", "first", 0, 10.0),
    ("bert-tiny", "cosine_similarity", "mean", 0, None),
    ("roberta-tiny", "cosine_similarity", "first", 0, None),
    ("distilbert-tiny", "cosine_similarity", "mean", 0, None),
]


def triples(rows):
    own = [words for words in (text.split(" ") for text, _ in rows) if len(words) >= 12]
    part = lambda i, at: " ".join(own[i % len(own)][at : at + 6])
    return [(part(i, 0), part(i, 6), part(i + 1, 6)) for i in range(len(own))]


def vectors(model, tok, texts, pooling):
    encoded = tok(texts, padding=True, return_tensors="pt")
    assert encoded["input_ids"].shape[1] <= base.MAX_LENGTH
    states = model(**encoded).last_hidden_state
    if pooling == "first":
        return states[:, 0]
    mask = encoded["attention_mask"].unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def texts_of(run, data, rows):
    _, kind, _, negatives, _ = run
    if kind == "cosine_similarity":
        return [[data[i][0] for i in rows], [data[i][1 + (i + 1) % 2] for i in rows]]
    return [[data[i][k] for i in rows] for k in range(2 + negatives)]


def scores_of(rows, dtype):
    return torch.tensor([SCORES[i % len(SCORES)] for i in rows], dtype=dtype)


def loss_of(run, all, rows):
    _, kind, _, _, scale = run
    unit = [F.normalize(x, dim=-1) for x in all]
    if kind == "cosine_similarity":
        return F.mse_loss((unit[0] * unit[1]).sum(-1), scores_of(rows, all[0].dtype) / TOP)
    return F.cross_entropy(scale * unit[0] @ torch.cat(unit[1:]).T, torch.arange(len(rows)))


def scored(run, all):
    _, kind, _, _, _ = run
    unit = [F.normalize(x, dim=-1) for x in all]
    rows = list(SCORED)
    own = {"loss": loss_of(run, all, rows).item(), "cosines": (unit[0] * unit[1]).sum(-1).tolist(), "vectors": all[0][:4].tolist()}
    if kind == "cosine_similarity":
        return own
    near = unit[0] @ unit[1].T
    apart = (near - near.diagonal().unsqueeze(1)).abs() + torch.eye(len(rows))
    assert apart.min() > 1e-6
    place = (near > near.diagonal().unsqueeze(1)).sum(1).tolist()
    mean = lambda of: sum(map(of, place)) / len(place)
    own.update(
        accuracy_at_1=mean(lambda p: float(p == 0)), recall_at_10=mean(lambda p: float(p < 10)),
        mrr_at_10=mean(lambda p: 1 / (p + 1) if p < 10 else 0.0), ndcg_at_10=mean(lambda p: 1 / math.log2(p + 2) if p < 10 else 0.0),
    )
    return own


def train(run, data, dtype):
    name, _, pooling, _, _ = run
    tok = AutoTokenizer.from_pretrained(name)
    model = AutoModel.from_pretrained(name, dtype=dtype)
    base.no_dropout(model)
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    trained = list(model.named_parameters())
    plain = [p for k, p in trained if k.endswith("bias") or id(p) in norms]
    decay = [p for k, p in trained if not (k.endswith("bias") or id(p) in norms)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=LR, betas=(0.9, 0.999), eps=EPSILON, foreach=False,
    )
    losses = []
    of = lambda rows: [vectors(model, tok, texts, pooling) for texts in texts_of(run, data, rows)]
    for step in range(base.STEPS):
        rows = range(16 * step, 16 * step + 16)
        loss = loss_of(run, of(rows), rows)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return losses, scored(run, [x.double() for x in of(SCORED)])


def main():
    torch.set_num_threads(1)
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    data, curves = triples(rows), []
    os.chdir(base.HERE)
    for run in RUNS:
        losses, own = train(run, data, torch.float32)
        double, _ = train(run, data, torch.float64)
        off = max(abs(a - b) for a, b in zip(losses, double))
        name, kind, pooling, negatives, scale = run
        shown = {k: v for k, v in own.items() if isinstance(v, float)}
        print(f"{name} {kind}: {losses[0]:.4f} -> {losses[-1]:.4f}, f32 off by {off:.1e}, {shown}")
        curves.append({"model": name, "kind": kind, "pooling": pooling, "negatives": negatives, "scale": scale, "lr": LR, "loss": losses, "scored": own})
    text = json.dumps(dict(scores=SCORES, curves=curves), separators=(",", ":"))
    (base.HERE / "embed.json").write_text(text.replace('{"model"', '\n{"model"') + "\n")


if __name__ == "__main__":
    main()
