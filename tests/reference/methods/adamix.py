"""AdaMix with adapters, transcribed; experts are drawn as peftc draws them."""

import blake3
import torch
from torch import nn
from torch.nn import functional as F

SEED, EXPERTS, SIZE, RANK, ALPHA = 42, 3, 5, 4, 16
CASES = [
    ("adamix", f"adamix {{ experts = {EXPERTS}, size = {SIZE} }}", 3e-3),
    ("adamix_apart", f"adamix {{ experts = {EXPERTS}, size = {SIZE}, share_up = false, consistency = 3 }}", 3e-3),
    ("adamix_one_route", f"adamix {{ experts = {EXPERTS}, size = {SIZE}, consistency = 0 }}", 3e-3),
]


def philox(key, counter):
    """One block of Philox 4x32-10."""
    key, c = list(key), list(counter)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ key[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ key[1], p0 & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def drawn(site, name, route, step):
    """The expert of a map in a route of a step, counted from 0."""
    purpose = f"signal/adamix/{site}/{name}"
    if route:
        purpose = f"route/{route}/{purpose}"
    digest = blake3.blake3(SEED.to_bytes(8, "little") + purpose.encode()).digest()
    key = [int.from_bytes(digest[i : i + 4], "little") for i in (0, 4)]
    a, b, _, _ = philox(key, [step, 0, 0, 0])
    return ((b << 32 | a) * EXPERTS) >> 64


class Experts(nn.Module):
    """The experts of one site."""

    def __init__(self, site, start, state):
        super().__init__()
        self.site, self.state = site, state
        for key in [k for k in start if k.startswith(f"{site}.adamix_")]:
            self.register_parameter(key.removeprefix(f"{site}.").replace(".", "_"), nn.Parameter(start[key].clone()))

    def own(self, name, part, shape):
        all_ = getattr(self, name + part)
        at = 0 if len(all_) == 1 else drawn(self.site, name, self.state["route"], self.state["step"])
        return all_[at].view(shape)

    def pair(self, x):
        linear, = self.state[self.site]
        out, inner = linear.weight.shape
        a, b = self.own("adamix_A", "", (RANK, inner)), self.own("adamix_B", "", (out, RANK))
        return ALPHA / RANK * (x @ a.T) @ b.T

    def bottleneck(self, h):
        width = h.shape[-1]
        weight, bias = self.own("adamix_down", "_weight", (SIZE, width)), self.own("adamix_down", "_bias", (SIZE,))
        z = F.gelu(F.linear(h, weight, bias))
        weight, bias = self.own("adamix_up", "_weight", (width, SIZE)), self.own("adamix_up", "_bias", (width,))
        return h + F.linear(z, weight, bias)


def adapt(model, start, case, method):
    model.state = {"route": 0, "step": 0}
    model.factor = 3.0 if case == "adamix_apart" else 0.0 if case == "adamix_one_route" else 1.0
    model.experts = nn.ModuleList()
    for site in sorted({k.split(".adamix_")[0] for k in start if ".adamix_" in k}):
        own = Experts(site, start, model.state)
        model.experts.append(own)
        module = model.get_submodule(site)
        if case == "adamix_lora":
            model.state[site] = (module,)
            module.register_forward_hook(lambda m, args, y, own=own: y + own.pair(args[0]))
            continue
        # What the feed-forward network gives, before the residual.
        inner = module if isinstance(module, nn.Linear) else last(module)
        inner.register_forward_hook(lambda m, args, y, own=own: own.bottleneck(y))


def last(module):
    """The last linear map of a feed-forward network."""
    for name in ("dense", "lin2", "output.dense"):
        try:
            return module.get_submodule(name)
        except AttributeError:
            continue
    raise AssertionError(module)


def trained(case, key):
    return "experts" in key


def loss(model, feed, mask, labels, step):
    """The loss of the first route, and how far the second is from it."""
    model.state["step"] = step - 1
    routes = []
    for route in (0, 1):
        model.state["route"] = route
        routes.append(model(**feed, attention_mask=mask).logits)
    p, q = routes
    both = lambda of, by: F.kl_div(F.log_softmax(by, -1), F.softmax(of.detach(), -1), reduction="batchmean")
    return F.cross_entropy(p, labels) + model.factor * 0.5 * (both(q, p) + both(p, q))
