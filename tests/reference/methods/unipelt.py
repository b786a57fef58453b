"""UniPELT, transcribed, with peft's network before its prefix: peft does not have it."""

import types

import torch
from peft import PrefixTuningConfig
from peft.tuners.prefix_tuning.model import PrefixEncoder
from torch import nn
from torch.nn import functional as F

CASES = [
    ("unipelt", "unipelt { tokens = 4, hidden = 12, rank = 3, size = 8 }", 2e-3),
    ("unipelt_ap", "unipelt { tokens = 3, hidden = 8, size = 8, on = {attention, ffn} }", 2e-3),
]


class Own(nn.Module):
    """Parameters of one module by their last names, and its gate."""

    def __init__(self, start, name, parts, state):
        super().__init__()
        self.state = state
        for part in parts:
            self.register_parameter("unipelt_" + part.replace(".", "_"), nn.Parameter(start[f"{name}.{part}"].clone()))

    def __getitem__(self, part):
        return getattr(self, "unipelt_" + part.replace(".", "_"))

    def gate(self, x, kind):
        open_ = F.linear(x, self[f"{kind}_gate.weight"], self[f"{kind}_gate.bias"]).sigmoid()
        mask = self.state["mask"].unsqueeze(-1).to(open_.dtype)
        return (open_ * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)


class Lora(nn.Module):
    def __init__(self, map_, start, name, state):
        super().__init__()
        self.map = map_
        self.own = Own(start, name, ("lora_A.weight", "lora_B.weight", "lora_gate.weight", "lora_gate.bias"), state)

    def forward(self, x):
        return self.map(x) + self.own.gate(x, "lora") * F.linear(F.linear(x, self.own["lora_A.weight"]), self.own["lora_B.weight"])


class Behind(nn.Module):
    def __init__(self, own, heads, place, start, name, state):
        super().__init__()
        self.attention, self.heads, self.place, self.state = own, heads, place, state
        self.own = Own(start, name, ("prefix_gate.weight", "prefix_gate.bias"), state)

    def forward(self, x, *args, **kwargs):
        names = ("query", "key", "value") if hasattr(self.attention, "query") else ("q_lin", "k_lin", "v_lin")
        gate = self.own.gate(x, "prefix")
        prefix = self.state["encoder"](torch.arange(self.state["tokens"])).chunk(self.state["parts"], -1)[2 * self.place :][:2]
        q, k, v = (getattr(self.attention, name)(x) for name in names)
        k, v = (torch.cat([gate * p.unsqueeze(0), y], 1) for p, y in zip(prefix, (k, v)))
        split = lambda y: y.view(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = split(q), split(k), split(v)
        mask = self.state["mask"]
        mask = torch.cat([torch.ones_like(mask[:, :1]).expand(-1, self.state["tokens"]), mask], 1)
        scores = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).masked_fill(mask[:, None, None, :] == 0, float("-inf"))
        made = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        return (self.attention.out_lin(made) if hasattr(self.attention, "out_lin") else made, None)


class Adapter(nn.Module):
    def __init__(self, start, name, state):
        super().__init__()
        parts = [f"adapter_{p}.{k}" for p in ("down", "up", "gate") for k in ("weight", "bias")]
        self.own = Own(start, name, parts, state)

    def forward(self, x):
        z = F.linear(x, self.own["adapter_down.weight"], self.own["adapter_down.bias"]).relu()
        return self.own.gate(x, "adapter") * F.linear(z, self.own["adapter_up.weight"], self.own["adapter_up.bias"])


def behind_output(self, hidden_states, input_tensor):
    h = self.dense(hidden_states)
    h = h + self.adapter(self.LayerNorm(h + input_tensor))
    return self.LayerNorm(h + input_tensor)


class BehindFfn(nn.Module):
    def __init__(self, ffn, norm, adapter):
        super().__init__()
        self.ffn, self.adapter, self.norm = ffn, adapter, [norm]

    def forward(self, x):
        h = self.ffn(x)
        return h + self.adapter(self.norm[0](h + x))


def adapt(model, start, case, method):
    state = {"tokens": start["unipelt.embedding"].shape[0]}
    config, heads = model.config, model.config.num_attention_heads
    model.register_forward_pre_hook(
        lambda m, args, kwargs: state.update(mask=kwargs["attention_mask"]), with_kwargs=True
    )
    model.unipelt_encoder = encoder = PrefixEncoder(
        PrefixTuningConfig(
            num_virtual_tokens=state["tokens"], prefix_projection=True, num_layers=config.num_hidden_layers,
            encoder_hidden_size=start["unipelt.down.bias"].shape[0], num_attention_heads=heads, token_dim=config.hidden_size,
        )
    )
    ends = lambda ending: sorted(k[: -len(ending)] for k in start if k.endswith(ending))
    attentions = ends(".prefix_gate.weight")
    state.update(encoder=encoder, parts=2 * len(attentions))
    each = lambda kind: torch.cat([start[f"{site}.unipelt.{part}{kind}"] for site in attentions for part in ("key", "value")], 0)
    with torch.no_grad():
        encoder.embedding.weight.copy_(start["unipelt.embedding"])
        encoder.transform[0].weight.copy_(start["unipelt.down.weight"])
        encoder.transform[0].bias.copy_(start["unipelt.down.bias"])
        encoder.transform[2].weight.copy_(each(".weight"))
        encoder.transform[2].bias.copy_(each(".bias"))
    for name in ends(".lora_gate.weight"):
        parent, last = name.rsplit(".", 1)
        parent = model.get_submodule(parent)
        setattr(parent, last, Lora(getattr(parent, last), start, name, state))
    for place, name in enumerate(attentions):
        parent, last = name.rsplit(".", 1)
        parent = model.get_submodule(parent)
        setattr(parent, last, Behind(getattr(parent, last), heads, place, start, name, state))
    for name in ends(".adapter_gate.weight"):
        module, adapter = model.get_submodule(name), Adapter(start, name, state)
        if hasattr(module, "LayerNorm"):
            module.adapter = adapter
            module.forward = types.MethodType(behind_output, module)
        else:
            block = model.get_submodule(name.rsplit(".", 1)[0])
            block.ffn = BehindFfn(block.ffn, block.output_layer_norm, adapter)


def trained(case, key):
    return "unipelt_" in key
