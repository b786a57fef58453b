#!/usr/bin/env python3
"""Write weighted.json: trainings with weights of classes and smoothed labels, as torch has them.

How to run (from the repository root; the environment of make_multi_label_traces.py):

    .venv/bin/python tests/reference/make_weighted_traces.py

Training is that of curves.json (one label a text) or multi_label.json (two), but for the loss: torch's
`CrossEntropyLoss(weight, label_smoothing)` or `BCEWithLogitsLoss(pos_weight)`, or the focal loss. Balanced weights are scikit-learn's
`compute_class_weight("balanced")` of the 320 rows, and rows without a class / rows with it. After the last step the plain
loss of rows 320 .. 383 is taken.
"""

import os

import make_traces as base  # sets the number of threads before torch is loaded
import make_multi_label_traces as several

import numpy
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

TRAINED = range(320)
SCORED = range(320, 384)

# What the recipe writes, the model, the method; the loss' arguments follow from the text.
RUNS = [
    ("classify { label_smoothing = 0.1 }", "bert-tiny", "full"),
    ("classify { class_weights = balanced }", "roberta-tiny", "lora"),
    ("classify { class_weights = { 0: 1, 1: 3.5 }, label_smoothing = 0.2 }", "distilbert-tiny", "full"),
    ("classify { class_weights = balanced, label_smoothing = 0.05 }", "bert-tiny", "lora"),
    ("multi_label { positive_weights = balanced }", "bert-tiny", "full"),
    ("multi_label { positive_weights = { 1: 0.25, 0: 4 } }", "roberta-tiny", "lora"),
    ("classify { focal = 2 }", "bert-tiny", "full"),
    ("classify { class_weights = { 0: 1, 1: 3.5 }, focal = 0.5 }", "distilbert-tiny", "lora"),
]


def weights(written, rows):
    """The loss' keyword arguments of an objective."""
    one = written.startswith("classify")
    smoothing = float(written.split("label_smoothing = ")[1].split(" ")[0]) if "label_smoothing" in written else 0.0
    if "balanced" in written and one:
        labels = [rows[i][1] for i in TRAINED]
        list_ = compute_class_weight("balanced", classes=numpy.array([0, 1]), y=labels)
    elif "balanced" in written:
        has = numpy.array([several.labels(rows[i]) for i in TRAINED]).sum(axis=0)
        list_ = (len(TRAINED) - has) / has
    elif "weights" in written:
        pairs = written.split("weights = { ")[1].split(" }")[0].split(", ")
        named = {int(k): float(v) for k, v in (pair.split(": ") for pair in pairs)}
        list_ = [named[0], named[1]]
    else:
        list_ = None
    tensor = None if list_ is None else torch.tensor(numpy.array(list_, dtype="float32"))
    return {"weight": tensor, "label_smoothing": smoothing} if one else {"pos_weight": tensor}


def train(written, name, method, rows, dtype):
    """A training with the loss that an objective says."""
    own = weights(written, rows)
    own = {k: v.to(dtype) if torch.is_tensor(v) else v for k, v in own.items()}
    which = "cross_entropy" if written.startswith("classify") else "binary_cross_entropy_with_logits"
    plain = getattr(functional, which)

    def weighted(scores, labels, *_, **__):
        if "focal" not in written:
            return plain(scores, labels, **own)
        # Lin et al. 2017, equation 5, over softmax; the mean is by the weights of the classes.
        gamma = float(written.split("focal = ")[1].split(" ")[0])
        weight = own["weight"] if own["weight"] is not None else torch.ones(scores.shape[1], dtype=dtype)
        each = torch.log_softmax(scores, -1).gather(1, labels[:, None])[:, 0]
        of = weight[labels]
        return -(of * (1 - each.exp()) ** gamma * each).sum() / of.sum()

    setattr(functional, which, weighted)
    try:
        return (base if written.startswith("classify") else several).train(name, method, rows, dtype)
    finally:
        setattr(functional, which, plain)


def plain_loss(written, model, name, rows):
    tok = base.tokenizer_of(name)
    logits = torch.tensor([base.logits_of(model, name, *base.encode(tok, rows[i][0], None))[0] for i in SCORED])
    if written.startswith("classify"):
        return functional.cross_entropy(logits, torch.tensor([rows[i][1] for i in SCORED])).item()
    true = torch.tensor([several.labels(rows[i]) for i in SCORED])
    return functional.binary_cross_entropy_with_logits(logits, true).item()


def main():
    torch.set_num_threads(1)
    os.chdir(base.HERE)  # models are named by their folders
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    curves = []
    for written, name, method in RUNS:
        model, single = train(written, name, method, rows, torch.float32)
        _, double = train(written, name, method, rows, torch.float64)
        off = max(abs(a - b) for a, b in zip(single["loss"], double["loss"]))
        print(f"{name} {method} {written}: loss {single['loss'][0]:.4f} -> {single['loss'][-1]:.4f}, f32 off by {off:.1e}")
        curves.append(
            {
                "objective": written,
                "model": name,
                "method": method,
                "lr": single["lr"],
                "loss": single["loss"],
                "loss_f64": double["loss"],
                "plain_loss": plain_loss(written, model, name, rows),
            }
        )
    base.write_numbers(base.HERE / "weighted.json", {"steps": base.STEPS, "curves": curves})


if __name__ == "__main__":
    main()
