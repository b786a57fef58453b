#!/usr/bin/env python3
"""Write side.json: loss curves of methods without a public PyTorch class, transcribed here.

How to run (from the repository root, after `cargo build`; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_side_traces.py --peftc target/debug/peftc

Initial values of the side networks, adapters and heads are peftc's own: it runs one step at a
vanishing rate and leaves them in its artifact; everything after that is PyTorch, f32 (and f64 beside
it), one thread. Methods: LST, k-LST (k = 3), LST with dropped layers, Side-LoRA, SiVA on key and query
under a k-LST, and label words at a prompt's mask (full fine-tuning of the embedded masked LM).
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path

import make_traces as base
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import BertForMaskedLM

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
ALL = "{attention.{query, key, value, output}, ffn.{up, down}}"
CASES = [
    ("lst", "adapter = lst { r = 4 }"),
    ("lst_dropped", "adapter = lst { r = 4, layers = [0, 2] }"),
    ("k_lst", "adapter = k_lst { k = 3, r = 4 }"),
    ("side_lora", f"adapter = side_lora {{ rank = 4, alpha = 8, on = {ALL} }}"),
    ("siva_k_lst", "adapters = [siva { rank = 4, on = attention.{key, query} }, k_lst { k = 3, r = 4 }]"),
]
LR = 1e-2  # the side networks start small: less would hardly move the loss


def recipe(model, method, lr, steps, extra=""):
    return (
        f'model m = local "{model}"\n'
        f'data d = local "{REPO}/recipes/reviews" {{ text = sentence, label = label, take = 320 }}\n'
        f"{extra}"
        f"stage s = train {{\n model = m\n data = d.train\n {method}\n"
        f" optimizer = adamw {{ weight_decay = 0.01 }}\n lr = {lr}\n steps = {steps}\n batch = 16\n"
        " max_length = 64\n clip = 0\n dropout = 0\n shuffle = false\n}\n"
    )


def initial(peftc, model, method):
    """What peftc starts from: its adapter after one step at a rate that changes nothing."""
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "r.peft"
        path.write_text(recipe(model, method, 1e-30, 1), encoding="utf-8")
        subprocess.run([peftc, "run", "--quiet", str(path)], check=True)
        found = list(Path(tmp).glob(".peftc/store/*/adapter/peftc.safetensors"))
        return load_file(found[0])


def linear(p, name, x):
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def norm(p, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], eps)


def heads(x, n):
    return x.view(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


def attend(q, k, v, mask, n):
    """Multi-head attention; mask [B, keys] is 1 where a key counts."""
    scores = heads(q, n) @ heads(k, n).transpose(-1, -2) / math.sqrt(q.shape[-1] / n)
    scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
    out = scores.softmax(-1) @ heads(v, n)
    return out.transpose(1, 2).reshape(q.shape)


def block(p, name, x, mask, n, eps):
    """A post-norm encoder block."""
    at = lambda rest: f"{name}.{rest}"
    a = attend(*(linear(p, at(f"attention.{r}"), x) for r in ("query", "key", "value")), mask, n)
    h = norm(p, at("attention.norm"), x + linear(p, at("attention.output"), a), eps)
    f = linear(p, at("ffn.down"), F.gelu(linear(p, at("ffn.up"), h)))
    return norm(p, at("ffn.norm"), h + f, eps)


def lst(p, states, mask, n, eps, kept):
    state = linear(p, "side.down.0", states[0])
    for i in kept:
        gate = torch.sigmoid(p[f"side.gate.{i}"] / 0.1)
        mixed = gate * state + (1 - gate) * linear(p, f"side.down.{i + 1}", states[i + 1])
        state = block(p, f"side.block.{i}", mixed, mask, n, eps)
    return linear(p, "side.up", norm(p, "side.norm", state, eps))


def k_lst(p, states, mask, n, eps, k):
    layers, half = len(states) - 1, k // 2
    features = {i: linear(p, f"side.down.{i}", states[i]) for i in range(1, layers + 1)}
    state = linear(p, "side.down.0", states[0])
    for j in range(1, layers + 1):
        slots = []
        for c in range(k):
            i = j - half + c
            feature = features.get(i, torch.zeros_like(state))
            slots.append(feature + p["side.position"][c])
        window = torch.cat(slots, 1)  # [B, kT, s]: slot after slot
        at = f"side.cross.{j - 1}"
        x = attend(linear(p, f"{at}.query", state), linear(p, f"{at}.key", window),
                   linear(p, f"{at}.value", window), mask.repeat(1, k), n)
        state = block(p, f"side.block.{j - 1}", linear(p, f"{at}.output", x), mask, n, eps)
    return linear(p, "side.up", state)


class SideLora(nn.Module):
    def __init__(self, plain, a, b, scale):
        super().__init__()
        self.plain, self.a, self.b, self.scale = plain, a, b, scale

    def forward(self, x):
        return self.plain(x.detach()) + self.scale * F.linear(F.linear(x, self.a), self.b)


def decays(name):
    return not (name.endswith("bias") or "norm" in name or "gate" in name)


def adamw(named):
    groups = [
        {"params": [p for k, p in named if decays(k)], "weight_decay": 0.01},
        {"params": [p for k, p in named if not decays(k)], "weight_decay": 0.0},
    ]
    return groups


def train_side(name, start, rows, dtype):
    model = base.load("bert-tiny", dtype)
    base.no_dropout(model)
    for q in model.parameters():
        q.requires_grad_(False)
    p = {k: nn.Parameter(v.to(dtype).clone()) for k, v in start.items() if not k.endswith(("U0", "V0", "siva_S"))}
    n, eps = model.config.num_attention_heads, model.config.layer_norm_eps
    if name == "side_lora":
        for path, module in list(model.named_modules()):
            if f"{path}.lora_A.weight" in p:
                parent = model.get_submodule(path.rsplit(".", 1)[0])
                a, b = p[f"{path}.lora_A.weight"], p[f"{path}.lora_B.weight"]
                setattr(parent, path.rsplit(".", 1)[1], SideLora(module, a, b, 2.0))
    if name == "siva_k_lst":
        for path, module in list(model.named_modules()):
            if f"{path}.siva_U" in p:
                siva = base.SivaLinear(module, 4)
                siva.U, siva.V = p[f"{path}.siva_U"], p[f"{path}.siva_V"]
                setattr(model.get_submodule(path.rsplit(".", 1)[0]), path.rsplit(".", 1)[1], siva)
    optimizer = torch.optim.AdamW(adamw(list(p.items())), lr=LR, eps=1e-8, foreach=False)
    tok, losses = base.tokenizer_of("bert-tiny"), []
    for ids, types, mask, labels in base.batches(tok, rows, tok.pad_token_id):
        mask = torch.tensor(mask)
        out = model.bert(input_ids=torch.tensor(ids), token_type_ids=torch.tensor(types),
                         attention_mask=mask, output_hidden_states=True)
        states = list(out.hidden_states)
        if name == "lst":
            hidden = lst(p, states, mask, n, eps, [0, 1, 2])
        elif name == "lst_dropped":
            hidden = lst(p, states, mask, n, eps, [0, 2])
        elif name == "side_lora":
            hidden = states[-1]
        else:
            hidden = k_lst(p, states, mask, n, eps, 3)
        logits = linear(p, "classifier", torch.tanh(linear(p, "bert.pooler.dense", hidden[:, 0])))
        loss = F.cross_entropy(logits, torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_words(rows, dtype):
    """Full fine-tuning of the masked LM on `{sentence} It was {mask}.` with terrible and great."""
    folder = str(REPO / "recipes" / "reviews-mini")
    model = BertForMaskedLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).to(dtype)
    base.no_dropout(model)
    tok = base.Tokenizer.from_file(f"{folder}/tokenizer.json")
    words = [tok.token_to_id(w) for w in ("terrible", "great")]
    mask_id, named = tok.token_to_id("[MASK]"), [
        (k.lower(), q) for k, q in model.named_parameters() if "pooler" not in k
    ]
    optimizer = torch.optim.AdamW(adamw(named), lr=5e-5, eps=1e-8, foreach=False)
    losses = []
    for step in range(base.STEPS):
        chunk = rows[step * 16 : (step + 1) * 16]
        encoded = [tok.encode(f"{text} It was [MASK].").ids for text, _ in chunk]
        assert max(map(len, encoded)) <= 128
        width = max(map(len, encoded))
        ids = torch.tensor([e + [0] * (width - len(e)) for e in encoded])
        mask = torch.tensor([[1] * len(e) + [0] * (width - len(e)) for e in encoded])
        logits = model(input_ids=ids, attention_mask=mask).logits
        at = (ids == mask_id).nonzero()
        picked = logits[at[:, 0], at[:, 1]][:, words]
        loss = F.cross_entropy(picked, torch.tensor([label for _, label in chunk]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def mezo_step(peftc, rows):
    """The projected gradient of a MeZO step in f64, along the direction peftc drew.

    One step at rate 1 leaves w - g z, so z = (w0 - w1) / g; the logged g stands beside the exact one.
    """
    method = "adapter = full"
    text = recipe(HERE / "bert-tiny", method, 1.0, 1).replace("= train {", "= mezo {")
    for key in (" optimizer = adamw { weight_decay = 0.01 }\n", " clip = 0\n", " dropout = 0\n"):
        text = text.replace(key, "")
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "r.peft"
        path.write_text(text, encoding="utf-8")
        subprocess.run([peftc, "run", "--quiet", str(path)], check=True)
        log = json.loads((Path(tmp) / ".peftc/runs/r/s/metrics.jsonl").read_text())
        after = load_file(next(Path(tmp).glob(".peftc/store/*/model/model.safetensors")))
    logged, epsilon = log["projected_grad"][0], 1e-3
    model, before = base.load("bert-tiny", torch.float64), base.load("bert-tiny", torch.float64).state_dict()
    ids, types, mask, labels = next(iter(base.batches(base.tokenizer_of("bert-tiny"), rows, 0)))
    losses = []
    for sign in (1, -1):
        moved = {k: v + sign * epsilon * (v - after[k].double()) / logged for k, v in before.items() if k in after}
        model.load_state_dict(moved, strict=False)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids), token_type_ids=torch.tensor(types),
                           attention_mask=torch.tensor(mask)).logits
        losses.append(F.cross_entropy(logits, torch.tensor(labels)).item())
    exact = (losses[0] - losses[1]) / (2 * epsilon)
    print(f"mezo         projected gradient {logged:.6f}, in f64 {exact:.6f}")
    return {"epsilon": epsilon, "projected_grad_f64": exact, "loss_f64": sum(losses) / 2}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--peftc", required=True)
    args = args.parse_args()
    torch.set_num_threads(1)
    peftc = str(Path(args.peftc).resolve())
    rows = base.read_rows(REPO / "recipes" / "reviews" / "train.tsv")
    os.chdir(HERE)
    curves = []
    for name, method in CASES:
        start = initial(peftc, HERE / "bert-tiny", method)
        single, double = (train_side(name, start, rows, t) for t in (torch.float32, torch.float64))
        curves.append({"name": name, "method": method, "lr": LR, "loss": single, "loss_f64": double})
    single, double = (train_words(rows, t) for t in (torch.float32, torch.float64))
    curves.append({"name": "label_words", "method": "adapter = full", "lr": 5e-5, "loss": single, "loss_f64": double})
    for c in curves:
        off = max(abs(a - b) for a, b in zip(c["loss"], c["loss_f64"]))
        print(f"{c['name']:12} loss {c['loss'][0]:.4f} -> {c['loss'][-1]:.4f}, f32 off by {off:.1e}")
    base.write_numbers(HERE / "side.json", {"steps": base.STEPS, "curves": curves, "mezo": mezo_step(peftc, rows)})


if __name__ == "__main__":
    main()
