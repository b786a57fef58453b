"""Series and parallel adapters of LLM-Adapters, transcribed: peft does not have them."""

from torch import nn
from torch.nn import functional as F

CASES = [
    ("series_adapter", "series_adapter { size = 8 }", 2e-3),
    (
        "series_channel",
        "series_adapter { size = 8, init = bert, bias = true, scaling = 2, learned_scaling = channel, on = attention.output }",
        2e-3,
    ),
    ("parallel_adapter", "parallel_adapter { size = 8 }", 2e-3),
    (
        "parallel_scalar",
        "parallel_adapter { size = 8, init = bert, activation = gelu, learned_scaling = scalar, on = attention.{query, value} }",
        2e-3,
    ),
]


class Adapted(nn.Module):
    """A linear map with an adapter behind or beside it."""

    def __init__(self, map_, start, name, kind, act, scale):
        super().__init__()
        self.map, self.kind, self.act, self.scale = map_, kind, act, scale
        for part in ("down.weight", "down.bias", "up.weight", "up.bias", "scaling"):
            value = start.get(f"{name}.{kind}_{part}")
            if value is not None:
                self.register_parameter(f"{kind}_{part.replace('.', '_')}", nn.Parameter(value.clone()))

    def forward(self, x):
        y = self.map(x)
        own = lambda part: getattr(self, f"{self.kind}_{part}", None)
        z = F.linear(y if self.kind == "series" else x, own("down_weight"), own("down_bias"))
        added = self.scale * F.linear(self.act(z), own("up_weight"), own("up_bias"))
        return y + (added if own("scaling") is None else added * own("scaling"))


def adapt(model, start, case, method):
    kind = "series" if "series" in case else "parallel"
    act = F.gelu if "gelu" in method else __import__("torch").tanh
    scale = 2.0 if "scaling = 2" in method else 1.0
    ending = f".{kind}_down.weight"
    for name in [k[: -len(ending)] for k in start if k.endswith(ending)]:
        parent, last = name.rsplit(".", 1)
        parent = model.get_submodule(parent)
        setattr(parent, last, Adapted(getattr(parent, last), start, name, kind, act, scale))


def trained(case, key):
    return "series_" in key or "parallel_" in key
