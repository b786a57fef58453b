"""SVFit, transcribed from its formula: W = W_e + U diag(s) Vt with s trained, written as how far s moves."""

import torch
from torch import nn
from torch.nn import functional as F

import make_side_traces as side

CASES = [("svfit", f"svfit {{ rank = 12, on = {side.ALL} }}", 1e-2)]


class Layer(nn.Module):
    """A linear map whose first singular values are trained."""

    def __init__(self, base, start, name):
        super().__init__()
        self.u, self.v, self.bias = start[f"{name}.svfit_U"], start[f"{name}.svfit_V"], base.bias
        weight = base.weight.detach()
        self.s = torch.diag(self.u.T @ weight @ self.v.T)
        self.rest = weight - self.u @ torch.diag(self.s) @ self.v
        self.svfit_S_moved = nn.Parameter(start[f"{name}.svfit_S_moved"].clone())

    def forward(self, x):
        middle = torch.diag(self.s + self.svfit_S_moved)
        return F.linear(x, self.rest + self.u @ middle @ self.v, self.bias)


def adapt(model, start, case, method):
    """Put the layers in."""
    for name in {k.rsplit(".svfit_U", 1)[0] for k in start if k.endswith("svfit_U")}:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Layer(model.get_submodule(name), start, name))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "svfit_" in key
