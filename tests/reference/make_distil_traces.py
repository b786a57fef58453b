#!/usr/bin/env python3
"""Write distil.json: trainings on the scores of other models, as torch has them.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_distil_traces.py

Training is that of curves.json but for the loss: torch's `kl_div` of the softened shares of the model from those of the
teachers, summed, over the rows of the batch, times T². The teachers' scores of a row are the mean of the logits of the named
checkpoints, each logit in f32; with `weighed` by the accuracy of each on rows 320 .. 383.
"""

import os

import make_traces as base  # sets the number of threads before torch is loaded

import torch
from torch.nn import functional

TRAINED = range(320)
SCORED = range(320, 384)

# The model, the method, the temperature, the teachers, whether accuracies weigh them.
RUNS = [
    ("bert-tiny", "full", 2.0, ["roberta-tiny"], False),
    ("roberta-tiny", "lora", 0.25, ["bert-tiny", "distilbert-tiny"], False),
    ("distilbert-tiny", "full", 1.0, ["bert-tiny", "roberta-tiny"], True),
]


def scores(name, rows, which):
    tok, model = base.tokenizer_of(name), base.load(name).eval()
    with torch.no_grad():
        return torch.tensor([base.logits_of(model, name, *base.encode(tok, rows[i][0], None))[0] for i in which])


def mean_of(teachers, weighed, rows):
    """The mean scores of the trained rows, and the weight of each teacher."""
    weights = []
    for name in teachers:
        right = scores(name, rows, SCORED).argmax(-1) == torch.tensor([rows[i][1] for i in SCORED])
        weights.append(right.double().mean().item() if weighed else 1.0)
    each = [w * scores(name, rows, TRAINED).double() for w, name in zip(weights, teachers)]
    return sum(each) / sum(weights), weights


def train(name, method, temperature, taught, rows, dtype):
    step = iter(range(base.STEPS))
    plain = functional.cross_entropy

    def divergence(own, *_, **__):
        at = next(step) * base.BATCH
        theirs = taught[at : at + base.BATCH].to(dtype)
        log = functional.log_softmax(own / temperature, -1)
        target = functional.softmax(theirs / temperature, -1)
        return functional.kl_div(log, target, reduction="batchmean") * temperature**2

    functional.cross_entropy = divergence
    try:
        return base.train(name, method, rows, dtype)
    finally:
        functional.cross_entropy = plain


def main():
    torch.set_num_threads(1)
    os.chdir(base.HERE)  # models are named by their folders
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    curves = []
    for name, method, temperature, teachers, weighed in RUNS:
        taught, weights = mean_of(teachers, weighed, rows)
        _, single = train(name, method, temperature, taught, rows, torch.float32)
        _, double = train(name, method, temperature, taught, rows, torch.float64)
        off = max(abs(a - b) for a, b in zip(single["loss"], double["loss"]))
        print(f"{name} {method}: loss {single['loss'][0]:.4f} -> {single['loss'][-1]:.4f}, f32 off by {off:.1e}, weights {weights}")
        curves.append(
            {
                "model": name,
                "method": method,
                "lr": single["lr"],
                "temperature": temperature,
                "teachers": teachers,
                "weighed": weighed,
                "weights": weights,
                "scores": taught[:8].tolist(),
                "loss": single["loss"],
                "loss_f64": double["loss"],
                "grad_norm": single["grad_norm"],
            }
        )
    base.write_numbers(base.HERE / "distil.json", {"steps": base.STEPS, "curves": curves})


if __name__ == "__main__":
    main()
