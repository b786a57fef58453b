#!/usr/bin/env python3
"""Write choose.json: one of several options by a head, as the classes …ForMultipleChoice of transformers have it.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_choose_traces.py

`curves`: the models of make_traces.py with a head whose weights are a formula (`head`). A row asks how a review goes on: its prompt are
words 1 to 6 of a review, its options words 7 to 12 of this review and of the next two. Training is that of curves.json but for the loss and epsilon;
after the last step rows 320 .. 367 are scored. `models`: tiny models of other families, whose weights are a function of their names as in
make_encoder_traces.py; a text's tokens are its words, those of an option in segment 1.
"""

import json
import math
import os

import make_traces as base  # sets the number of threads before torch is loaded

import torch
from make_decoder_traces import fnv, mixed, value
from make_encoder_traces import CASES, COMMON
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForMultipleChoice, AutoTokenizer

RUNS = ["bert-tiny", "roberta-tiny", "distilbert-tiny"]
MODELS = ["albert", "modernbert", "modernbert_biases", "xlm_roberta_xl_silu", "mpnet", "deberta_v3", "deberta_own_maps", "electra"]
LR, OPTIONS, SCORED = 2e-4, 3, range(320, 368)
# A bias that shifts the scores of all options alike has no gradient; a small epsilon would make steps of its rounding.
EPSILON = 1e-5


def head(place):
    return 0.3 * math.sin(1.0 + 12.9898 * place)


def questions(rows):
    """(prompt, options, place of the right one) of every review of 12 words or more."""
    own = [words for words in (text.split(" ") for text, _ in rows) if len(words) >= 12]
    made = []
    for i, words in enumerate(own):
        right, options = i // 2 % OPTIONS, [None] * OPTIONS
        for k in range(OPTIONS):
            options[(right + k) % OPTIONS] = " ".join(own[(i + k) % len(own)][6:12])
        made.append((" ".join(words[:6]), options, right))
    return made


def model_of(name, dtype):
    model = AutoModelForMultipleChoice.from_pretrained(name, ignore_mismatched_sizes=True, dtype=dtype)
    fill = lambda tensor, at: tensor.copy_(torch.tensor([head(at + i) for i in range(tensor.numel())], dtype=torch.float32).view(tensor.shape))
    with torch.no_grad():
        fill(model.classifier.weight, 0)
        fill(model.classifier.bias, 100)
        if name.startswith("roberta"):
            fill(model.roberta.pooler.dense.weight, 1000)
            fill(model.roberta.pooler.dense.bias, 200)
    return model


def logits(model, tok, chunk):
    pairs = [(prompt, option) for prompt, options, _ in chunk for option in options]
    encoded = tok([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt")
    assert encoded["input_ids"].shape[1] <= base.MAX_LENGTH
    return model(**{k: v.view(len(chunk), OPTIONS, -1) for k, v in encoded.items()}).logits


def train(name, data, dtype):
    tok = AutoTokenizer.from_pretrained(name)
    model = model_of(name, dtype)
    base.no_dropout(model)
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    trained = [(k, p) for k, p in model.named_parameters() if p.requires_grad]
    plain = [p for k, p in trained if k.endswith("bias") or id(p) in norms]
    decay = [p for k, p in trained if not (k.endswith("bias") or id(p) in norms)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=LR, betas=(0.9, 0.999), eps=EPSILON, foreach=False,
    )
    losses = []
    for step in range(base.STEPS):
        chunk = data[16 * step : 16 * step + 16]
        loss = F.cross_entropy(logits(model, tok, chunk), torch.tensor([right for *_, right in chunk]))
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    model.eval()
    chunk = [data[i] for i in SCORED]
    with torch.no_grad():
        scores = logits(model, tok, chunk).double()
    right = torch.tensor([right for *_, right in chunk])
    top = scores.topk(2).values
    assert (top[:, 0] - top[:, 1]).min() > 2e-5
    return losses, {
        "accuracy": (scores.argmax(-1) == right).double().mean().item(), "loss": F.cross_entropy(scores, right).item(),
        "probabilities": scores.softmax(-1).tolist(),
    }


def words():
    """Words 2 to 49: prompts of 1 to 9, 4 options of 1 to 4."""
    draws = mixed(fnv("options"), 24 * 40).reshape(24, 40)
    list = lambda row, at, most: [int(2 + w % 48) for w in row[at + 1 : at + 2 + int(row[at] % most)]]
    return [(list(row, 0, 9), [list(row, 12 + 6 * i, 4) for i in range(4)], int(row[39] % 4)) for row in draws]


def scored(kind, keys, data):
    config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
    config._attn_implementation = "eager"
    model = AutoModelForMultipleChoice.from_config(config).float().eval()
    scores = []
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            tensor.copy_(value(path.lower(), tensor.shape))
        for prompt, options, _ in data:
            own = []
            for option in options:
                ids = torch.tensor([[prompt + option]])
                more = {} if kind in ("modernbert", "mpnet") else {"token_type_ids": torch.tensor([[[0] * len(prompt) + [1] * len(option)]])}
                own.append(model(input_ids=ids, attention_mask=torch.ones_like(ids), **more).logits.item())
            scores.append(own)
    shapes = {path: list(tensor.shape) for path, tensor in model.named_parameters()}
    right = torch.tensor([right for *_, right in data])
    loss = F.cross_entropy(torch.tensor(scores).double(), right).item()
    shares = torch.tensor(scores).double().softmax(-1).tolist()
    return dict(loss=loss, probabilities=shares, tensors=shapes)


def main():
    torch.set_num_threads(1)
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    data, curves, models = questions(rows), [], []
    os.chdir(base.HERE)
    for name in RUNS:
        losses, own = train(name, data, torch.float32)
        double, _ = train(name, data, torch.float64)
        off = max(abs(a - b) for a, b in zip(losses, double))
        print(f"{name}: {losses[0]:.4f} -> {losses[-1]:.4f}, f32 off by {off:.1e}, {own['accuracy']} {own['loss']}")
        curves.append({"model": name, "lr": LR, "loss": losses, "scored": own})
    known = {name: (kind, keys) for name, kind, keys in CASES}
    for name in MODELS:
        kind, keys = known[name]
        own = scored(kind, keys, words())
        print(f"{name}: {own['loss']}")
        models.append(dict(name=name, config={"model_type": kind, "architectures": ["SomeForMultipleChoice"], **keys}, **own))
    text = json.dumps(dict(curves=curves, words=words(), models=models), separators=(",", ":"))
    (base.HERE / "choose.json").write_text(text.replace('{"model"', '\n{"model"').replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
