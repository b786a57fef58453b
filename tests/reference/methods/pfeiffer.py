"""Pfeiffer adapters, transcribed: peft does not have them."""

import types

from torch import nn
from torch.nn import functional as F

CASES = [
    ("pfeiffer", "pfeiffer { size = 8 }", 2e-3),
    ("pfeiffer_gated", "pfeiffer { reduction = 4, activation = silu, gate = true }", 2e-3),
]


class Adapter(nn.Module):
    """What is added behind the feed-forward network."""

    def __init__(self, start, name, act, state):
        super().__init__()
        self.act, self.state, self.gated = act, state, f"{name}.pfeiffer_gate.weight" in start
        parts = [("down", "weight"), ("down", "bias"), ("up", "weight"), ("up", "bias")]
        parts += [("gate", "weight"), ("gate", "bias")] if self.gated else []
        for part, kind in parts:
            value = start[f"{name}.pfeiffer_{part}.{kind}"].clone()
            self.register_parameter(f"pfeiffer_{part}_{kind}", nn.Parameter(value))

    def forward(self, x):
        z = self.act(F.linear(x, self.pfeiffer_down_weight, self.pfeiffer_down_bias))
        added = F.linear(z, self.pfeiffer_up_weight, self.pfeiffer_up_bias)
        if not self.gated:
            return added
        open_ = F.linear(x, self.pfeiffer_gate_weight, self.pfeiffer_gate_bias).sigmoid()
        mask = self.state["mask"].unsqueeze(-1).to(open_.dtype)
        return added * ((open_ * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True))


def behind_output(self, hidden_states, input_tensor):
    """The output layer of BERT's and RoBERTa's blocks."""
    h = self.dense(hidden_states)
    h = h + self.adapter(self.LayerNorm(h + input_tensor))
    return self.LayerNorm(h + input_tensor)


class Behind(nn.Module):
    """DistilBERT's feed-forward network with the adapter behind it."""

    def __init__(self, ffn, norm, adapter):
        super().__init__()
        self.ffn, self.adapter, self.norm = ffn, adapter, [norm]

    def forward(self, x):
        h = self.ffn(x)
        return h + self.adapter(self.norm[0](h + x))


def adapt(model, start, case, method):
    act, state = (F.silu if "silu" in method else F.relu), {}
    model.register_forward_pre_hook(
        lambda m, args, kwargs: state.update(mask=kwargs["attention_mask"]), with_kwargs=True
    )
    names = {k.rsplit(".pfeiffer_down", 1)[0] for k in start if k.endswith("pfeiffer_down.weight")}
    for name in names:
        module, adapter = model.get_submodule(name), Adapter(start, name, act, state)
        if hasattr(module, "LayerNorm"):
            module.adapter = adapter
            module.forward = types.MethodType(behind_output, module)
        else:
            block = model.get_submodule(name.rsplit(".", 1)[0])
            block.ffn = Behind(block.ffn, block.output_layer_norm, adapter)


def trained(case, key):
    return "pfeiffer_" in key
