"""PVeRA, by peft's own layer; its normal numbers are those that peftc draws (Philox 4x32-10, Box and Muller)."""

import blake3
import make_side_traces as side
import numpy as np
import torch
from torch.nn import functional as F

SEED, BATCH = 42, 16
CASES = [
    ("pvera", f"pvera {{ rank = 16, on = {side.ALL} }}", 2e-2),
    ("pvera_mean", f"pvera {{ rank = 16, sample = false, on = {side.ALL} }}", 2e-2),
]


def philox(key, counter):
    """Blocks of Philox 4x32-10 of arrays of counters."""
    low = np.uint64(0xFFFFFFFF)
    c, key = [np.asarray(x, dtype=np.uint64) for x in counter], list(key)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        half = np.uint64(32)
        c = [(p1 >> half) ^ c[1] ^ np.uint64(key[0]), p1 & low, (p0 >> half) ^ c[3] ^ np.uint64(key[1]), p0 & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def normals(name, examples, positions, width, step):
    """`[examples, positions, width]`."""
    digest = blake3.blake3(SEED.to_bytes(8, "little") + f"noise/{name}".encode()).digest()
    key = [int.from_bytes(digest[i : i + 4], "little") for i in (0, 4)]
    e, p, four = np.meshgrid(examples, positions, np.arange((width + 3) // 4), indexing="ij")
    words = philox(key, [four, p, e, np.full_like(e, step)])
    unit = [((w >> np.uint64(9)).astype(np.float64) + 0.5) / 8388608.0 for w in words]
    made = []
    for u, v in (unit[:2], unit[2:]):
        radius = np.sqrt(-2.0 * np.log(u))
        made += [radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)]
    return torch.tensor(np.stack(made, axis=-1).reshape(*e.shape[:2], -1)[..., :width], dtype=torch.float32)


def loss(model, feed, mask, labels, step):
    """The layers draw as peftc does, or not at all."""
    width = mask.shape[1]
    sampled = model.case == "pvera"
    for name, module in model.named_modules():
        if not hasattr(module, "pvera_lambda_d"):
            continue
        name = name.removeprefix("base_model.model.")

        def draw(mu, logvar, adapter, name=name):
            if not sampled:
                return mu
            examples = np.arange((step - 1) * BATCH, step * BATCH)
            eps = normals(name, examples, np.arange(width), mu.shape[-1], step - 1)
            return mu + eps * torch.exp(0.5 * logvar)

        module._reparametrize = draw
    return F.cross_entropy(model(**feed, attention_mask=mask).logits, labels)
