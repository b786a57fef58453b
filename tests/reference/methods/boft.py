"""BOFT: by peft's own layer where it has one rotation; of several, which peft's layer makes with its CUDA extension alone, with
peft's formulas for permutation and transform."""

import torch
from peft.tuners.boft.layer import BOFTLayer
from peft.tuners.boft.layer import Linear as Boft
from torch import nn
from torch.nn import functional as F

import make_side_traces as side

CASES = [
    ("boft", f"boft {{ block_size = 4, on = {side.ALL} }}", 1e-2),
    ("boft_butterfly", f"boft {{ block_size = 4, butterflies = 3, on = {side.ALL} }}", 1e-2),
]


class Layer(nn.Module):
    """A linear map with rotations in front of it."""

    def __init__(self, base, start, name):
        super().__init__()
        self.base = base
        self.boft_R = nn.Parameter(start[f"{name}.boft_R"].clone())
        self.boft_s = nn.Parameter(start[f"{name}.boft_s"].clone())
        count, blocks, size, _ = self.boft_R.shape
        n = blocks * size
        order = [BOFTLayer.block_butterfly_perm(None, n, blocks // 2**i, size // 2, count - 1) for i in range(count)]
        self.order = [BOFTLayer.perm2mat(None, o) for o in order]

    def forward(self, x):
        count, blocks, size, _ = self.boft_R.shape
        turned = Boft.cayley_batch(None, self.boft_R.reshape(-1, size, size)).reshape(count, blocks, size, size)
        whole = torch.eye(blocks * size)
        for one, order in zip(turned, self.order):
            whole = order @ torch.block_diag(*one) @ order.T @ whole
        weight = self.boft_s * (whole @ self.base.weight.T).T
        return F.linear(x, weight, self.base.bias)


def adapt(model, start, case, method):
    """Put the layers in."""
    for name in {k.rsplit(".boft_R", 1)[0] for k in start if k.endswith("boft_R")}:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Layer(model.get_submodule(name), start, name))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "boft_" in key
