"""LLaMA-Adapter, transcribed for encoders: peft has it for three decoders."""

import torch
from torch import nn

CASES = [
    ("llama_adapter", "llama_adapter { tokens = 4 }", 5e-3),
    ("llama_adapter_upper", "llama_adapter { tokens = 3, on = layers[1..].attention }", 5e-3),
]


class Gated(nn.Module):
    """An attention beside which its queries read a prompt."""

    def __init__(self, own, heads, start, name):
        super().__init__()
        self.own, self.heads = own, heads
        self.adaption_prompt = nn.Parameter(start[f"{name}.adaption_prompt"].clone())
        self.adaption_gate = nn.Parameter(start[f"{name}.adaption_gate"].clone())

    def forward(self, x, *args, **kwargs):
        made = self.own(x, *args, **kwargs)
        maps = [getattr(self.own, n) for n in (("query", "key", "value") if hasattr(self.own, "query") else ("q_lin", "k_lin", "v_lin"))]
        split = lambda y: y.view(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)
        q = split(maps[0](x))
        k, v = (split(m(self.adaption_prompt.unsqueeze(0))) for m in maps[1:])
        p = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) * self.adaption_gate
        beside = (p @ v).transpose(1, 2).reshape(x.shape)
        if hasattr(self.own, "out_lin"):
            beside = beside @ self.own.out_lin.weight.T
        return (made[0] + beside, *made[1:])


def adapt(model, start, case, method):
    ending = ".adaption_prompt"
    for name in [k[: -len(ending)] for k in start if k.endswith(ending)]:
        parent, last = name.rsplit(".", 1)
        parent = model.get_submodule(parent)
        setattr(parent, last, Gated(getattr(parent, last), model.config.num_attention_heads, start, name))


def trained(case, key):
    return "adaption_" in key
