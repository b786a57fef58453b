"""DyLoRA, transcribed; ranks are drawn as peftc draws them (Philox 4x32-10 under a key that is a hash of the seed)."""

import blake3
import make_side_traces as side
import torch
from torch import nn
from torch.nn import functional as F

RANK, ALPHA, SEED = 6, 12, 42
KEYS = f"rank = {RANK}, alpha = {ALPHA}, on = {side.ALL}"
CASES = [("dylora", f"dylora {{ {KEYS} }}", 1e-2), ("dylora_all", f"dylora {{ frozen = false, {KEYS} }}", 1e-2)]


def philox(key, counter):
    """One block of Philox 4x32-10."""
    key, c = list(key), list(counter)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ key[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ key[1], p0 & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def rank(step):
    """The rank of a step, counted from 0."""
    digest = blake3.blake3(SEED.to_bytes(8, "little") + b"signal/dylora").digest()
    key = [int.from_bytes(digest[i : i + 4], "little") for i in (0, 4)]
    a, b, _, _ = philox(key, [step, 0, 0, 0])
    return (((b << 32 | a) * RANK) >> 64) + 1


def adapt(model, start, case, method):
    """Put a pair beside each map, of which a step uses the first so many ranks."""
    for name in [k.removesuffix(".dylora_A") for k in start if k.endswith(".dylora_A")]:
        module = model.get_submodule(name)
        for part in ("A", "B"):
            module.register_parameter(f"dylora_{part}", nn.Parameter(start[f"{name}.dylora_{part}"].clone()))

        def update(m, args, y):
            n = model.rank
            a, b = m.dylora_A[:n], m.dylora_B[:, :n]
            if case == "dylora":
                a = torch.cat([a[: n - 1].detach(), a[n - 1 :]])
                b = torch.cat([b[:, : n - 1].detach(), b[:, n - 1 :]], dim=1)
            return y + ALPHA / n * (args[0] @ a.T) @ b.T

        module.register_forward_hook(update)


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "dylora_" in key


def loss(model, feed, mask, labels, step):
    """The plain loss at the step's rank."""
    model.rank = rank(step - 1)
    return F.cross_entropy(model(**feed, attention_mask=mask).logits, labels)
