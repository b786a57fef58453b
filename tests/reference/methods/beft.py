"""BEFT, transcribed: peft's layer adds the same shift, whose name a trainer takes for a bias' and the script for a weight's."""

from torch import nn

CASES = [("beft", "beft { on = {attention.value, ffn.up} }", 2e-2)]


class Layer(nn.Module):
    """A linear map whose output is shifted."""

    def __init__(self, base, start):
        super().__init__()
        self.base = base
        self.beft_bias = nn.Module()
        self.beft_bias.bias = nn.Parameter(start.clone())

    def forward(self, x):
        return self.base(x) + self.beft_bias.bias


def adapt(model, start, case, method):
    """Put the layers in."""
    for key in [k for k in start if k.endswith("beft_bias")]:
        name = key.rsplit(".", 1)[0]
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Layer(model.get_submodule(name), start[key]))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "beft_" in key
