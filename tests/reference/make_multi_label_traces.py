#!/usr/bin/env python3
"""Write multi_label.json: training with several labels a text, as transformers and scikit-learn have it.

How to run (from the repository root; the environment of make_traces.py and scikit-learn==1.9.1):

    .venv/bin/python tests/reference/make_multi_label_traces.py

The models are those of make_traces.py with their heads of two scores. A review has the class `liked` where its
label is 1, and `long` where it has more than 100 characters: so some have both and some have none. Training is that
of curves.json but for the loss: `problem_type = "multi_label_classification"`, binary cross-entropy with logits.
After the last step, rows 320 .. 383 are scored one by one: probabilities by the sigmoid, and scikit-learn's F1
(micro, macro) and exact matches at each threshold.
"""

import json
from pathlib import Path

import make_traces as base  # sets the number of threads before torch is loaded

import numpy
import torch
from sklearn.metrics import accuracy_score, f1_score

RUNS = [("bert-tiny", "full"), ("bert-tiny", "lora"), ("roberta-tiny", "full"), ("distilbert-tiny", "lora")]
THRESHOLDS = (0.5, 0.3)
SCORED = range(320, 384)


def labels(row):
    sentence, label = row
    return [float(label == 1), float(len(sentence) > 100)]


def train(name, method, rows, dtype):
    plain_batches, plain_prepare = base.batches, base.prepare

    def batches(tok, rows, pad):
        for step, (ids, types, mask, _) in enumerate(plain_batches(tok, rows, pad)):
            own = [labels(row) for row in rows[16 * step : 16 * step + len(ids)]]
            yield ids, types, mask, numpy.array(own, dtype="float64" if dtype == torch.float64 else "float32")

    def prepare(*args):
        model = plain_prepare(*args)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        inner.config.problem_type = "multi_label_classification"
        return model

    base.batches, base.prepare = batches, prepare
    try:
        return base.train(name, method, rows, dtype)
    finally:
        base.batches, base.prepare = plain_batches, plain_prepare


def scored(model, name, rows):
    tok = base.tokenizer_of(name)
    logits = [base.logits_of(model, name, *base.encode(tok, rows[i][0], None))[0] for i in SCORED]
    odds = torch.sigmoid(torch.tensor(logits, dtype=torch.float64)).numpy()
    true = numpy.array([labels(rows[i]) for i in SCORED], dtype=int)
    metrics = []
    for threshold in THRESHOLDS:
        told = (odds >= threshold).astype(int)
        metrics.append(
            {
                "threshold": threshold,
                "f1_micro": f1_score(true, told, average="micro", zero_division=0),
                "f1_macro": f1_score(true, told, average="macro", zero_division=0),
                "subset_accuracy": accuracy_score(true, told),
            }
        )
    loss = torch.nn.BCEWithLogitsLoss()(torch.tensor(logits), torch.tensor(true, dtype=torch.float32)).item()
    return {"loss": loss, "probabilities": odds[:6].tolist(), "metrics": metrics}


def main():
    torch.set_num_threads(1)
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    curves = []
    for name, method in RUNS:
        model, single = train(name, method, rows, torch.float32)
        _, double = train(name, method, rows, torch.float64)
        off = max(abs(a - b) for a, b in zip(single["loss"], double["loss"]))
        print(f"{name} {method}: loss {single['loss'][0]:.4f} -> {single['loss'][-1]:.4f}, f32 off by {off:.1e}")
        curves.append(
            {
                "model": name,
                "method": method,
                "lr": single["lr"],
                "loss": single["loss"],
                "loss_f64": double["loss"],
                "scored": scored(model, name, rows),
            }
        )
    base.write_numbers(base.HERE / "multi_label.json", {"steps": base.STEPS, "curves": curves})


if __name__ == "__main__":
    main()
