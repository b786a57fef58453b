#!/usr/bin/env python3
"""Write token_classify.json: a class for each word, as transformers and seqeval have it.

How to run (from the repository root; the environment of make_traces.py and seqeval==1.2.2):

    .venv/bin/python tests/reference/make_token_traces.py

The models are those of make_traces.py with a head on each token whose weights are a formula (`head`). The words of a
review are what stands between its spaces, the first 12 of them; a word has the type LONG from 6 characters on, and LY
where it ends with y or e. Training is that of curves.json but for the loss. After the last step the words of rows 320 .. 383 are
labelled, and seqeval counts entities. `words` holds the tokens that transformers makes of words (`is_split_into_words`),
and `tags` what seqeval makes of tags of every scheme.
"""

import json
import math
import os
import random

import make_traces as base  # sets the number of threads before torch is loaded

import torch
from seqeval.metrics import accuracy_score
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

CLASSES = ["B-LONG", "B-LY", "I-LONG", "I-LY", "O"]
RUNS = [("bert-tiny", "first"), ("roberta-tiny", "all"), ("distilbert-tiny", "first")]
LR = 2e-4
WORDS = 12
SCORED = range(320, 384)


def tagged(sentence):
    words = sentence.split(" ")[:WORDS]
    tags, last = [], None
    for word in words:
        kind = "LY" if word.endswith(("y", "e")) else "LONG" if len(word) >= 6 else None
        tags.append("O" if kind is None else ("I-" if kind == last else "B-") + kind)
        last = kind
    return words, tags


def head(place):
    return 0.3 * math.sin(1.0 + 12.9898 * place)


def tokenizer_of(name):
    return AutoTokenizer.from_pretrained(name, add_prefix_space=True) if "roberta" in name else AutoTokenizer.from_pretrained(name)


def model_of(name, dtype):
    config = AutoConfig.from_pretrained(name)
    config.id2label = dict(enumerate(CLASSES))
    config.label2id = {c: i for i, c in enumerate(CLASSES)}
    model = AutoModelForTokenClassification.from_pretrained(name, config=config, ignore_mismatched_sizes=True, dtype=dtype)
    width = config.hidden_size if hasattr(config, "hidden_size") else config.dim
    with torch.no_grad():
        own = [[head(i * width + j) for j in range(width)] for i in range(len(CLASSES))]
        model.classifier.weight.copy_(torch.tensor(own, dtype=torch.float32))
        model.classifier.bias.copy_(torch.tensor([head(-1 - i) for i in range(len(CLASSES))], dtype=torch.float32))
    return model


def labels_of(encoded, tags, pieces):
    labels, last = [], None
    for word in encoded.word_ids():
        if word is None:
            labels.append(-100)
        elif word != last:
            labels.append(CLASSES.index(tags[word]))
        elif pieces == "first":
            labels.append(-100)
        else:
            labels.append(CLASSES.index(tags[word].replace("B-", "I-")))
        last = word
    return labels


def train(name, pieces, rows, dtype):
    tok = tokenizer_of(name)
    model = model_of(name, dtype)
    base.no_dropout(model)
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    trained = [(k, p) for k, p in model.named_parameters() if p.requires_grad]
    plain = [p for k, p in trained if k.endswith("bias") or id(p) in norms]
    decay = [p for k, p in trained if not (k.endswith("bias") or id(p) in norms)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=LR, betas=(0.9, 0.999), eps=1e-8, foreach=False,
    )
    losses = []
    for step in range(base.STEPS):
        chunk = [tagged(text) for text, _ in rows[16 * step : 16 * step + 16]]
        encoded = [tok(words, is_split_into_words=True) for words, _ in chunk]
        assert max(len(e["input_ids"]) for e in encoded) <= base.MAX_LENGTH
        labels = [labels_of(e, tags, pieces) for e, (_, tags) in zip(encoded, chunk)]
        width = max(len(own) for own in labels)
        pad = lambda list, with_: list + [with_] * (width - len(list))
        ids = torch.tensor([pad(e["input_ids"], tok.pad_token_id) for e in encoded])
        mask = torch.tensor([pad([1] * len(own), 0) for own in labels])
        loss = model(input_ids=ids, attention_mask=mask, labels=torch.tensor([pad(own, -100) for own in labels])).loss
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return model.eval(), losses


def scored(model, name, rows):
    tok = tokenizer_of(name)
    true, told, margins, loss, count = [], [], [], 0.0, 0
    shares = []
    for i in SCORED:
        words, tags = tagged(rows[i][0])
        encoded = tok(words, is_split_into_words=True)
        assert len(encoded["input_ids"]) <= base.MAX_LENGTH
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([encoded["input_ids"]])).logits[0].double()
        places = [encoded.word_ids().index(word) for word in range(len(words))]
        own = logits[places]
        top = own.topk(2).values
        margins.append((top[:, 0] - top[:, 1]).min().item())
        shares.append(own.softmax(-1).max(-1).values.tolist())
        loss += torch.nn.functional.cross_entropy(own, torch.tensor([CLASSES.index(t) for t in tags]), reduction="sum").item()
        count += len(words)
        true.append(tags)
        told.append([CLASSES[c] for c in own.argmax(-1).tolist()])
    assert min(margins) > 2e-5, min(margins)
    p, r, f, _ = precision_recall_fscore_support(true, told, average="micro", zero_division=0)
    return {
        "tags": told, "probability": shares[0], "loss": loss / count,
        "metrics": {"entity_precision": p, "entity_recall": r, "entity_f1": f, "token_accuracy": accuracy_score(true, told)},
        "entities": by_type(true, told),
    }


def by_type(true, told):
    names = sorted({k for tags in true + told for k, _, _ in get_entities(tags)})
    p, r, f, n = precision_recall_fscore_support(true, told, average=None, zero_division=0)
    assert len(names) == len(p)
    return [
        {"name": name, "precision": a, "recall": b, "f1": c, "support": int(d)}
        for name, a, b, c, d in zip(names, p.tolist(), r.tolist(), f.tolist(), n.tolist())
    ]


def schemes():
    """Random tags of every scheme, valid ones and others."""
    draw = random.Random(5)
    cases = []
    for letters in ["BI", "IB", "BIES", "IE", "BIESO", "I"]:
        tags = [f"{letter}-{kind}" for letter in letters if letter != "O" for kind in ("PER", "LOC", "A-B")] + ["O", "O"]
        pairs = []
        for _ in range(12):
            n = draw.randint(1, 9)
            true = [draw.choice(tags) for _ in range(n)]
            told = [t if draw.random() < 0.6 else draw.choice(tags) for t in true]
            pairs.append((true, told))
        true, told = [a for a, _ in pairs], [b for _, b in pairs]
        p, r, f, _ = precision_recall_fscore_support(true, told, average="micro", zero_division=0)
        cases.append({"true": true, "told": told, "micro": [p, r, f], "entities": by_type(true, told)})
    return cases


WORD_CASES = [
    ["EU", "rejects", "German", "call", "."],
    ["New York", "soufflé", "don't", "I.B.M.", "A-B-C", "1,000"],
    ["x", "\u00e9", "e\u0301", "\U0001f600", "Łódź"],
    [" padded ", "it's", "(", "a/b", "unbelievably"],
]


def words():
    cases = []
    for name in ["bert-tiny", "roberta-tiny", "distilbert-tiny"]:
        tok = tokenizer_of(name)
        for own in WORD_CASES:
            e = tok(own, is_split_into_words=True)
            cases.append({"model": name, "words": own, "ids": e["input_ids"], "word_ids": e.word_ids()})
    return cases


def main():
    torch.set_num_threads(1)
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    os.chdir(base.HERE)
    curves = []
    for name, pieces in RUNS:
        model, losses = train(name, pieces, rows, torch.float32)
        _, double = train(name, pieces, rows, torch.float64)
        off = max(abs(a - b) for a, b in zip(losses, double))
        own = scored(model, name, rows)
        print(f"{name} {pieces}: {losses[0]:.4f} -> {losses[-1]:.4f}, f32 off by {off:.1e}, {own['metrics']}")
        curves.append({"model": name, "pieces": pieces, "lr": LR, "loss": losses, "scored": own})
    value = {"classes": CLASSES, "curves": curves, "words": words(), "tags": schemes()}
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    (base.HERE / "token_classify.json").write_text(text.replace('{"model"', '\n{"model"').replace('{"true"', '\n{"true"') + "\n")


if __name__ == "__main__":
    main()
