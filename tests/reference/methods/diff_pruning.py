"""Diff pruning, transcribed; gates are drawn as peftc draws them (Philox 4x32-10 under a key that is a hash of the seed)."""

import blake3
import make_side_traces as side
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SEED = 42
CASES = [
    ("diff_pruning", f"diff_pruning {{ penalty = 1e-5, gate_start = 1, gate_rate = 20, on = {side.ALL} }}", 1e-3),
    (
        "diff_pruning_plain",
        f"diff_pruning {{ groups = false, low = -0.5, high = 1.2, gate_start = 0, gate_rate = 5, penalty = 1e-4, on = {side.ALL} }}",
        1e-3,
    ),
]


def noise(purpose, step, shape):
    """ln u − ln(1 − u) for each number."""
    count = int(np.prod(shape))
    digest = blake3.blake3(SEED.to_bytes(8, "little") + f"signal/{purpose}".encode()).digest()
    key = [int.from_bytes(digest[i : i + 4], "little") for i in (0, 4)]
    low = np.uint64(0xFFFFFFFF)
    c = [np.arange((count + 3) // 4, dtype=np.uint64)]
    c += [np.zeros_like(c[0]), np.full_like(c[0], step), np.zeros_like(c[0])]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        shift = np.uint64(32)
        c = [(p1 >> shift) ^ c[1] ^ np.uint64(key[0]), p1 & low, (p0 >> shift) ^ c[3] ^ np.uint64(key[1]), p0 & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    words = np.stack(c, 1).reshape(-1)[:count]
    u = ((words >> np.uint64(9)).astype(np.float64) + 0.5) / 8_388_608
    u = torch.tensor(np.clip(u, 1e-4, 1 - 1e-4)).float().view(shape)
    return u.log() - (1 - u).log()


class Moved(nn.Module):
    """A linear map with a gated difference."""

    def __init__(self, linear, name, start, state):
        super().__init__()
        self.linear, self.name, self.state = linear, name, state
        for part in ("weight", "gate", "group_gate"):
            if f"{name}.diff_{part}" in start:
                self.register_parameter(f"diff_{part}", nn.Parameter(start[f"{name}.diff_{part}"].clone()))

    def gate(self, purpose, a):
        low, high = self.state["ends"]
        s = torch.sigmoid(noise(f"{purpose}/{self.name}", self.state["step"], a.shape) + a)
        return (s * (high - low) + low).clamp(0, 1)

    def forward(self, x):
        difference = self.diff_weight * self.gate("diff", self.diff_gate)
        if hasattr(self, "diff_group_gate"):
            difference = difference * self.gate("diff/group", self.diff_group_gate)
        return F.linear(x, self.linear.weight + difference, self.linear.bias)


def adapt(model, start, case, method):
    plain = case == "diff_pruning_plain"
    model.state = {"step": 0, "ends": (-0.5, 1.2) if plain else (-1.5, 1.5)}
    model.factor = 1e-4 if plain else 1e-5
    for name in [k.removesuffix(".diff_weight") for k in start if k.endswith(".diff_weight")]:
        parent, _, own = name.rpartition(".")
        module = Moved(model.get_submodule(name), name, start, model.state)
        setattr(model.get_submodule(parent), own, module)


def trained(case, key):
    return "diff_" in key


def group(case, key):
    plain = case == "diff_pruning_plain"
    return (5.0 if plain else 20.0) if key.endswith("_gate") else 1.0


def loss(model, feed, mask, labels, step):
    model.state["step"] = step - 1
    low, high = model.state["ends"]
    gates = [q for k, q in model.named_parameters() if k.endswith("_gate")]
    open_ = sum(torch.sigmoid(a - torch.tensor(-low / high).log()).sum() for a in gates)
    return F.cross_entropy(model(**feed, attention_mask=mask).logits, labels) + model.factor * open_
