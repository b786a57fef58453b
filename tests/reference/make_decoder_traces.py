#!/usr/bin/env python3
"""Write decoders.json: loss and SGD curves of tiny decoders of every family and variation, as transformers computes them.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_decoder_traces.py

No weights are kept: each is a function of its name and index (`value`), which the test repeats. Everything is computed in
f32 on one thread, with eager attention; a text's tokens are its words and the token that ends it.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
TEXTS, BATCH, STEPS, RATE = 24, 8, 6, 0.05

LLAMA = dict(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0,
    tie_word_embeddings=False, bos_token_id=None, eos_token_id=1, pad_token_id=0,
)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
LONG = dict(
    rope_type="longrope", short_factor=[1.0, 1.2], long_factor=[2.0, 4.0], original_max_position_embeddings=64,
)
NEOX = dict(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=64, hidden_act="gelu", layer_norm_eps=1e-5, bos_token_id=None, eos_token_id=1, pad_token_id=0,
)
GPT2 = dict(
    vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=None, eos_token_id=1, pad_token_id=0,
)
GEMMA = {**LLAMA, "head_dim": 8, "tie_word_embeddings": True, "rms_norm_eps": 1e-6}
GEMMA2 = {**GEMMA, "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 5, "query_pre_attn_scalar": 20}

CASES = [
    ("llama", "llama", LLAMA),
    ("llama_tied", "llama", {**LLAMA, "tie_word_embeddings": True}),
    ("llama_one_key_head", "llama", {**LLAMA, "num_key_value_heads": 1}),
    ("llama_every_key_head", "llama", {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}),
    ("llama_biases", "llama", {**LLAMA, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    ("llama_head_dim", "llama", {**LLAMA, "head_dim": 12}),
    ("llama_linear", "llama", {**LLAMA, "rope_scaling": {"type": "linear", "factor": 3.0}}),
    ("llama_llama3", "llama", {**LLAMA, "rope_scaling": LLAMA3}),
    ("llama_yarn", "llama", {**LLAMA, "rope_scaling": YARN}),
    ("llama_dynamic", "llama", {**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    (
        "llama_new_spelling",
        "llama",
        {
            **{k: v for k, v in LLAMA.items() if k != "rope_theta"},
            "rope_parameters": {"rope_theta": 300.0, **LLAMA3},
            "dtype": "float32",
        },
    ),
    ("mistral", "mistral", {**LLAMA, "sliding_window": 4}),
    ("mistral_full", "mistral", {**LLAMA, "sliding_window": None}),
    ("qwen2", "qwen2", {**LLAMA, "tie_word_embeddings": True}),
    ("qwen2_windows", "qwen2", {**LLAMA, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
    ("qwen3", "qwen3", {**LLAMA, "head_dim": 10}),
    ("qwen3_biases", "qwen3", {**LLAMA, "head_dim": 8, "attention_bias": True}),
    ("gemma", "gemma", GEMMA),
    ("gemma_old", "gemma", {**GEMMA, "hidden_act": "gelu", "head_dim": 12}),
    ("gemma2", "gemma2", {**GEMMA2, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    ("gemma2_uncapped", "gemma2", {**GEMMA2, "attn_logit_softcapping": None, "final_logit_softcapping": None}),
    ("gemma3", "gemma3_text", {**GEMMA2, "sliding_window_pattern": 3, "rope_local_base_freq": 100.0}),
    (
        "gemma3_layer_types",
        "gemma3_text",
        {
            **{k: v for k, v in GEMMA2.items() if k != "rope_theta"},
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        },
    ),
    ("phi3", "phi3", LLAMA),
    ("phi3_partial", "phi3", {**LLAMA, "partial_rotary_factor": 0.5, "sliding_window": 6}),
    ("phi3_longrope", "phi3", {**LLAMA, "partial_rotary_factor": 0.5, "max_position_embeddings": 256,
                               "original_max_position_embeddings": 64, "rope_scaling": LONG}),
    # Borders that texts and what is generated behind prompts cross.
    ("phi3_longrope_long", "phi3", {**LLAMA, "partial_rotary_factor": 0.5, "original_max_position_embeddings": 12,
                                    "rope_scaling": {**LONG, "original_max_position_embeddings": 30}}),
    ("llama_longrope", "llama", {**LLAMA, "rope_scaling": {**LONG, "short_factor": [1.0, 1.1, 1.2, 1.5],
                                                           "long_factor": [1.5, 2.5, 3.0, 6.0],
                                                           "original_max_position_embeddings": 9}}),
    ("smollm3", "smollm3", {**LLAMA, "no_rope_layer_interval": 2}),
    ("smollm3_layers", "smollm3", {**LLAMA, "no_rope_layers": [0, 1, 0], "mlp_bias": True, "attention_bias": True}),
    ("olmo2", "olmo2", LLAMA),
    ("olmo2_biases", "olmo2", {**LLAMA, "attention_bias": True, "tie_word_embeddings": True}),
    (
        "granite",
        "granite",
        {**LLAMA, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.2,
         "logits_scaling": 2.5, "tie_word_embeddings": True},
    ),
    ("neox", "gpt_neox", NEOX),
    ("neox_old", "gpt_neox", {**NEOX, "rotary_pct": 0.5, "rotary_emb_base": 500, "attention_bias": False}),
    ("neox_one_behind_the_other", "gpt_neox", {**NEOX, "use_parallel_residual": False, "tie_word_embeddings": True,
                                               "hidden_act": "gelu_new",
                                               "rope_parameters": {"rope_theta": 70.0, "rope_type": "default",
                                                                   "partial_rotary_factor": 1.0}}),
    ("gpt2", "gpt2", GPT2),
    ("gpt2_unscaled", "gpt2", {**GPT2, "n_inner": 40, "activation_function": "relu", "scale_attn_weights": False,
                               "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3}),
    ("gpt2_by_depth", "gpt2", {**GPT2, "scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu_new"}),
]


def mixed(seed, count):
    """`count` numbers of 32 bits: murmur3's last rounds over a counter."""
    x = (seed + np.arange(count, dtype=np.uint64) * 0x9E3779B9) & 0xFFFFFFFF
    x ^= x >> np.uint64(16)
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> np.uint64(13)
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> np.uint64(16))


def fnv(name):
    x = 0x811C9DC5
    for byte in name.encode():
        x = ((x ^ byte) * 0x01000193) & 0xFFFFFFFF
    return x


def value(name, shape):
    """A tensor in ±0.2; norms lie around 1, also those that add it themselves (Gemma's are then large)."""
    u = mixed(fnv(name), int(np.prod(shape))).astype(np.float64) / 2**32 - 0.5
    x = u * 0.4 + (1.0 if "norm" in name or "ln_" in name else 0.0)
    return torch.tensor(x.astype(np.float32).reshape(shape))


def texts():
    """Words 2 to 49, in texts of 1 to 20 words."""
    draws = mixed(fnv("texts"), TEXTS * 21).reshape(TEXTS, 21)
    return [[int(2 + w % 48) for w in row[1 : 2 + int(row[0] % 20)]] for row in draws]


def loss(model, rows):
    """The mean over all told tokens of some texts."""
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row + [1]])
        logits = model(input_ids=ids, use_cache=False).logits.float()
        total = total + F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
        count += ids.shape[1] - 1
    return total / count


def main():
    torch.set_num_threads(1)
    rows, made = texts(), []
    for name, kind, keys in CASES:
        config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for path, tensor in model.named_parameters():
                tensor.copy_(value(path, tensor.shape))
        with torch.no_grad():
            before = loss(model, rows).item()
        curve = []
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        for step in range(STEPS):
            at = step * BATCH % TEXTS
            optimizer.zero_grad()
            now = loss(model, rows[at : at + BATCH])
            now.backward()
            optimizer.step()
            curve.append(now.item())
        shapes = {path: list(tensor.shape) for path, tensor in model.named_parameters()}
        made.append(dict(name=name, config={"model_type": kind, **keys}, loss=before, curve=curve, tensors=shapes))
        print(f"{name:24} {before:.6f} {curve[-1]:.6f} {sum(p.numel() for p in model.parameters())}")
    out = dict(rate=RATE, batch=BATCH, texts=rows, cases=made)
    text = json.dumps(out, separators=(",", ":"))
    (HERE / "decoders.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
