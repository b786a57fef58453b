"""SVFT, transcribed from the formulas of the paper and of the authors' code: W = U (diag(S) + sigmoid(gate) M) Vt."""

import torch
from torch import nn
from torch.nn import functional as F

import make_side_traces as side

CASES = [
    ("svft_plain", f"svft {{ on = {side.ALL} }}", 5e-3),
    ("svft_banded", f"svft {{ pattern = banded, off_diag = 2, on = {side.ALL} }}", 2e-2),
    ("svft_top_k", f"svft {{ pattern = top_k, off_diag = 2, on = {side.ALL} }}", 2e-2),
    ("svft_top_k_rows", "svft { pattern = top_k, topk_score = reference, on = attention.* }", 2e-2),
]


class Layer(nn.Module):
    """A linear map whose weight is U (S + M) Vt."""

    def __init__(self, base, start, name, off, score):
        super().__init__()
        self.u, self.v, self.bias = start[f"{name}.svft_U"], start[f"{name}.svft_V"], base.bias
        self.s = torch.diag(self.u.T @ base.weight.detach() @ self.v.T)
        n = len(self.s)
        places = [(i, j) for i in range(n) for j in range(n) if abs(i - j) <= off]
        if score:
            places = best(self.u.double(), self.v.double(), len(places), score)
        self.rows, self.columns = (torch.tensor(x) for x in zip(*places))
        self.svft_M = nn.Parameter(start[f"{name}.svft_M"].clone())
        # A gate's name would spare it the decay of weights.
        self.svft_open = nn.Parameter(start[f"{name}.svft_gate"].clone())

    def forward(self, x):
        n = len(self.s)
        m = torch.zeros(n, n).index_put((self.rows, self.columns), self.svft_M, accumulate=True)
        middle = torch.diag(self.s) + torch.sigmoid(self.svft_open) * m
        return F.linear(F.linear(F.linear(x, self.v), middle), self.u, self.bias)


def best(u, v, count, score):
    """The pairs with the largest scores, row by row. `v` is stored as `[n, in]`."""
    if u.shape[0] == v.shape[1]:
        scores = u @ v.T if score == "reference" else u.T @ v.T
    else:
        scores = u if u.shape[0] == u.shape[1] else v
    places = sorted(torch.topk(scores.flatten(), count).indices.tolist())
    return [divmod(place, scores.shape[1]) for place in places]


def adapt(model, start, case, method):
    """Put the layers in."""
    off = 2 if "off_diag = 2" in method else 1 if "top_k" in case else 0
    score = None if "top_k" not in case else "reference" if "reference" in method else "paper"
    for name in {k.rsplit(".svft_M", 1)[0] for k in start if k.endswith("svft_M")}:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Layer(model.get_submodule(name), start, name, off, score))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "svft_" in key
