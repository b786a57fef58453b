#!/usr/bin/env python3
"""Write decoder_side.json: loss curves of ladders beside tiny decoders, with transformers' own blocks as side blocks.

How to run (from the repository root, after a build; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_decoder_side_traces.py --peftc target/debug/peftc

Models, texts and weights are those of decoders.json. Initial values of the side networks are peftc's own: it runs one
step at a vanishing rate and leaves them in its artifact. Everything after that is PyTorch in f32 on one thread.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import importlib
import json
import math
import subprocess
import tempfile
from pathlib import Path

import torch
from make_decoder_traces import BATCH, STEPS, TEXTS, texts, value
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
LR = 1e-2
METHODS = {
    "lst": "lst { r = 2 }",
    "lst_dropped": "lst { r = 2, layers = [0, 2] }",
    "k_lst": "k_lst { k = 3, r = 2 }",
    "lst_pruned": "lst { r = 2, init = magnitude }",
}
MODELS = {
    "llama": ["lst", "lst_dropped", "k_lst", "lst_pruned"],
    "llama_every_key_head": ["lst_pruned"],
    "qwen3_biases": ["lst"],
    "gemma2": ["lst", "k_lst"],
    "phi3_partial": ["lst"],
    "olmo2": ["k_lst"],
    "neox": ["lst", "k_lst"],
}
LAYERS = {
    "llama": ("llama", "LlamaDecoderLayer", "LlamaRotaryEmbedding"),
    "qwen3": ("qwen3", "Qwen3DecoderLayer", "Qwen3RotaryEmbedding"),
    "gemma2": ("gemma2", "Gemma2DecoderLayer", "Gemma2RotaryEmbedding"),
    "phi3": ("phi3", "Phi3DecoderLayer", "Phi3RotaryEmbedding"),
    "olmo2": ("olmo2", "Olmo2DecoderLayer", "Olmo2RotaryEmbedding"),
    "gpt_neox": ("gpt_neox", "GPTNeoXLayer", "GPTNeoXRotaryEmbedding"),
}


def write_folder(folder, case):
    """The model as the test writes it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(case["config"]))
    save_file({k: value(k, s) for k, s in case["tensors"].items()}, folder / "model.safetensors")
    token = lambda i, c: {"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}
    vocab = {w: i for i, w in enumerate(["<unk>", "<end>"] + [f"w{i}" for i in range(2, 50)])}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "decoder": None, "added_tokens": [token(0, "<unk>"), token(1, "<end>")],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}}))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "unk_token": "<unk>"}))


def initial(peftc, case, method, rows):
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        write_folder(tmp / "m", case)
        (tmp / "train.jsonl").write_text("".join(
            json.dumps({"text": " ".join(f"w{w}" for w in row)}) + "\n" for row in rows))
        (tmp / "r.peft").write_text(
            'model m = local "m"\ndata d = local "." { text = text }\n'
            f"stage s = train {{ model = m, data = d.train, objective = causal_lm, adapter = {method}, lr = 1e-30, steps = 1, "
            f"batch = {BATCH}, clip = 0, dropout = 0, shuffle = false }}\n")
        subprocess.run([peftc, "run", "--quiet", str(tmp / "r.peft")], check=True, stdout=subprocess.DEVNULL)
        return load_file(next(tmp.glob(".peftc/store/*/adapter/peftc.safetensors")))


def narrow(config, r):
    own = json.loads(json.dumps(config.to_dict()))
    head = own.get("head_dim") or own["hidden_size"] // own["num_attention_heads"]
    own["hidden_size"] //= r
    own["intermediate_size"] //= r
    if config.model_type != "gpt_neox":
        own["head_dim"] = head // r
    if "query_pre_attn_scalar" in own:
        own["query_pre_attn_scalar"] //= r
    config = type(config).from_dict(own)
    config._attn_implementation = "eager"
    return config


class Side(nn.Module):
    def __init__(self, config, start, r, kept):
        super().__init__()
        kind, layer, rotary = LAYERS[config.model_type]
        module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
        self.p = {k: nn.Parameter(v.clone()) for k, v in start.items() if not k.startswith("side.block.")}
        self.config, self.kept = narrow(config, r), kept
        self.rotary = getattr(module, rotary)(self.config)
        self.blocks = nn.ModuleDict()
        for i in kept:
            block = getattr(module, layer)(self.config, i)
            block.load_state_dict({k.removeprefix(f"side.block.{i}."): v for k, v in start.items()
                                   if k.startswith(f"side.block.{i}.")})
            self.blocks[str(i)] = block
        self.plus_one = config.model_type == "gemma2"
        self.layer_norm = config.model_type == "gpt_neox"
        self.eps = getattr(config, "rms_norm_eps", None) or config.layer_norm_eps

    def every(self):
        return list(self.p.values()) + list(self.blocks.parameters())

    def linear(self, name, x):
        return F.linear(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"])

    def norm(self, x):
        w = self.p["side.norm.weight"]
        if self.layer_norm:
            return F.layer_norm(x, x.shape[-1:], w, self.p["side.norm.bias"], self.eps)
        return F.rms_norm(x, x.shape[-1:], w + 1 if self.plus_one else w, self.eps)

    def block(self, i, x):
        n = x.shape[1]
        places = torch.arange(n)
        seen = places[:, None] >= places[None, :]
        types = getattr(self.config, "layer_types", None)
        slides = types[i] == "sliding_attention" if types else self.config.model_type == "phi3"
        if slides and getattr(self.config, "sliding_window", None):
            seen = seen & (places[:, None] - places[None, :] < self.config.sliding_window)
        mask = torch.zeros(n, n).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
        turned = self.rotary(x, places[None])
        out = self.blocks[str(i)](x, attention_mask=mask, position_ids=places[None], position_embeddings=turned)
        return out[0] if isinstance(out, tuple) else out

    def lst(self, states):
        state = self.linear("side.down.0", states[0])
        for i in self.kept:
            gate = torch.sigmoid(self.p[f"side.gate.{i}"] / 0.1)
            mixed = gate * state + (1 - gate) * self.linear(f"side.down.{i + 1}", states[i + 1])
            state = self.block(i, mixed)
        return self.linear("side.up", self.norm(state))

    def k_lst(self, states, k=3):
        layers, half, heads = len(states) - 1, k // 2, self.config.num_attention_heads
        features = {i: self.linear(f"side.down.{i}", states[i]) for i in range(1, layers + 1)}
        state = self.linear("side.down.0", states[0])
        n = state.shape[1]
        split = lambda x: x.view(1, x.shape[1], heads, -1).transpose(1, 2)
        causal = torch.tril(torch.ones(n, n, dtype=torch.bool)).repeat(1, k)
        for j in range(1, layers + 1):
            slots = [features.get(j - half + c, torch.zeros_like(state)) + self.p["side.position"][c] for c in range(k)]
            window, at = torch.cat(slots, 1), f"side.cross.{j - 1}"
            q, key, v = (split(self.linear(f"{at}.{name}", x))
                         for name, x in (("query", state), ("key", window), ("value", window)))
            scores = q @ key.transpose(-1, -2) / math.sqrt(q.shape[-1])
            read = scores.masked_fill(~causal, float("-inf")).softmax(-1) @ v
            read = read.transpose(1, 2).reshape(state.shape)
            state = self.block(j - 1, self.linear(f"{at}.output", read))
        return self.linear("side.up", self.norm(state))


def curve(case, name, start, rows):
    config = AutoConfig.for_model(case["config"]["model_type"], **{k: v for k, v in case["config"].items() if k != "model_type"})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            tensor.copy_(value(path, tensor.shape))
    side = Side(config, start, 2, [0, 2] if name == "lst_dropped" else [0, 1, 2])
    kind = "k_lst" if name == "k_lst" else "lst"
    optimizer, made = torch.optim.AdamW(side.every(), lr=LR, eps=1e-8, weight_decay=0, foreach=False), []
    scale, cap = 1.0, getattr(config, "final_logit_softcapping", None)
    for step in range(STEPS):
        at = step * BATCH % TEXTS
        total, count = 0.0, 0
        for row in rows[at : at + BATCH]:
            ids = torch.tensor([row + [1]])
            with torch.no_grad():
                states = list(states_of(model, ids))
            logits = F.linear(getattr(side, kind)(states), model.get_output_embeddings().weight) * scale
            logits = cap * torch.tanh(logits / cap) if cap else logits
            total = total + F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
            count += ids.shape[1] - 1
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        made.append((total / count).item())
    return made


def states_of(model, ids):
    """What enters the first block and what leaves each: `output_hidden_states` gives the last one behind the final norm."""
    kept = []
    base = model.base_model
    layers = base.layers
    hooks = [layers[0].register_forward_pre_hook(lambda _, a, k: kept.append(a[0] if a else k["hidden_states"]), with_kwargs=True)]
    hooks += [l.register_forward_hook(lambda _, a, out: kept.append(out[0] if isinstance(out, tuple) else out)) for l in layers]
    model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return kept


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--peftc", required=True)
    peftc = str(Path(args.parse_args().peftc).resolve())
    torch.set_num_threads(1)
    rows = texts()
    cases = {c["name"]: c for c in json.loads((HERE / "decoders.json").read_text())["cases"]}
    curves = []
    for model, methods in MODELS.items():
        for name in methods:
            start = initial(peftc, cases[model], METHODS[name], rows)
            made = curve(cases[model], name, start, rows)
            curves.append(dict(model=model, method=METHODS[name], loss=made))
            print(f"{model:22} {name:12} {made[0]:.5f} {made[-1]:.5f} {sum(v.numel() for v in start.values())}")
    text = json.dumps(dict(lr=LR, curves=curves), separators=(",", ":"))
    (HERE / "decoder_side.json").write_text(text.replace('{"model"', '\n{"model"') + "\n")


if __name__ == "__main__":
    main()
