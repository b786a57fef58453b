#!/usr/bin/env python3
"""Write r_drop.json: trainings with R-Drop, whose masks are drawn as peftc draws them.

How to run (from the repository root; the environment of make_traces.py and blake3):

    .venv/bin/python tests/reference/make_r_drop_traces.py

Training is that of curves.json, but that dropout acts in front of the classifier alone, and that each step's texts are read
twice: the loss is R-Drop's own (Liang et al. 2021), the mean of both cross-entropies and α times the mean of both
Kullback-Leibler divergences, with gradients through both sides. The mask of a number depends on the stream of the dropout, the text's place
in the split, the step and the column.
"""

import os
import sys

import make_traces as base  # sets the number of threads before torch is loaded

import blake3
import torch
from torch.nn import functional

sys.path.insert(0, str(base.HERE / "methods"))
from adamix import philox

SEED, RATE = 42, 0.3
# α, the model, the method, the place of the classifier's dropout among those of the network, LoRA's own included.
RUNS = [(2.0, "bert-tiny", "full", 11), (0.7, "bert-tiny", "lora", 29), (1.0, "distilbert-tiny", "full", 11)]


def kept(place, route, examples, step, width):
    """What is multiplied with: 0 where a number is dropped, 1 / (1 − rate) elsewhere."""
    purpose = f"dropout/{place}"
    if route:
        purpose = f"route/{route}/{purpose}"
    digest = blake3.blake3(SEED.to_bytes(8, "little") + purpose.encode()).digest()
    key = [int.from_bytes(digest[i : i + 4], "little") for i in (0, 4)]
    rows = []
    for example in examples:
        words = [w for block in range(-(-width // 4)) for w in philox(key, [block, 0, example, step])]
        rows.append([0.0 if w < int(RATE * 2**32) else 1 / (1 - RATE) for w in words[:width]])
    return torch.tensor(rows)


def train(alpha, name, method, place, rows):
    model = base.prepare(name, method, torch.float32)
    base.no_dropout(model)
    masks = {}
    model.get_submodule("dropout").register_forward_hook(lambda m, args, y: y * masks["now"])
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    named = [(k, p) for k, p in model.named_parameters() if p.requires_grad]
    plain = [p for k, p in named if k.endswith("bias") or id(p) in norms]
    decay = [p for k, p in named if not (k.endswith("bias") or id(p) in norms)]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=base.LR[method], eps=1e-8, foreach=False)
    tok, losses = base.tokenizer_of(name), []
    for step, (ids, types, mask, labels) in enumerate(base.batches(tok, rows, tok.pad_token_id)):
        feed, mask, labels = base.feed(name, ids, types), torch.tensor(mask), torch.tensor(labels)
        examples = range(step * base.BATCH, step * base.BATCH + len(labels))
        logits = []
        for route in (0, 1):
            masks["now"] = kept(place, route, examples, step, base.HIDDEN)
            logits.append(model(**feed, attention_mask=mask).logits)
        p, q = (functional.log_softmax(x, -1) for x in logits)
        apart = functional.kl_div(p, q.exp(), reduction="none").sum() + functional.kl_div(q, p.exp(), reduction="none").sum()
        loss = sum(functional.cross_entropy(x, labels) for x in logits) / 2 + alpha * apart / 2 / len(labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    torch.set_num_threads(1)
    os.chdir(base.HERE)  # models are named by their folders
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    curves = []
    for alpha, name, method, place in RUNS:
        losses = train(alpha, name, method, place, rows)
        print(f"{name} {method} {alpha}: loss {losses[0]:.4f} -> {losses[-1]:.4f}")
        curves.append({"alpha": alpha, "model": name, "method": method, "lr": base.LR[method], "loss": losses})
    base.write_numbers(base.HERE / "r_drop.json", {"rate": RATE, "steps": base.STEPS, "curves": curves})


if __name__ == "__main__":
    main()
