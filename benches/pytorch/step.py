#!/usr/bin/env python3
"""Training speed and memory of the PyTorch peer: transformers + peft on the CPU.

    python benches/pytorch/step.py --method lora --steps 10 --json

Starts from a bare `config.json` (random weights; default: RoBERTa-base's shape beside
this script), reads the reviews train split, and times whole training steps: forward,
backward, AdamW, in batches of random order padded to their longest text, dropout as in
the config, f32.  Tokenising and padding happen before the clock starts.  Any WordPiece
or BPE `tokenizer.json` will do; its ids are shifted by 10 so that none is the model's
padding id.

  --method full   every parameter is trained
  --method lora   peft LoRA r=4, alpha=8 on the six linears of each block, plus the head

Printed: median samples a second over the timed steps (median of batch / step time) and
the peak resident memory of the process.  With --json one JSON object:

    {"method", "steps", "warmup", "batch", "threads", "parameters", "trainable",
     "samples_per_s", "step_s": [...], "padded_lengths": [...], "peak_rss_mib",
     "rss_before_model_mib", "loss_last", "versions": {...}}

Needs torch, transformers, peft, tokenizers (see tests/reference/make_traces.py).
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
SHIFT = 10


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--method", choices=["full", "lora"], required=True)
    p.add_argument("--steps", type=int, default=10, help="timed steps")
    p.add_argument("--warmup", type=int, default=2, help="steps before the clock starts")
    p.add_argument("--model-dir", type=Path, default=HERE / "roberta-base",
                   help="folder with config.json, or that file")
    p.add_argument("--data", type=Path, default=REPO / "recipes" / "reviews" / "train.tsv")
    p.add_argument("--tokenizer", type=Path,
                   default=REPO / "recipes" / "reviews-mini" / "tokenizer.json")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--max-length", type=int, default=128)
    p.add_argument("--lr", type=float, help="default: 2e-5 (full), 1e-3 (lora)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", action="store_true")
    return p.parse_args()


ARGS = arguments()
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = str(ARGS.threads)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import peft
import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification

TARGETS = {
    "bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
}
TARGETS["roberta"] = TARGETS["bert"]
HEAD = {
    "bert": ["pooler", "classifier"],
    "roberta": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
}


def peak_rss_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_examples(path, tokenizer, max_length, vocab):
    """(ids, label) of every row, ids shifted past the special ones."""
    tok = Tokenizer.from_file(str(tokenizer))
    tok.no_padding()
    tok.enable_truncation(max_length)
    if tok.get_vocab_size() + SHIFT > vocab:
        sys.exit(f"{tokenizer}: {tok.get_vocab_size()} ids do not fit a vocabulary of {vocab}")
    lines = path.read_text(encoding="utf-8").split("\n")[1:]
    rows = [line.split("\t") for line in lines if line]
    encoded = tok.encode_batch([r[0] for r in rows])
    return [([i + SHIFT for i in e.ids], int(r[1])) for e, r in zip(encoded, rows)]


def make_batches(examples, count, batch, pad, seed):
    """`count` batches in random order (reshuffled every epoch), padded to the longest."""
    rng, order, out = random.Random(seed), [], []
    for _ in range(count):
        if len(order) < batch:
            order = list(range(len(examples)))
            rng.shuffle(order)
        chunk = [examples[i] for i in order[:batch]]
        order = order[batch:]
        width = max(len(ids) for ids, _ in chunk)
        out.append(
            {
                "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in chunk]),
                "attention_mask": torch.tensor(
                    [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in chunk]
                ),
                "labels": torch.tensor([label for _, label in chunk]),
            }
        )
    return out


def make_model(config, method):
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    if method == "lora":
        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                task_type="SEQ_CLS",
                r=4,
                lora_alpha=8,
                lora_dropout=0.0,
                target_modules=TARGETS[config.model_type],
                modules_to_save=HEAD[config.model_type],
            ),
        )
    return model.train()


def main():
    args = ARGS
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    transformers.utils.logging.set_verbosity_error()
    folder = args.model_dir.parent if args.model_dir.name == "config.json" else args.model_dir
    config = AutoConfig.from_pretrained(str(folder))
    config.num_labels = 2

    examples = read_examples(args.data, args.tokenizer, args.max_length, config.vocab_size)
    total = args.warmup + args.steps
    batches = make_batches(examples, total, args.batch, config.pad_token_id, args.seed)
    before = peak_rss_mib()
    model = make_model(config, args.method)
    trained = [p for p in model.parameters() if p.requires_grad]
    lr = args.lr or {"full": 2e-5, "lora": 1e-3}[args.method]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.01)

    times, loss = [], None
    for b in batches:
        start = time.perf_counter()
        loss = model(**b).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    timed = times[args.warmup :]
    result = {
        "method": args.method,
        "steps": args.steps,
        "warmup": args.warmup,
        "batch": args.batch,
        "threads": args.threads,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in trained),
        "samples_per_s": round(statistics.median(args.batch / t for t in timed), 3),
        "step_s": [round(t, 4) for t in timed],
        "padded_lengths": [b["input_ids"].shape[1] for b in batches[args.warmup :]],
        "peak_rss_mib": round(peak_rss_mib(), 1),
        "rss_before_model_mib": round(before, 1),
        "loss_last": round(loss.item(), 5),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.method}: {result['samples_per_s']} samples/s (median of {args.steps} steps, "
              f"batch {args.batch}, {args.threads} threads), peak {result['peak_rss_mib']} MiB, "
              f"{result['trainable']} of {result['parameters']} parameters trained")


if __name__ == "__main__":
    main()
