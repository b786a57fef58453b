#!/usr/bin/env python3
"""Write preference.json: curves of preference optimisation on tiny decoders, with TRL's formulas over transformers.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_preference_traces.py

The weights are those of make_decoder_traces.py. The losses are those of TRL's `DPOTrainer` (`dpo_loss`), of its `CPOTrainer` with
`loss_type="simpo"` and `cpo_alpha=0`, of its `ORPOTrainer` (`odds_ratio_loss`; the likelihood that is learned is the completion's, as in
the paper), of its `CPOTrainer` with other losses (the likelihood is a mean over pairs, not over the tokens of a batch), and of its `KTOTrainer`
(`kto_loss`), written out here: log-probabilities are sums over the tokens of a completion and the token that ends it (means for `ipo`, `simpo`
and `orpo`), and the reference is the model before the first step. The mismatched answers of `kto` are those of the next rows.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import json
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from make_decoder_traces import CASES, fnv, mixed, value

HERE = Path(__file__).resolve().parent
PAIRS, BATCH, STEPS, BETA, GAMMA = 16, 4, 20, 0.3, 0.5
# Name, model, loss, label_smoothing, reference_free, learning rate.
RUNS = [
    ("sigmoid", "llama", "sigmoid", 0.0, False, 0.2),
    ("smoothed", "gemma2", "sigmoid", 0.1, False, 0.02),
    ("robust", "gpt2", "robust", 0.2, False, 0.1),
    ("hinge", "qwen3", "hinge", 0.0, False, 0.1),
    ("ipo", "llama_tied", "ipo", 0.0, False, 0.05),
    ("free", "neox", "sigmoid", 0.0, True, 0.1),
    ("simpo", "llama", "simpo", 0.1, True, 0.2),
    ("orpo", "qwen3", "orpo", 0.0, True, 0.1),
    ("cpo", "llama", "cpo", 0.1, True, 0.1),
    ("cpo_simpo", "qwen3", "cpo_simpo", 0.0, True, 0.1),
]
ALPHA = 0.5
# Name, model, weights of wanted answers and of others, learning rate, whether the answers are those of pairs.
UNPAIRED = [
    ("kto", "llama", 1.0, 1.0, 0.5, False),
    ("kto_weighted", "gpt2", 1.5, 0.5, 0.3, False),
    ("kto_paired", "llama", 1.0, 1.0, 0.5, True),
]


def pairs():
    """Words 2 to 49: prompts of 1 to 6, answers of 1 to 8."""
    draws = mixed(fnv("pairs"), PAIRS * 25).reshape(PAIRS, 25)
    words = lambda row, at, most: [int(2 + w % 48) for w in row[at + 1 : at + 2 + int(row[at] % most)]]
    return [dict(prompt=words(row, 0, 6), chosen=words(row, 8, 8), rejected=words(row, 17, 7)) for row in draws]


def logp(model, pair, answer, mean):
    completion = pair[answer] + [1]
    ids = torch.tensor([pair["prompt"] + completion])
    logits = model(input_ids=ids, use_cache=False).logits.float()
    each = torch.gather(logits[0, :-1].log_softmax(-1), 1, ids[0, 1:, None])[:, 0]
    each = each[-len(completion) :]
    return each.mean() if mean else each.sum()


def both(model, batch, mean):
    of = lambda answer: torch.stack([logp(model, pair, answer, mean) for pair in batch])
    return of("chosen"), of("rejected")


def dpo(kind, smoothing, policy, reference, means=None):
    """TRL's `dpo_loss`; and the rewards."""
    (chosen, rejected), (ref_chosen, ref_rejected) = policy, reference
    logits = (chosen - rejected) - (ref_chosen - ref_rejected)
    if kind in ("cpo", "cpo_simpo"):
        losses = -F.logsigmoid(BETA * logits) * (1 - smoothing) - F.logsigmoid(-BETA * logits) * smoothing
        if kind == "cpo_simpo":
            losses = -F.logsigmoid(BETA * logits - GAMMA)
        losses = losses - ALPHA * means
    elif kind == "sigmoid":
        losses = -F.logsigmoid(BETA * logits) * (1 - smoothing) - F.logsigmoid(-BETA * logits) * smoothing
    elif kind == "robust":
        losses = (-F.logsigmoid(BETA * logits) * (1 - smoothing) + F.logsigmoid(-BETA * logits) * smoothing) / (1 - 2 * smoothing)
    elif kind == "hinge":
        losses = torch.relu(1 - BETA * logits)
    elif kind == "simpo":
        logits = logits - GAMMA / BETA
        losses = -F.logsigmoid(BETA * logits) * (1 - smoothing) - F.logsigmoid(-BETA * logits) * smoothing
    elif kind == "orpo":
        odds = logits - (torch.log1p(-torch.exp(chosen)) - torch.log1p(-torch.exp(rejected)))
        losses = -chosen - BETA * F.logsigmoid(odds)
    else:
        losses = (logits - 1 / (2 * BETA)) ** 2
    return losses, BETA * (chosen - ref_chosen).detach(), BETA * (rejected - ref_rejected).detach()


def answers(rows):
    """An answer of each pair: the chosen one or the other, and whether it is wanted."""
    own = lambda i, row: dict(prompt=row["prompt"], completion=row["chosen" if i % 2 else "rejected"], label=i % 3 != 0)
    return [own(i, row) for i, row in enumerate(rows)]


def kto(rows, cases, name, of, desirable, undesirable, rate, paired):
    """TRL's `kto_loss`, where each prompt's mismatched answer is that of the next row."""
    kind, keys = cases[of]
    config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            tensor.copy_(value(path, tensor.shape))
    if paired:
        pairs = list(zip(rows, rows[1:] + rows[:1]))
        rows = [dict(prompt=row["prompt"], completion=row[side], other=following[side], label=side == "chosen")
                for row, following in pairs for side in ("chosen", "rejected")]
    else:
        rows = answers(rows)
        for i, row in enumerate(rows):
            row["other"] = rows[(i + 1) % len(rows)]["completion"]
    both = lambda batch: [torch.stack([logp(model, row, key, False) for row in batch]) for key in ("completion", "other")]
    with torch.no_grad():
        reference = both(rows)

    def losses(at, end):
        own, other = [policy - ref[at:end] for policy, ref in zip(both(rows[at:end]), reference)]
        kl = other.mean().detach().clamp(min=0)
        wanted = torch.tensor([row["label"] for row in rows[at:end]])
        chosen, rejected = 1 - F.sigmoid(BETA * (own[wanted] - kl)), 1 - F.sigmoid(BETA * (kl - own[~wanted]))
        rewards = BETA * own.detach()
        return torch.cat((desirable * chosen, undesirable * rejected)), rewards[wanted], rewards[~wanted], kl

    curve, optimizer = [], torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(STEPS):
        at = step * BATCH % len(rows)
        optimizer.zero_grad()
        loss = losses(at, at + BATCH)[0].mean()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    with torch.no_grad():
        all, chosen, rejected, kl = losses(0, len(rows))
    after = dict(loss=all.mean().item(), reward_chosen=chosen.mean().item(), reward_rejected=rejected.mean().item(),
                 reward_margin=(chosen.mean() - rejected.mean()).item())
    print(f"{name:10} {curve[0]:.5f} {curve[-1]:.5f} {after} {kl.item()}")
    return dict(name=name, model=of, paired=paired, desirable=desirable, undesirable=undesirable, rate=rate, curve=curve, after=after, kl=kl.item())


def main():
    torch.set_num_threads(1)
    rows, made = pairs(), []
    cases = {name: (kind, keys) for name, kind, keys in CASES}
    for name, of, loss, smoothing, free, rate in RUNS:
        kind, keys = cases[of]
        config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for path, tensor in model.named_parameters():
                tensor.copy_(value(path, tensor.shape))
            mean = loss in ("ipo", "simpo", "orpo", "cpo_simpo")
            zeros = torch.zeros(PAIRS)
            reference = (zeros, zeros) if free else both(model, rows, mean)
        curve = []
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for step in range(STEPS):
            at = step * BATCH % PAIRS
            optimizer.zero_grad()
            own = [list[at : at + BATCH] for list in reference]
            batch = rows[at : at + BATCH]
            losses, *_ = dpo(loss, smoothing, both(model, batch, mean), own, both(model, batch, True)[0])
            losses.mean().backward()
            optimizer.step()
            curve.append(losses.mean().item())
        with torch.no_grad():
            losses, chosen, rejected = dpo(loss, smoothing, both(model, rows, mean), reference, both(model, rows, True)[0])
        after = dict(
            loss=losses.mean().item(), reward_chosen=chosen.mean().item(), reward_rejected=rejected.mean().item(),
            reward_margin=(chosen - rejected).mean().item(), reward_accuracy=(chosen > rejected).float().mean().item(),
        )
        made.append(dict(name=name, model=of, loss=loss, label_smoothing=smoothing, reference_free=free, rate=rate,
                         curve=curve, after=after))
        print(f"{name:10} {curve[0]:.5f} {curve[-1]:.5f} {after}")
    unpaired = [kto(rows, cases, *run) for run in UNPAIRED]
    out = dict(beta=BETA, gamma=GAMMA, alpha=ALPHA, batch=BATCH, pairs=rows, runs=made, answers=answers(rows), unpaired=unpaired)
    text = json.dumps(out, separators=(",", ":"))
    (HERE / "preference.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
