"""Spectral adapters, transcribed from the paper's formulas (arXiv 2405.13952, section 3)."""

import torch
from torch import nn
from torch.nn import functional as F

import make_side_traces as side

CASES = [
    ("spectral_additive", f"spectral_adapter {{ rank = 4, on = {side.ALL} }}", 1e-2),
    ("spectral_rotational", f"spectral_adapter {{ rank = 4, rotate = true, on = {side.ALL} }}", 1e-2),
]


def cayley(p):
    """The rotation of a square matrix."""
    k, one = (p - p.T) / 2, torch.eye(len(p))
    return (one - k) @ torch.linalg.inv(one + k)


class Layer(nn.Module):
    """A linear map whose first singular vectors are moved."""

    def __init__(self, base, start, name):
        super().__init__()
        self.u, self.s, self.v = (start[f"{name}.spectral_{x}"] for x in "USV")
        self.rest, self.bias = base.weight.detach() - self.u @ torch.diag(self.s) @ self.v, base.bias
        for part in ("A", "B", "P_U", "P_V", "c"):
            key = f"{name}.spectral_{part}"
            if key in start:
                self.register_parameter(f"spectral_{part}", nn.Parameter(start[key].clone()))

    def forward(self, x):
        if hasattr(self, "spectral_A"):
            u, s, v = self.u + self.spectral_A, self.s, self.v + self.spectral_B
        else:
            u, v = self.u @ cayley(self.spectral_P_U), (self.v.T @ cayley(self.spectral_P_V)).T
            s = self.s * self.spectral_c
        return F.linear(x, self.rest + u @ torch.diag(s) @ v, self.bias)


def adapt(model, start, case, method):
    """Put the layers in."""
    for name in {k.rsplit(".spectral_U", 1)[0] for k in start if k.endswith("spectral_U")}:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Layer(model.get_submodule(name), start, name))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "spectral_" in key
