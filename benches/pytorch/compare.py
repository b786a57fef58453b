#!/usr/bin/env python3
"""peftc and PyTorch in turn: training speed and memory, method by method.

    cargo build
    python benches/pytorch/compare.py --steps 20 --repeats 3

Both train on the same texts (reviews, train split), with the same tokenizer, shapes (RoBERTa-base or
-large, random weights, f32, dropout as in the config), batch, number of threads and optimizer, for the first
steps of an epoch, each run in a process of its own; who goes first alternates. Times are medians over the steps
after the warm-up, then over the repeats. PyTorch takes batches in random order, padded to their longest text,
and then, in the same process, as many batches grouped by length (sorted within 50 batches, as transformers'
`group_by_length` does). Peaks are the resident memory of whole processes; PyTorch's is read before the second part.

PyTorch's side of each method:
  full            every parameter
  lora            peft, r = 4, alpha = 8, the six linear maps of each block
  siva            peft's LoRA from singular vectors (`pissa_niter_4`), r = 4, the same maps
  siva_key_query  the same on query and key
  last_3          the last three blocks and the head
  bitfit          all biases and the head
  lst, 9_lst      the side networks of tests/reference/make_side_traces.py, r = 8, on frozen states
  mezo            all parameters moved in place along directions drawn again from their seed

Needs torch, transformers, peft, tokenizers (see tests/reference/make_traces.py). Prints a Markdown table; with
--json FILE all figures too.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
ALL = "{attention.{query, key, value, output}, ffn.{up, down}}"
# What peftc is told: kind of the stage, adapter, rate.
METHODS = {
    "full": ("train", "full", 2e-5),
    "lora": ("train", f"lora {{ rank = 4, alpha = 8, on = {ALL} }}", 1e-3),
    "siva": ("train", f"siva {{ rank = 4, on = {ALL} }}", 1e-4),
    "siva_key_query": ("train", "siva { rank = 4, on = attention.{query, key} }", 1e-4),
    "last_3": ("train", "last_n { n = 3 }", 2e-5),
    "bitfit": ("train", "bitfit", 1e-3),
    "lst": ("train", "lst { r = 8 }", 1e-3),
    "9_lst": ("train", "k_lst { k = 9, r = 8 }", 1e-3),
    "mezo": ("mezo", "full", 1e-6),
}
SHAPES = {"base": HERE / "roberta-base" / "config.json", "large": REPO / "recipes" / "report" / "roberta-large.json"}
TEXTS = REPO / "recipes" / "reviews" / "train.tsv"
TOKENIZER = REPO / "recipes" / "reviews-mini" / "tokenizer.json"
SHIFT = 10  # ids are shifted so that none is the model's padding id
MEGABATCH = 50  # batches within which texts are sorted by length
EPSILON = 1e-3


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--steps", type=int, default=20, help="timed steps")
    p.add_argument("--warmup", type=int, default=2, help="steps before the clock starts")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--shape", choices=sorted(SHAPES), default="base")
    p.add_argument("--methods", default=",".join(METHODS), help="with commas")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--max-length", type=int, default=128)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--peftc", type=Path, default=REPO / "target" / "debug" / "peftc")
    p.add_argument("--json", type=Path, help="file for all figures")
    p.add_argument("--peer", help=argparse.SUPPRESS)  # one PyTorch run, in this process
    args = p.parse_args()
    unknown = [m for m in args.methods.split(",") if m not in METHODS]
    if unknown:
        p.error(f"no such method: {', '.join(unknown)}; there are {', '.join(METHODS)}")
    return args


# ---------------------------------------------------------------------------------------------- PyTorch


def batches(args, torch, pad, vocabulary, grouped):
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(str(TOKENIZER))
    tok.no_padding()
    tok.enable_truncation(args.max_length)
    if tok.get_vocab_size() + SHIFT > vocabulary:
        sys.exit(f"{tok.get_vocab_size()} ids do not fit a vocabulary of {vocabulary}")
    rows = [line.split("\t") for line in TEXTS.read_text(encoding="utf-8").split("\n")[1:] if line]
    encoded = [[i + SHIFT for i in e.ids] for e in tok.encode_batch([r[0] for r in rows])]
    labels = [int(r[1]) for r in rows]
    rng = random.Random(args.seed)
    order = list(range(len(rows)))
    rng.shuffle(order)
    if grouped:
        size = MEGABATCH * args.batch
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        order = [i for part in parts for i in sorted(part, key=lambda i: -len(encoded[i]))]
    chunks = [order[i : i + args.batch] for i in range(0, len(order), args.batch)]
    if grouped:
        rng.shuffle(chunks)
    for step in range(args.warmup + args.steps):
        chunk = chunks[step % len(chunks)]
        width = max(len(encoded[i]) for i in chunk)
        yield {
            "input_ids": torch.tensor([encoded[i] + [pad] * (width - len(encoded[i])) for i in chunk]),
            "attention_mask": torch.tensor([[1] * len(encoded[i]) + [0] * (width - len(encoded[i])) for i in chunk]),
            "labels": torch.tensor([labels[i] for i in chunk]),
        }


def side_parameters(torch, config, k):
    """The tensors of a side network of r = 8, named as in make_side_traces.py."""
    hidden, layers, width = config.hidden_size, config.num_hidden_layers, config.hidden_size // 8
    ffn, p = config.intermediate_size // 8, {}

    def linear(name, out, inputs):
        p[f"{name}.weight"], p[f"{name}.bias"] = 0.02 * torch.randn(out, inputs), torch.zeros(out)

    def norm(name):
        p[f"{name}.weight"], p[f"{name}.bias"] = torch.ones(width), torch.zeros(width)

    for i in range(layers + 1):
        linear(f"side.down.{i}", width, hidden)
    for i in range(layers):
        block = f"side.block.{i}"
        for role in ("query", "key", "value", "output"):
            linear(f"{block}.attention.{role}", width, width)
            if k:
                linear(f"side.cross.{i}.{role}", width, width)
        linear(f"{block}.ffn.up", ffn, width)
        linear(f"{block}.ffn.down", width, ffn)
        norm(f"{block}.attention.norm")
        norm(f"{block}.ffn.norm")
        if not k:
            p[f"side.gate.{i}"] = torch.zeros(1)
    if k:
        p["side.position"] = 0.02 * torch.randn(k, width)
    else:
        norm("side.norm")
    linear("side.up", hidden, width)
    return {name: torch.nn.Parameter(value) for name, value in p.items()}


def prepare(name, model, torch):
    """(the model, its loss of a batch, what is trained)."""
    config = model.config
    head = lambda key: key.startswith("classifier")
    loss = lambda m: lambda b: m(**b).loss
    if name in ("lora", "siva", "siva_key_query"):
        import peft

        every = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
        model = peft.get_peft_model(model, peft.LoraConfig(
            task_type="SEQ_CLS", r=4, lora_alpha=8 if name == "lora" else 4, lora_dropout=0.0,
            target_modules=["query", "key"] if name == "siva_key_query" else every,
            init_lora_weights=True if name == "lora" else "pissa_niter_4",
            modules_to_save=["classifier"],
        ))
    elif name == "last_3":
        first = config.num_hidden_layers - 3
        blocks = tuple(f"roberta.encoder.layer.{i}." for i in range(first, config.num_hidden_layers))
        for key, value in model.named_parameters():
            value.requires_grad_(head(key) or key.startswith(blocks))
    elif name == "bitfit":
        for key, value in model.named_parameters():
            value.requires_grad_(head(key) or key.endswith("bias"))
    elif name in ("lst", "9_lst"):
        sys.path.insert(0, str(REPO / "tests" / "reference"))
        import make_side_traces as side

        k = 9 if name == "9_lst" else None
        p = side_parameters(torch, config, k)
        for key, value in model.named_parameters():
            value.requires_grad_(head(key))
        heads, eps = config.num_attention_heads, config.layer_norm_eps
        every = list(range(config.num_hidden_layers))

        def of_side(b):
            mask = b["attention_mask"]
            with torch.no_grad():
                out = model.roberta(input_ids=b["input_ids"], attention_mask=mask, output_hidden_states=True)
            states = list(out.hidden_states)
            if k:
                hidden = side.k_lst(p, states, mask, heads, eps, k)
            else:
                hidden = side.lst(p, states, mask, heads, eps, every)
            return torch.nn.functional.cross_entropy(model.classifier(hidden), b["labels"])

        model.roberta.eval()
        model.classifier.train()
        return model, of_side, list(p.values()) + list(model.classifier.parameters())
    model.train()
    return model, loss(model), [q for q in model.parameters() if q.requires_grad]


def descent(torch, loss_of, trained, lr):
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.01)

    def step(batch):
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.item()

    return step


def mezo(torch, loss_of, trained, lr, seed):
    draws = random.Random(seed)

    def move(direction, scale):
        generator = torch.Generator().manual_seed(direction)
        for value in trained:
            value.data.add_(torch.randn(value.shape, generator=generator), alpha=scale)

    @torch.no_grad()
    def step(batch):
        direction = draws.getrandbits(62)
        move(direction, EPSILON)
        above = loss_of(batch).item()
        move(direction, -2 * EPSILON)
        below = loss_of(batch).item()
        move(direction, EPSILON)
        move(direction, -lr * (above - below) / (2 * EPSILON))
        return (above + below) / 2

    return step


def peer(args):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(args.seed)
    transformers.utils.logging.set_verbosity_error()
    config = AutoConfig.from_pretrained(str(SHAPES[args.shape]))
    config.num_labels = 2
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model, loss_of, trained = prepare(args.peer, model, torch)
    torch.set_num_threads(args.threads)  # what the side networks' file says of threads is for its traces
    kind, _, lr = METHODS[args.peer]
    if kind == "mezo":
        model.eval()  # both measurements of a step see the same function
        step = mezo(torch, loss_of, trained, lr, args.seed)
    else:
        step = descent(torch, loss_of, trained, lr)
    result = {}
    for grouped in (False, True):
        times = []
        for batch in list(batches(args, torch, config.pad_token_id, config.vocab_size, grouped)):
            begun = time.perf_counter()
            loss = step(batch)
            times.append(time.perf_counter() - begun)
        rate = args.batch / statistics.median(times[args.warmup :])
        result["grouped" if grouped else "random"] = rate
        if not grouped:
            result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            result["loss"] = loss
    print(json.dumps(result))


# ------------------------------------------------------------------------------------------------ driver


def run_peer(args, name):
    own = ["--steps", "--warmup", "--shape", "--batch", "--max-length", "--threads", "--seed"]
    values = [getattr(args, key[2:].replace("-", "_")) for key in own]
    command = [sys.executable, __file__, "--peer", name]
    for key, value in zip(own, values):
        command += [key, str(value)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"PyTorch, {name}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_peftc(args, name):
    kind, adapter, lr = METHODS[name]
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        (tmp / "model").mkdir()
        (tmp / "model" / "config.json").write_bytes(SHAPES[args.shape].read_bytes())
        optimizer = "" if kind == "mezo" else "  optimizer = adamw { weight_decay = 0.01 }\n"
        (tmp / "r.peft").write_text(
            f'model m = local "model" {{ init = random, tokenizer = "{TOKENIZER.parent}" }}\n'
            f'data d = local "{TEXTS.parent}" {{ text = sentence, label = label }}\n'
            f"stage s = {kind} {{\n  model = m\n  data = d.train\n  adapter = {adapter}\n{optimizer}"
            f"  lr = {lr}\n  steps = {args.warmup + args.steps}\n  batch = {args.batch}\n"
            f"  max_length = {args.max_length}\n  seed = {args.seed}\n}}\n", encoding="utf-8")
        command = [str(args.peftc), "run", "--quiet", "--json", "--offline", "--threads", str(args.threads), "r.peft"]
        with (tmp / "err").open("w+") as err:
            process = subprocess.Popen(command, cwd=tmp, stdout=subprocess.DEVNULL, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                err.seek(0)
                sys.exit(f"peftc, {name}:\n{err.read()}")
        lines = (tmp / ".peftc" / "runs" / "r" / "s" / "metrics.jsonl").read_text().splitlines()
    # The logged rate is that of all steps so far.
    rows = [json.loads(line) for line in lines]
    ends = [0.0] + [args.batch * row["step"] / row["samples_per_s"] for row in rows]
    times = [b - a for a, b in zip(ends, ends[1:])][args.warmup :]
    return {"rate": args.batch / statistics.median(times), "peak": usage.ru_maxrss * 1024, "loss": rows[-1]["loss"]}


def main():
    args = arguments()
    if args.peer:
        return peer(args)
    if not args.peftc.is_file():
        sys.exit(f"{args.peftc} is not there; `cargo build` makes it")
    figures = {}
    for repeat in range(args.repeats):
        for number, name in enumerate(args.methods.split(",")):
            pair = [("peftc", run_peftc), ("pytorch", run_peer)]
            if (repeat + number) % 2:
                pair.reverse()
            for who, run in pair:
                print(f"{repeat + 1}/{args.repeats} {name}: {who}", file=sys.stderr, flush=True)
                figures.setdefault(name, {}).setdefault(who, []).append(run(args, name))
    if args.json:
        kept = {"shape": args.shape, "batch": args.batch, "threads": args.threads, "steps": args.steps}
        args.json.write_text(json.dumps({**kept, "runs": figures}, indent=1), encoding="utf-8")
    print(f"RoBERTa-{args.shape}, batch {args.batch}, {args.threads} threads, "
          f"{args.steps} steps, {args.repeats} repeats\n")
    print("| method | peftc, samples/s | PyTorch | ratio | PyTorch, grouped by length | ratio | peftc, MiB | PyTorch, MiB | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, runs in figures.items():
        middle = lambda who, key: statistics.median(run[key] for run in runs[who])
        own, plain, grouped = middle("peftc", "rate"), middle("pytorch", "random"), middle("pytorch", "grouped")
        mib = [middle(who, "peak") / 2**20 for who in ("peftc", "pytorch")]
        print(f"| {name} | {own:.1f} | {plain:.1f} | {own / plain:.2f} | {grouped:.1f} | {own / grouped:.2f} "
              f"| {mib[0]:,.0f} | {mib[1]:,.0f} | {mib[1] / mib[0]:.2f} |")


if __name__ == "__main__":
    main()
