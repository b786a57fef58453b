"""C3A, with peft's circulant matrix in a plain product: the gradient by the input that peft's own function gives is that of another
matrix (it is not the transpose's product), so that layers below would learn something else."""

from peft.tuners.c3a.utils import get_circulant_fast
from torch import nn
from torch.nn import functional as F

import make_side_traces as side

CASES = [("c3a", f"c3a {{ block_size = 8, on = {side.ALL} }}", 2e-2)]


class Layer(nn.Module):
    """A linear map with a circulant update."""

    def __init__(self, base, start):
        super().__init__()
        self.base = base
        self.c3a_kernel = nn.Parameter(start.clone())

    def forward(self, x):
        return self.base(x) + F.linear(x, get_circulant_fast(self.c3a_kernel)) / x.size(-1)


def adapt(model, start, case, method):
    """Put the layers in."""
    for key in [k for k in start if k.endswith("c3a_kernel")]:
        name = key.rsplit(".", 1)[0]
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Layer(model.get_submodule(name), start[key]))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "c3a_" in key
