"""Lily. peft takes the mean of the router over all tokens of a batch and their padding; here it is that of each text, which its
layer takes of one text at a time."""

import make_side_traces as side
import torch
from torch import nn
from torch.nn import functional as F

CASES = [
    ("lily", f"lily {{ rank = 4, on = {side.ALL} }}", 1e-2),
    ("lily_stride", f"lily {{ rank = 4, stride = 2, experts = 3, scaling = 0.5, on = {side.ALL} }}", 1e-2),
]


class Map(nn.Module):
    """A linear map with a mixture; the tensors are shared, and held elsewhere."""

    def __init__(self, base, own, scaling, experts, model):
        super().__init__()
        self.base, self.scaling, self.experts = base, scaling, experts
        self.held, self.of = own, [model]

    def forward(self, x):
        a, b, router = (self.of[0].lily[i] for i in self.held)
        hidden = x @ a.T
        shares = torch.softmax(hidden @ router.T, -1)
        mask = self.of[0].mask.to(x.dtype).unsqueeze(-1)
        if x.dim() == 3:
            shares = (shares * mask).sum(1) / mask.sum(1)
        up = b.reshape(self.experts, -1, b.shape[1])
        mixed = torch.einsum("be,eio->bio", shares, up)
        return self.base(x) + self.scaling * (hidden @ mixed)


def adapt(model, start, case, method):
    scaling, experts = (0.5, 3) if case == "lily_stride" else (1.0, 2)
    stride = 2 if case == "lily_stride" else 1
    names = sorted(k for k in start if k.startswith("lily_") or k.endswith("lily_router.weight"))
    model.lily = nn.ParameterList([nn.Parameter(start[k].clone()) for k in names])
    place = {k: i for i, k in enumerate(names)}
    seen = {}
    sites = [k[: -len(".lily_router.weight")] for k in start if k.endswith("lily_router.weight")]
    modules = dict(model.named_modules())
    for path in sorted(sites, key=lambda p: list(modules).index(p)):
        base = modules[path]
        role = ROLES[next(end for end in ROLES if path.endswith(end))]
        own = f"{role}.{base.out_features}x{base.in_features}"
        number = seen.get(own, 0)
        seen[own] = number + 1
        held = [place[f"lily_A.{own}.{number // stride}"], place[f"lily_B.{own}"], place[f"{path}.lily_router.weight"]]
        parent, name = path.rsplit(".", 1)
        setattr(modules[parent], name, Map(base, held, scaling, experts, model))
    return model


# Longer ends first.
ROLES = {
    "attention.output.dense": "attention.output",
    "attention.out_lin": "attention.output",
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "q_lin": "attention.query",
    "k_lin": "attention.key",
    "v_lin": "attention.value",
    "intermediate.dense": "ffn.up",
    "output.dense": "ffn.down",
    "lin1": "ffn.up",
    "lin2": "ffn.down",
}


def trained(case, key):
    return key.startswith("lily.")


def loss(model, feed, mask, labels, step):
    model.mask = mask
    return F.cross_entropy(model(**feed, attention_mask=mask).logits, labels)
