"""Houlsby adapters, transcribed: peft does not have them."""

from torch import nn
from torch.nn import functional as F

CASES = [
    ("houlsby", "houlsby { size = 8 }", 2e-3),
    ("houlsby_norms", "houlsby { size = 8, norms = true, activation = silu }", 2e-3),
]


class Adapter(nn.Module):
    """A bottleneck beside the identity."""

    def __init__(self, start, name, act):
        super().__init__()
        self.act = act
        for part in ("down", "up"):
            for kind in ("weight", "bias"):
                value = start[f"{name}.adapter_{part}.{kind}"].clone()
                self.register_parameter(f"adapter_{part}_{kind}", nn.Parameter(value))

    def forward(self, h):
        z = self.act(F.linear(h, self.adapter_down_weight, self.adapter_down_bias))
        return h + F.linear(z, self.adapter_up_weight, self.adapter_up_bias)


def adapt(model, start, case, method):
    """Put an adapter where a dropout of rate 0, or nothing, stands before each residual."""
    act = F.silu if "silu" in method else F.gelu
    names = {k.rsplit(".adapter_down", 1)[0] for k in start if k.endswith("adapter_down.weight")}
    for name in names:
        module, adapter = model.get_submodule(name), Adapter(start, name, act)
        if hasattr(module, "out_lin"):
            module.out_lin = nn.Sequential(module.out_lin, adapter)
        else:
            module.dropout = adapter


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "adapter_" in key or (case == "houlsby_norms" and "norm" in key.lower())
