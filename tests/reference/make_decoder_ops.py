#!/usr/bin/env python3
"""Writes decoder_ops.json: what transformers and PyTorch make of small inputs, for the ops of decoders.

    python3 tests/reference/make_decoder_ops.py        (with torch and transformers)
"""

import json
import pathlib

import torch
from torch.nn import functional as F
from transformers import LlamaConfig
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as turn_neighbours
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as turn_halves

torch.manual_seed(1)
POSITIONS = [0, 1, 5, 700, 3999]


def numbers(*shape):
    return (torch.randn(*shape) * 1000).round() / 1000


def listed(t):
    digits = 9 if t.dtype == torch.float32 else 17
    return [float(f"{float(x):.{digits}g}") for x in t.detach().flatten()]


def rotations():
    made = []
    scalings = {
        "plain": {"rope_type": "default", "rope_theta": 1e4},
        "llama3": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 1024},
        "yarn": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 1024},
    }
    for name, rope in scalings.items():
        config = LlamaConfig(hidden_size=16, num_attention_heads=2, head_dim=8, max_position_embeddings=4096, rope_parameters=rope)
        rotary = LlamaRotaryEmbedding(config)
        x = numbers(len(POSITIONS), 16)
        cos, sin = rotary(x[None], torch.tensor([POSITIONS]))
        heads = x.view(1, -1, 2, 8).transpose(1, 2)
        turned, _ = turn_halves(heads, heads, cos, sin)
        y = turned.transpose(1, 2).reshape(-1, 16)
        made.append({"name": name, "width": 8, "interleaved": False, "frequencies": listed(rotary.inv_freq), "scale": float(rotary.attention_scaling),
                     "x": listed(x), "y": listed(y)})
    table = create_sinusoidal_positions(4096, 4)
    sin, cos = torch.split(table[torch.tensor([POSITIONS])], 2, dim=-1)
    x = numbers(len(POSITIONS), 16)
    heads = x.view(1, -1, 2, 8)
    turned = torch.cat([turn_neighbours(heads[..., :4], sin, cos), heads[..., 4:]], dim=-1)
    frequencies = 1.0 / 10000 ** (torch.arange(0, 4, 2, dtype=torch.int64) / 4)
    made.append({"name": "gptj", "width": 8, "interleaved": True, "frequencies": listed(frequencies), "scale": 1.0, "x": listed(x), "y": listed(turned)})
    return made


def norms():
    made = []
    for name, kind, width in [("llama", LlamaRMSNorm, 12), ("qwen3 heads", LlamaRMSNorm, 4), ("gemma", GemmaRMSNorm, 12)]:
        norm = kind(width, eps=1e-6)
        weight, x, up = numbers(width), numbers(5, 12), numbers(5, 12)
        norm.weight.data.copy_(weight)
        x.requires_grad_()
        y = norm(x.view(5, -1, width)).reshape(5, 12)
        y.backward(up)
        made.append({"name": name, "plus_one": kind is GemmaRMSNorm, "weight": listed(weight), "x": listed(x), "up": listed(up), "y": listed(y),
                     "dx": listed(x.grad), "dweight": listed(norm.weight.grad)})
    return made


def gates():
    made = []
    functions = {"Silu": F.silu, "Gelu": F.gelu, "GeluTanh": lambda x: F.gelu(x, approximate="tanh"), "Relu": F.relu, "Tanh": torch.tanh}
    for name, f in functions.items():
        g, u, up = numbers(3, 7).requires_grad_(), numbers(3, 7).requires_grad_(), numbers(3, 7)
        y = f(g) * u
        y.backward(up)
        made.append({"name": name, "g": listed(g), "u": listed(u), "up": listed(up), "y": listed(y), "dg": listed(g.grad), "du": listed(u.grad)})
    return made


def losses():
    made = []
    for softcap in (None, 2.0):
        x, head = numbers(6, 5).double().requires_grad_(), numbers(11, 5).double().requires_grad_()
        targets = torch.tensor([3, 0, 10, 7, 7, 1])
        logits = 0.8 * x @ head.T
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        each = F.cross_entropy(logits, targets, reduction="none")
        loss = 0.25 * each.sum()
        loss.backward()
        made.append({"name": f"softcap {softcap}", "softcap": softcap, "x": listed(x), "head": listed(head), "targets": targets.tolist(), "loss": float(loss.detach()),
                     "lse": listed(logits.logsumexp(-1)), "each": listed(each), "best": logits.argmax(-1).tolist(), "dx": listed(x.grad),
                     "dhead": listed(head.grad)})
    return made


def main():
    all_ops = {"positions": POSITIONS, "rotary": rotations(), "rms_norm": norms(), "gated": gates(), "head_loss": losses()}
    path = pathlib.Path(__file__).with_name("decoder_ops.json")
    path.write_text(json.dumps(all_ops, separators=(",", ":")).replace("},{", "},\n{") + "\n")


main()
