#!/usr/bin/env python3
"""Write ordinal.json: training of classes in an order, as coral-pytorch and scikit-learn have it.

How to run (from the repository root; the environment of make_traces.py, scikit-learn==1.9.1 and scipy):

    .venv/bin/python tests/reference/make_ordinal_traces.py

The models are those of make_traces.py, whose heads of two scores tell three classes. A review is of class 0 up to 60 characters, of class 1
up to 120, and of class 2 beyond. Training is that of curves.json but for the loss, coral-pytorch's `corn_loss`, written out here. After the
last step, rows 320 .. 383 are scored one by one: classes as coral-pytorch's `corn_label_from_logits` tells them, and scikit-learn's and scipy's
metrics of them.
"""

import os

import make_traces as base  # sets the number of threads before torch is loaded

import numpy
import torch
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error
from torch.nn import functional as F

RUNS = [("bert-tiny", "full"), ("roberta-tiny", "lora"), ("distilbert-tiny", "full")]
CLASSES = 3
SCORED = range(320, 384)


def rank(sentence):
    return int(len(sentence) > 60) + int(len(sentence) > 120)


def corn_loss(logits, ranks):
    losses, examples = 0.0, 0
    for task in range(CLASSES - 1):
        asked = ranks > task - 1
        above = (ranks[asked] > task).to(logits.dtype)
        examples += len(above)
        own = logits[asked, task]
        losses = losses - torch.sum(F.logsigmoid(own) * above + (F.logsigmoid(own) - own) * (1 - above))
    return losses / examples


def train(name, method, rows, dtype):
    plain_batches, plain_prepare = base.batches, base.prepare

    def batches(tok, rows, pad):
        for step, (ids, types, mask, _) in enumerate(plain_batches(tok, rows, pad)):
            own = [rank(row[0]) for row in rows[16 * step : 16 * step + len(ids)]]
            yield ids, types, mask, numpy.array(own)

    def prepare(*args):
        model = plain_prepare(*args)
        plain = model.forward

        def forward(labels=None, **inputs):
            out = plain(**inputs)
            if labels is not None:
                out.loss = corn_loss(out.logits, labels)
            return out

        model.forward = forward
        return model

    base.batches, base.prepare = batches, prepare
    try:
        return base.train(name, method, rows, dtype)
    finally:
        base.batches, base.prepare = plain_batches, plain_prepare


def scored(model, name, rows):
    tok = base.tokenizer_of(name)
    logits = [base.logits_of(model, name, *base.encode(tok, rows[i][0], None))[0] for i in SCORED]
    logits = torch.tensor(logits, dtype=torch.float64)
    above = torch.cumprod(torch.sigmoid(logits), dim=1)
    told = (above > 0.5).sum(dim=1).numpy()
    true = numpy.array([rank(rows[i][0]) for i in SCORED])
    asked = sum(min(t + 1, CLASSES - 1) for t in true)
    return {
        "loss": corn_loss(logits, torch.tensor(true)).item() * asked / len(true),
        "logits": logits[:6].tolist(),
        "predicted": told.tolist(),
        "metrics": {
            "accuracy": accuracy_score(true, told),
            "rank_error": mean_absolute_error(true, told),
            "quadratic_kappa": cohen_kappa_score(true, told, weights="quadratic"),
            "spearman": float(numpy.nan_to_num(spearmanr(true, told).statistic)),
        },
    }


def main():
    torch.set_num_threads(1)
    os.chdir(base.HERE)
    # Some classes are told apart within twenty steps.
    base.LR = {method: rate * (20 if method == "full" else 4) for method, rate in base.LR.items()}
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    curves = []
    for name, method in RUNS:
        model, single = train(name, method, rows, torch.float32)
        own = scored(model, name, rows)
        print(f"{name} {method}: loss {single['loss'][0]:.4f} -> {single['loss'][-1]:.4f}, {own['metrics']}")
        curves.append({"model": name, "method": method, "lr": single["lr"], "loss": single["loss"], "scored": own})
    base.write_numbers(base.HERE / "ordinal.json", {"steps": base.STEPS, "curves": curves})


if __name__ == "__main__":
    main()
