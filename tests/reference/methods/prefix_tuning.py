"""Prefix tuning on encoders, transcribed, with peft's own network before it: peft itself has prefixes for decoders alone."""

import torch
from peft import PrefixTuningConfig
from peft.tuners.prefix_tuning.model import PrefixEncoder
from torch import nn

CASES = [
    ("prefix_tuning", "prefix_tuning { tokens = 5 }", 2e-2),
    ("prefix_projection", "prefix_tuning { tokens = 4, projection = true, hidden = 12 }", 1e-2),
    ("prefix_still", "prefix_tuning { tokens = 3, shift_positions = false }", 2e-2),
]


class Behind(nn.Module):
    """An attention behind a prefix."""

    def __init__(self, own, heads, place, state):
        super().__init__()
        self.own, self.heads, self.place, self.state = own, heads, place, state

    def forward(self, x, *args, **kwargs):
        names = ("query", "key", "value") if hasattr(self.own, "query") else ("q_lin", "k_lin", "v_lin")
        prefix = self.state["rows"].chunk(self.state["parts"], -1)[2 * self.place :][:2]
        q, k, v = (getattr(self.own, name)(x) for name in names)
        k, v = (torch.cat([p.expand(x.shape[0], -1, -1), y], 1) for p, y in zip(prefix, (k, v)))
        split = lambda y: y.view(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = split(q), split(k), split(v)
        mask = self.state["mask"]
        mask = torch.cat([torch.ones_like(mask[:, :1]).expand(-1, prefix[0].shape[0]), mask], 1)
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
        made = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        return (self.own.out_lin(made) if hasattr(self.own, "out_lin") else made, None)


def adapt(model, start, case, method):
    projection = case == "prefix_projection"
    tokens = int(method.split("tokens = ")[1].split()[0].rstrip(","))
    config = model.config
    made = PrefixEncoder(
        PrefixTuningConfig(
            num_virtual_tokens=tokens, prefix_projection=projection, encoder_hidden_size=12,
            num_layers=config.num_hidden_layers, num_attention_heads=config.num_attention_heads, token_dim=config.hidden_size,
        )
    )
    sites = sorted({k.split(".prefix.")[0] for k in start if ".prefix." in k})
    each = lambda kind: [start[f"{site}.prefix.{part}{kind}"] for site in sites for part in ("key", "value")]
    with torch.no_grad():
        if projection:
            made.embedding.weight.copy_(start["prefix.embedding"])
            made.transform[0].weight.copy_(start["prefix.down.weight"])
            made.transform[0].bias.copy_(start["prefix.down.bias"])
            made.transform[2].weight.copy_(torch.cat(each(".weight"), 0))
            made.transform[2].bias.copy_(torch.cat(each(".bias"), 0))
        else:
            made.embedding.weight.copy_(torch.cat(each(""), 1))

    put(model, made, sites, (tokens, case != "prefix_still"))


def put(model, made, sites, prefix):
    """The model's attentions behind what `made` gives."""
    config, state, (tokens, shifts) = model.config, {}, prefix
    model.prefix_encoder = made

    def note(_, args, kwargs):
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        state.update(mask=mask, rows=made(torch.arange(tokens)[None])[0], parts=2 * len(sites))
        if not shifts:
            return args, kwargs
        if config.model_type == "roberta":
            counted = (ids != config.pad_token_id).long()
            kwargs["position_ids"] = (counted.cumsum(1) + tokens) * counted + config.pad_token_id
        return args, kwargs

    model.register_forward_pre_hook(note, with_kwargs=True)
    if shifts and config.model_type != "roberta":
        embeddings = getattr(model, model.base_model_prefix).embeddings
        embeddings.position_ids = embeddings.position_ids[:, tokens:]
    for place, name in enumerate(sites):
        parent, last = name.rsplit(".", 1)
        parent = model.get_submodule(parent)
        setattr(parent, last, Behind(getattr(parent, last), config.num_attention_heads, place, state))


def trained(case, key):
    return "prefix_encoder" in key
