"""Polytropon and multi-head routing, by peft's own layer for a task. The router mixes as in an evaluation: its draws are its own."""

import make_side_traces as side
from torch.nn import functional as F

CASES = [
    ("poly", f"poly {{ rank = 4, skills = 3, sample = false, on = {side.ALL} }}", 1e-2),
    ("poly_tasks", f"poly {{ rank = 4, tasks = 3, task = 1, skills = 2, splits = 4, sample = false, on = {side.ALL} }}", 1e-2),
]


def loss(model, feed, mask, labels, step):
    import torch

    for module in model.modules():
        if type(module).__name__ == "PolyRouter":
            module.eval()
    task = torch.full((len(labels),), 1 if model.case == "poly_tasks" else 0)
    return F.cross_entropy(model(**feed, attention_mask=mask, task_ids=task).logits, labels)
