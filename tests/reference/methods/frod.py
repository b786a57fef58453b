"""FRoD, by the formulas of peft's layer in the basis that peftc found: peft computes its own, with other signs."""

import make_side_traces as side
import torch
from torch import nn
from torch.nn import functional as F

CASES = [
    ("frod", f"frod {{ on = {side.ALL} }}", 5e-3),
    ("frod_rate", "frod { sparse_rate = 0.05, regularization = 0.1, projection_seed = 3, on = attention.{query, value} }", 5e-3),
]


class Map(nn.Module):
    def __init__(self, base, basis, ids, diagonal, numbers):
        super().__init__()
        w, v = base.weight.detach().double(), basis.double()
        factor = torch.linalg.solve(v, w.T).T
        lengths = torch.linalg.norm(factor, dim=0)
        self.factor, self.basis, self.ids = (factor / lengths).float(), basis, ids.long()
        self.bias = base.bias
        self.frod_lambda_l = nn.Parameter(diagonal.clone())
        self.frod_lambda_s_values = nn.Parameter(numbers.clone())

    def forward(self, x):
        n = len(self.frod_lambda_l)
        turn = torch.zeros(n * n).scatter_add(0, self.ids, self.frod_lambda_s_values).reshape(n, n)
        z = x @ self.basis
        return F.linear(z @ turn.T + z * self.frod_lambda_l, self.factor, self.bias)


def category(path):
    parts = path.split(".")
    if parts[-3:] == ["attention", "output", "dense"]:
        return "attention_output"
    return "_".join(parts[-2:])


def adapt(model, start, case, method):
    modules = dict(model.named_modules())
    for key in start:
        if not key.endswith(".frod_lambda_l"):
            continue
        path = key[: -len(".frod_lambda_l")]
        own = category(path)
        parent, name = path.rsplit(".", 1)
        made = Map(
            modules[path], start[f"frod_V.{own}"], start[f"frod_s_indices.{own}"], start[key],
            start[f"{path}.frod_lambda_s_values"],
        )
        setattr(modules[parent], name, made)
    return model


def trained(case, key):
    return "frod_lambda" in key
