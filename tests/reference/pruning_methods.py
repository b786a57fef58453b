"""Magnitude and movement pruning: a transcription of the authors' modules, `emmental/modules/{binarizer,masked_nn}.py`, with their schedule of
the share that is kept. The share of a step is that of whole weights."""

import torch
from torch import nn
from torch.nn import functional as F

ON = "{attention.{query, value}, ffn.up}"
ENDS = ("query", "value", "intermediate.dense", "q_lin", "v_lin", "ffn.lin1")
STEPS = 20


def removed(case, n, step):
    """How many of n weights are removed in a step, counted from 0."""
    keep, begins, last = (0.3, 3, 4) if case == "magnitude_pruning" else (0.9, 4, 5)
    kept = round(keep * n)
    if step <= begins:
        return 0
    if step >= STEPS - last:
        return n - kept
    left = 1 - (step - begins) / (STEPS - last - begins)
    return n - int((n - kept) * left**3 + kept)


class Through(torch.autograd.Function):
    """A mask whose gradient is that of the scores."""

    @staticmethod
    def forward(ctx, scores, by, count):
        mask = torch.ones_like(by)
        mask.view(-1)[by.flatten().argsort()[:count]] = 0.0
        return mask

    @staticmethod
    def backward(ctx, grad):
        return grad, None, None


class Map(nn.Module):
    def __init__(self, base, scores, model):
        super().__init__()
        self.pruned_weight, self.bias, self.of = nn.Parameter(base.weight.detach().clone()), base.bias, [model]
        # By this name they do not decay.
        self.gate_scores = None if scores is None else nn.Parameter(scores.clone())

    def forward(self, x):
        model, w = self.of[0], self.pruned_weight
        count = removed(model.case, w.numel(), model.step)
        if self.gate_scores is None:
            mask = Through.apply(w.detach(), w.detach().abs(), count)
        else:
            mask = Through.apply(self.gate_scores, self.gate_scores.detach(), count)
        return F.linear(x, w * mask, self.bias)


def adapt(model, start, case, method):
    for path, base in list(model.named_modules()):
        if isinstance(base, nn.Linear) and path.endswith(ENDS):
            parent, name = path.rsplit(".", 1)
            scores = torch.zeros_like(base.weight) if case == "movement_pruning" else None
            setattr(model.get_submodule(parent), name, Map(base, scores, model))
    return model


def trained(case, key):
    return key.endswith(("pruned_weight", "gate_scores"))


def group(case, key):
    return 20.0 if key.endswith("gate_scores") else 1.0


def loss(model, feed, mask, labels, step):
    model.step = step - 1
    return F.cross_entropy(model(**feed, attention_mask=mask).logits, labels)


def start(case, method):
    """Weights start as they are, and one step has no room for a schedule: all that is wanted is the head."""
    return "lora { rank = 1, on = attention.query }"
