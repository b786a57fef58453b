#!/usr/bin/env python3
"""peftc and PyTorch in turn on language models: tokens/s and memory of training, row by row.

    cargo build
    python benches/pytorch/language.py --shape smollm2-135m --steps 4

Both train models of random weights on the same lengths (log-normal, about 180 tokens in the mean, 16 to 512), batches of
four, the last 40 % of each text learned, AdamW, norms clipped. Each run has a process of its own. PyTorch pads to the
longest text of a batch; peftc packs. The rate counts tokens of texts, without padding: the median over the steps behind
the first. LoRA has rank 8 on all seven linear maps of a block, in PyTorch by peft.

Rows: full, lora, lora-bf16 (products in bf16; PyTorch's weights, too), lora-nf4 and lora-q8_0 (peftc alone, beside
PyTorch's LoRA in f32). A row with `+` behind it says `recompute = true` in peftc and checkpoints in PyTorch; one with
`@700MiB` is run by peftc under that budget with `fit = auto`, beside the same row of PyTorch as without.

Needs torch, transformers, peft. Prints Markdown; --json FILE keeps the figures and adds to those that are there.
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

import own

REPO = Path(__file__).resolve().parent.parent.parent
SHAPES = {
    "smollm2-135m": dict(model_type="llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                         num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192, rope_theta=100000.0,
                         tie_word_embeddings=True, rms_norm_eps=1e-5),
    "qwen2.5-0.5b": dict(model_type="qwen2", vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                         num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=32768, rope_theta=1000000.0,
                         tie_word_embeddings=True, rms_norm_eps=1e-6),
    "llama3.2-1b": dict(model_type="llama", vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131072, rope_theta=500000.0,
                        tie_word_embeddings=True, rms_norm_eps=1e-5),
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = "lora { rank = 8, alpha = 16, on = { attention.*, ffn.* } }"
# row: what peftc's model says, its adapter, and the row of PyTorch that it stands beside
ROWS = {
    "full": ("", "full", "full"),
    "lora": ("", LORA, "lora"),
    "lora-bf16": (", precision = bf16", LORA, "lora"),
    "lora-nf4": (", dtype = nf4", LORA, "lora"),
    "lora-q8_0": (", dtype = q8_0", LORA, "lora"),
}
BATCH = 4


def lengths(count):
    draw = random.Random(0)
    return [max(16, min(512, int(draw.lognormvariate(5.0, 0.6)))) for _ in range(count)]


def learned(length):
    """From which token on a text is learned."""
    return int(length * 0.6)


def folder(tmp, shape, steps):
    """A model's config with a tokenizer that has a word for each id, and texts of such words."""
    config = SHAPES[shape]
    model, data = tmp / "model", tmp / "data"
    model.mkdir(), data.mkdir()
    (model / "config.json").write_text(json.dumps({**config, "eos_token_id": 1}))
    special = [dict(id=i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
               for i, text in enumerate(["<unk>", "<end>"])]
    words = {"<unk>": 0, "<end>": 1, **{f"w{i}": i for i in range(2, config["vocab_size"])}}
    (model / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None, decoder=None, added_tokens=special,
        pre_tokenizer={"type": "WhitespaceSplit"}, model=dict(type="WordLevel", unk_token="<unk>", vocab=words))))
    (model / "tokenizer_config.json").write_text(
        json.dumps(dict(tokenizer_class="PreTrainedTokenizerFast", eos_token="<end>", unk_token="<unk>")))
    draw = random.Random(1)
    with (data / "train.jsonl").open("w") as file:
        for length in lengths(BATCH * (steps + 1)):
            text = [f"w{draw.randrange(2, config['vocab_size'])}" for _ in range(length - 1)]
            cut = learned(length)
            file.write(json.dumps({"prompt": " ".join(text[:cut]), "completion": " " + " ".join(text[cut:])}) + "\n")


def plain(row):
    """The name of a row in `ROWS`."""
    return row.partition("@")[0].removesuffix("+")


def peftc(args, shape, row):
    keys, adapter, _ = ROWS[plain(row)]
    again = ", recompute = true" if row.endswith("+") else ""
    budget = row.partition("@")[2]
    again += ", fit = auto" if budget else ""
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        folder(tmp, shape, args.steps)
        (tmp / "r.peft").write_text(
            f'model m = local "model" {{ init = random{keys} }}\n'
            'data d = local "data" { prompt = prompt, completion = completion }\n'
            f"stage s = train {{ model = m, data = d.train, objective = causal_lm, adapter = {adapter}, lr = 1e-4,\n"
            f"  steps = {args.steps + 1}, batch = {BATCH}, clip = 1, shuffle = false{again} }}\n")
        command = [str(args.peftc), "run", "--quiet", "--offline", "--threads", str(args.threads), "r.peft"]
        command += ["--budget", budget] if budget else []
        with (tmp / "err").open("w+") as err:
            process = subprocess.Popen(command, cwd=tmp, stdout=subprocess.DEVNULL, stderr=err)
            usage = own.wait(process, None)
            if process.returncode:
                err.seek(0)
                raise own.Failed(err.read())
        run = tmp / ".peftc" / "runs" / "r"
        logged = [json.loads(line) for line in (run / "s" / "metrics.jsonl").read_text().splitlines()]
        stage = json.loads((run / "result.json").read_text())["stages"][0]
    ends = [0.0] + [BATCH * step["step"] / step["samples_per_s"] for step in logged]
    tokens = [sum(part) for part in zip(*[iter(lengths(BATCH * (args.steps + 1)))] * BATCH)]
    rates = [n / (end - start) for n, start, end in zip(tokens, ends, ends[1:])][1:]
    return {"rate": statistics.median(rates), "process": usage.ru_maxrss * 1024, "measured": stage["measured_peak_bytes"],
            "estimated": stage["estimated_peak_bytes"]}


def pytorch(args, shape, row):
    """PyTorch's side, in this process."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    config = dict(SHAPES[shape])
    config = AutoConfig.for_model(config.pop("model_type"), **config)
    model = AutoModelForCausalLM.from_config(config)
    name = plain(row)
    if name.endswith("bf16"):
        model = model.to(torch.bfloat16)
    if name.startswith("lora"):
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=LINEAR))
    if row.endswith("+"):
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    rates = []
    for part in zip(*[iter(lengths(BATCH * (args.steps + 1)))] * BATCH):
        ids = torch.zeros(BATCH, max(part), dtype=torch.long)
        mask, labels = ids.clone(), torch.full_like(ids, -100)
        for i, n in enumerate(part):
            ids[i, :n], mask[i, :n] = torch.randint(2, config.vocab_size, (n,)), 1
            labels[i, learned(n):n] = ids[i, learned(n):n]
        start = time.perf_counter()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rates.append(sum(part) / (time.perf_counter() - start))
    return {"rate": statistics.median(rates[1:]), "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main():
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--shape", default="smollm2-135m", choices=SHAPES)
    asked.add_argument("--rows", default=",".join(ROWS), help="with commas")
    asked.add_argument("--peer-rows", help="PyTorch's rows, with commas; those beside the rows if not given, none if empty")
    asked.add_argument("--steps", type=int, default=4, help="timed steps")
    asked.add_argument("--threads", type=int, default=os.cpu_count())
    asked.add_argument("--peftc", type=Path, default=REPO / "target" / "debug" / "peftc")
    asked.add_argument("--json", type=Path)
    asked.add_argument("--one", help=argparse.SUPPRESS)
    args = asked.parse_args()
    args.peftc = args.peftc.resolve()
    if args.one:
        print(json.dumps(pytorch(args, args.shape, args.one)))
        return
    rows = args.rows.split(",")
    peers = args.peer_rows.split(",") if args.peer_rows is not None else list(dict.fromkeys(ROWS[plain(r)][2] for r in rows))
    kept = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    for who, names in (("pytorch", peers), ("peftc", rows)):
        for name in filter(None, names):
            if who == "peftc":
                figures = peftc(args, args.shape, name)
            else:
                command = [sys.executable, __file__, "--one", name, "--shape", args.shape, "--steps", str(args.steps), "--threads", str(args.threads)]
                done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
                if done.returncode:
                    print(f"pytorch, {name}: ended with {done.returncode}: {done.stderr[-300:]}", file=sys.stderr)
                    continue
                figures = json.loads(done.stdout.splitlines()[-1])
            kept[f"{args.shape} {who} {name}"] = figures
            print(who, name, figures, file=sys.stderr)
            if args.json:
                args.json.write_text(json.dumps(kept, indent=1))
    table(args, rows, kept)


def table(args, rows, kept):
    print(f"{args.shape}\n\n| | tokens/s | PyTorch | ratio | process, MiB | PyTorch | ratio | tensors, measured ÷ estimated |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in rows:
        ours = kept.get(f"{args.shape} peftc {name}")
        peer = kept.get(f"{args.shape} pytorch {ROWS[plain(name)][2]}")
        if not ours:
            continue
        cells = [f"{ours['rate']:.0f}", "–", "–", f"{ours['process'] / 2**20:.0f}", "–", "–", f"{ours['measured'] / ours['estimated']:.3f}"]
        if peer:
            cells[1:3] = [f"{peer['rate']:.0f}", f"{ours['rate'] / peer['rate']:.2f}"]
            cells[4:6] = [f"{peer['process'] / 2**20:.0f}", f"{ours['process'] / peer['process']:.2f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
