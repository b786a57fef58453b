#!/usr/bin/env python3
"""Write extract.json: parts of a context as answers, as the classes …ForQuestionAnswering of transformers have them.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_extract_traces.py

`curves`: the models of make_traces.py with a head whose weights are a formula (`make_choose_traces.head`). A context is three reviews, the answer a few
words of the second, the question others of it; every seventh question has no answer, every fifth two. Windows, labels and the best answers are those of
examples/pytorch/question-answering (`run_qa.py`, `utils_qa.py`), transcribed below, with two changes: an answer in a window's last token is learned
as such, where the script goes on to the padding; and padding has no share in the loss. EM and F1 are those of SQuAD's evaluate-v2.0.py, transcribed too.
`models`: tiny models of other families, whose weights are a function of their names; a text's tokens are its words.
"""

import collections
import json
import os
import re
import string

import make_traces as base  # sets the number of threads before torch is loaded

import numpy as np
import torch
from make_choose_traces import EPSILON, head
from make_decoder_traces import fnv, mixed, value
from make_encoder_traces import CASES
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoTokenizer

RUNS = ["bert-tiny", "roberta-tiny", "distilbert-tiny"]
MODELS = ["electra", "albert", "modernbert", "modernbert_biases", "xlm_roberta_xl_silu", "mpnet", "deberta_v3", "deberta_own_maps"]
LR, LENGTH, STRIDE, SCORED = 2e-4, 40, 8, range(160, 200)
N_BEST, LONGEST, THRESHOLD = 20, 6, -0.05


def questions(rows):
    own = [words for words in (text.split(" ") for text, _ in rows) if len(words) >= 12]
    made = []
    for i in range(200):
        a, b, c = (own[(i + k) % len(own)] for k in range(3))
        before = len(" ".join(a)) + 1
        answers = [(" ".join(b[2 : 3 + i % 3]), before + len(" ".join(b[:2])) + 1)]
        if i % 5 == 0:
            answers.append((" ".join(a[:2]), 0))
        if i % 7 == 3:
            answers = []
        made.append({
            "question": " " + " ".join(b[5:9]), "context": " ".join(a + b + c),
            "answers": {"text": [t for t, _ in answers], "answer_start": [s for _, s in answers]},
        })
    return made


def windows(tok, rows):
    """`prepare_train_features`, of `run_qa.py`."""
    made = []
    for number, row in enumerate(rows):
        encoded = tok(
            row["question"].lstrip(), row["context"], truncation="only_second", max_length=LENGTH, stride=STRIDE, return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for i, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"])):
            of = encoded.sequence_ids(i)
            first, last = of.index(1), len(of) - 1 - of[::-1].index(1)
            start = end = 0
            if row["answers"]["text"]:
                begin = row["answers"]["answer_start"][0]
                until = begin + len(row["answers"]["text"][0])
                if offsets[first][0] <= begin and offsets[last][1] >= until:
                    start, end = first, last
                    while start <= last and offsets[start][0] <= begin:
                        start += 1
                    start -= 1
                    while offsets[end][1] >= until:
                        end -= 1
                    end += 1
            made.append(dict(
                row=number, ids=ids, segments=encoded["token_type_ids"][i] if "token_type_ids" in encoded else None, start=start, end=end,
                offsets=[o if s == 1 else None for o, s in zip(offsets, of)],
            ))
    return made


def logits(model, chunk):
    most = max(len(w["ids"]) for w in chunk)
    fill = lambda key, by: torch.tensor([w[key] + [by] * (most - len(w["ids"])) for w in chunk])
    mask = torch.tensor([[1] * len(w["ids"]) + [0] * (most - len(w["ids"])) for w in chunk])
    more = {} if chunk[0]["segments"] is None else {"token_type_ids": fill("segments", 0)}
    pad = getattr(model.config, "pad_token_id", None) or 0
    made = model(input_ids=fill("ids", pad), attention_mask=mask, **more)
    return [x.masked_fill(mask == 0, float("-inf")) for x in (made.start_logits, made.end_logits)]


def loss_of(model, chunk):
    own = logits(model, chunk)
    each = [F.cross_entropy(x, torch.tensor([w[key] for w in chunk])) for x, key in zip(own, ("start", "end"))]
    return (each[0] + each[1]) / 2


def best(row, own, scores, null):
    """`postprocess_qa_predictions` of `utils_qa.py`, of one row."""
    least, prelim = None, []
    for w, (start, end) in zip(own, scores):
        score = start[0] + end[0]
        if least is None or least["score"] > score:
            least = {"offsets": (0, 0), "score": score}
        top = lambda x: np.argsort(x)[-1 : -N_BEST - 1 : -1].tolist()
        for s in top(start):
            for e in top(end):
                if w["offsets"][s] is None or w["offsets"][e] is None or e < s or e - s + 1 > LONGEST:
                    continue
                prelim.append({"offsets": (w["offsets"][s][0], w["offsets"][e][1]), "score": start[s] + end[e]})
    if null:
        prelim.append(least)
    all = sorted(prelim, key=lambda x: x["score"], reverse=True)[:N_BEST]
    if null and not any(p["offsets"] == (0, 0) for p in all):
        all.append(least)
    for p in all:
        p["text"] = row["context"][p["offsets"][0] : p["offsets"][1]]
    scored = np.array([p["score"] for p in all])
    shares = np.exp(scored - np.max(scored))
    shares = shares / shares.sum()
    if not null:
        return all[0]["text"], float(shares[0]), None
    i = next(i for i, p in enumerate(all) if p["text"])
    by = least["score"] - all[i]["score"]
    if by > THRESHOLD:
        i = next(i for i, p in enumerate(all) if not p["text"])
    return all[i]["text"], float(shares[i]), float(by)


def normalized(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def official(rows, said):
    """(exact, F1) of evaluate-v2.0.py, as shares."""
    exact, f1 = [], []
    for row, text in zip(rows, said):
        gold = [t for t in row["answers"]["text"] if normalized(t)] or [""]
        exact.append(max(int(normalized(g) == normalized(text)) for g in gold))

        def own(g):
            a, b = normalized(g).split(), normalized(text).split()
            if not a or not b:
                return int(a == b)
            same = sum((collections.Counter(a) & collections.Counter(b)).values())
            if same == 0:
                return 0
            precision, recall = same / len(b), same / len(a)
            return 2 * precision * recall / (precision + recall)

        f1.append(max(own(g) for g in gold))
    return sum(exact) / len(rows), sum(f1) / len(rows)


# Predictions with right answers, of which nothing may be left without articles and marks.
PAIRS = [
    ("The Cat!", ["cat"]), ("a  cat, an-other", ["cat another", "the cat"]), ("", []), ("", ["x"]), ("the", ["a", "the"]), ("cat", ["the", "..."]), ("x", []),
    ("theatre of the\u00a0absurd", ["Theatre of absurd", "theatre"]), ("5,000 \u00b0C", ["5000 \u00b0c"]), ("\u00c9cole", ["\u00e9cole normale", "ecole"]),
    ("the the cat sat", ["cat cat sat"]), ("it_the_x", ["it_the_x"]), ("anthem a", ["them"]),
]


def train(name, data, dtype):
    tok = AutoTokenizer.from_pretrained(name)
    model = AutoModelForQuestionAnswering.from_pretrained(name, dtype=dtype)
    fill = lambda tensor, at: tensor.copy_(torch.tensor([head(at + i) for i in range(tensor.numel())], dtype=torch.float32).view(tensor.shape))
    with torch.no_grad():
        fill(model.qa_outputs.weight, 0)
        fill(model.qa_outputs.bias, 1000)
    base.no_dropout(model)
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    trained = [(k, p) for k, p in model.named_parameters() if p.requires_grad]
    plain = [p for k, p in trained if k.endswith("bias") or id(p) in norms]
    decay = [p for k, p in trained if not (k.endswith("bias") or id(p) in norms)]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=LR, betas=(0.9, 0.999), eps=EPSILON, foreach=False,
    )
    all = windows(tok, data[: SCORED.start])
    losses = []
    for step in range(base.STEPS):
        loss = loss_of(model, all[16 * step : 16 * step + 16])
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    model.eval()
    rows = [data[i] for i in SCORED]
    own = windows(tok, rows)
    with torch.no_grad():
        sums = [loss_of(model, [w]).item() for w in own]
        scores = [[x[0].numpy() for x in logits(model, [w])] for w in own]
    scored = {"loss": sum(sums) / len(sums), "windows": len(own)}
    for key, null in [("plain", False), ("null", True)]:
        each = []
        for number, row in enumerate(rows):
            at = [i for i, w in enumerate(own) if w["row"] == number]
            each.append(best(row, [own[i] for i in at], [scores[i] for i in at], null))
        exact, f1 = official(rows, [text for text, *_ in each])
        scored[key] = {"answers": each, "exact": exact, "f1": f1}
    return losses, scored


def words():
    """Questions of 1 to 5 words, contexts of 6 to 20, answers of 1 to 3; words 2 to 49."""
    draws = mixed(fnv("parts"), 24 * 40).reshape(24, 40)
    made = []
    for row in draws:
        word = lambda at, n: [int(2 + w % 48) for w in row[at : at + n]]
        question, context = word(1, 1 + int(row[0] % 5)), word(7, 6 + int(row[6] % 15))
        start = int(row[30] % len(context))
        made.append((question, context, start, min(len(context), start + 1 + int(row[31] % 3)) - 1))
    return made


def scored(kind, keys, data):
    config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
    config._attn_implementation = "eager"
    model = AutoModelForQuestionAnswering.from_config(config).float().eval()
    sums, answers = [], []
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            tensor.copy_(value(path.lower(), tensor.shape))
        for question, context, start, end in data:
            n = len(question)
            segments = None if kind in ("modernbert", "mpnet") else [0] * n + [1] * len(context)
            own = dict(ids=question + context, segments=segments, start=n + start, end=n + end)
            sums.append(loss_of(model, [own]).item())
            first, last = (x[0].numpy() for x in logits(model, [own]))
            pairs = [(first[s] + last[e], s, e) for s in range(n, n + len(context)) for e in range(s, n + len(context))]
            score, s, e = max(pairs)
            assert score - sorted(pairs)[-2][0] > 2e-5
            answers.append([s - n, e - n])
    shapes = {path: list(tensor.shape) for path, tensor in model.named_parameters()}
    return dict(loss=sum(sums) / len(sums), answers=answers, tensors=shapes)


def main():
    torch.set_num_threads(1)
    rows = base.read_rows(base.HERE.parent.parent / "recipes" / "reviews" / "train.tsv")
    data, curves, models = questions(rows), [], []
    os.chdir(base.HERE)
    for name in RUNS:
        losses, own = train(name, data, torch.float32)
        double, _ = train(name, data, torch.float64)
        off = max(abs(a - b) for a, b in zip(losses, double))
        print(f"{name}: {losses[0]:.4f} -> {losses[-1]:.4f}, f32 off by {off:.1e}", own["loss"], [(own[k]["exact"], own[k]["f1"]) for k in ("plain", "null")])
        curves.append({"model": name, "lr": LR, "loss": losses, "scored": own})
    known = {name: (kind, keys) for name, kind, keys in CASES}
    for name in MODELS:
        kind, keys = known[name]
        keys = {**keys, "num_labels": 2}
        own = scored(kind, keys, words())
        print(f"{name}: {own['loss']}")
        models.append(dict(name=name, config={"model_type": kind, "architectures": ["SomeForQuestionAnswering"], **keys}, **own))
    pairs = []
    for said, right in PAIRS:
        exact, f1 = official([{"answers": {"text": right}}], [said])
        pairs.append(dict(said=said, right=right, exact=exact, f1=f1))
    text = json.dumps(dict(threshold=THRESHOLD, pairs=pairs, curves=curves, words=words(), models=models), separators=(",", ":"))
    (base.HERE / "extract.json").write_text(text.replace('{"model"', '\n{"model"').replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
