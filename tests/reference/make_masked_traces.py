#!/usr/bin/env python3
"""Write masked.json: loss curves of masked-LM training, the masks drawn here anew.

How to run (from the repository root, after `cargo build`; the environment of make_traces.py and the
package blake3):

    .venv/bin/python tests/reference/make_masked_traces.py --peftc target/debug/peftc

The model is the embedded masked LM of recipes/reviews-mini, the data 20 batches of 16 reviews in file
order, cut to 64 tokens. Which tokens are masked, and what stands there, is computed below from peftc's
definition alone: a Philox 4x32-10 stream keyed by BLAKE3(seed, purpose), a counter for each example and
position. `lst`: initial side network as in make_side_traces.py, the LM head frozen. `full`: everything
is trained, the word embeddings through both of their uses.
"""

import argparse
import math
import os
from pathlib import Path

import make_side_traces as side  # sets the number of threads before torch is loaded

import make_traces as base
import torch
from blake3 import blake3
from torch import nn
from torch.nn import functional as F
from transformers import BertForMaskedLM

MODEL = side.REPO / "recipes" / "reviews-mini"
SEED, RATE, LENGTH = 42, 0.15, 64
WORD = 0xFFFFFFFF


def philox(key, counter):
    (k0, k1), c = key, list(counter)
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(high >> 32) ^ c[1] ^ k0, high & WORD, (low >> 32) ^ c[3] ^ k1, low & WORD]
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c


def stream(seed, purpose):
    digest = blake3(seed.to_bytes(8, "little") + purpose.encode()).digest()
    return tuple(int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(2))


class Masks:
    def __init__(self, tok, epoch):
        self.key = stream(SEED, f"mask/{epoch}")
        self.special = {tok.token_to_id(t) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
        self.mask = tok.token_to_id("[MASK]")
        self.ordinary = [i for i in range(tok.get_vocab_size()) if i not in self.special]

    def draw(self, example, ids):
        """The ids a model reads, and the places it is asked for."""
        own = len(ids) - 2
        count = min(max(math.floor(RATE * own + 0.5), 1), own)
        ranked = []
        for place, token in enumerate(ids):
            high, low, fate, other = philox(self.key, (example, place, 0, 0))
            if fate < math.floor(0.8 * 2**32):
                shown = self.mask
            elif fate < math.floor(0.9 * 2**32):
                shown = self.ordinary[other * len(self.ordinary) >> 32]
            else:
                shown = token
            ranked.append((token in self.special, high << 32 | low, place, shown))
        chosen = sorted((place, shown) for _, _, place, shown in sorted(ranked)[:count])
        shown = list(ids)
        for place, token in chosen:
            shown[place] = token
        return shown, [place for place, _ in chosen]


def batches(tok, rows):
    masks = Masks(tok, 0)
    for step in range(base.STEPS):
        ids, at, tokens = [], [], []
        for row in range(16):
            index = step * 16 + row
            plain = tok.encode(rows[index][0]).ids
            shown, places = masks.draw(index, plain)
            ids.append(shown)
            at += [(row, place) for place in places]
            tokens += [plain[place] for place in places]
        width = max(map(len, ids))
        mask = torch.tensor([[1] * len(e) + [0] * (width - len(e)) for e in ids])
        ids = torch.tensor([e + [0] * (width - len(e)) for e in ids])
        yield ids, mask, torch.tensor(at), torch.tensor(tokens)


def train(name, start, lr, rows, dtype):
    model = BertForMaskedLM.from_pretrained(str(MODEL), attn_implementation="eager", dtype=torch.float32).to(dtype)
    base.no_dropout(model)
    n, eps = model.config.num_attention_heads, model.config.layer_norm_eps
    if start is None:
        named = [(k.lower(), q) for k, q in model.named_parameters()]
    else:
        for q in model.parameters():
            q.requires_grad_(False)
        p = {k: nn.Parameter(v.to(dtype).clone()) for k, v in start.items()}
        named = list(p.items())
    optimizer = torch.optim.AdamW(side.adamw(named), lr=lr, eps=1e-8, foreach=False)
    tok = base.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tok.enable_truncation(LENGTH)
    losses = []
    for ids, mask, at, tokens in batches(tok, rows):
        out = model.bert(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        hidden = out.hidden_states[-1]
        if start is not None:
            hidden = side.lst(p, list(out.hidden_states), mask, n, eps, range(model.config.num_hidden_layers))
        loss = F.cross_entropy(model.cls(hidden[at[:, 0], at[:, 1]]), tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--peftc", required=True)
    args = args.parse_args()
    torch.set_num_threads(1)
    peftc = str(Path(args.peftc).resolve())
    rows = base.read_rows(side.REPO / "recipes" / "reviews" / "train.tsv")
    os.chdir(side.HERE)
    curves = []
    for name, adapter, lr in [("lst", "lst { r = 4 }", 1e-3), ("full", "full", 5e-5)]:
        method = f"objective = masked_lm\n adapter = {adapter}"
        start = side.initial(peftc, MODEL, method) if name == "lst" else None
        single, double = (train(name, start, lr, rows, t) for t in (torch.float32, torch.float64))
        curves.append({"name": name, "method": method, "lr": lr, "loss": single, "loss_f64": double})
        off = max(abs(a - b) for a, b in zip(single, double))
        print(f"{name:5} loss {single[0]:.4f} -> {single[-1]:.4f}, f32 off by {off:.1e}")
    base.write_numbers(side.HERE / "masked.json", {"steps": base.STEPS, "rate": RATE, "curves": curves})


if __name__ == "__main__":
    main()
