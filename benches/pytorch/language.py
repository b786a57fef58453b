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

On a GPU (`--device cuda`) there are besides: lora-tf32, lora-kept (products, frozen weights and activations in bf16, beside
PyTorch's LoRA over weights in bf16) and qlora (nf4 with products and activations in bf16, beside bitsandbytes'). Memory is
then that of the device: PyTorch's `max_memory_allocated`, peftc's measured tensors with cuBLAS's workspace. `--length N`
gives every text N tokens, all of which are learned. The share of the card's peak counts 2 operations a weight of a product and token
forwards, as many for the gradient of what goes in, and as many again for weights that are trained, and attention's by the
lengths; the head counts where it is computed.

Needs torch, transformers, peft (and bitsandbytes for qlora). Prints Markdown; --json FILE keeps the figures and adds to those
that are there.
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
    "lora-tf32": (", precision = tf32", LORA, "lora-tf32"),
    "full-kept": (", precision = bf16, dtype = bf16, activations = bf16", "full", "full-autocast"),
    "lora-kept": (", precision = bf16, dtype = bf16, activations = bf16", LORA, "lora-bf16"),
    "qlora": (", precision = bf16, dtype = nf4, activations = bf16", LORA, "qlora"),
}
# bf16 operations a second of a card's tensor cores, dense (NVIDIA's data sheets).
PEAKS = {"H100 80GB HBM3": 989e12, "H200": 989e12, "H100 PCIe": 756e12, "A100": 312e12}


def lengths(args):
    """Tokens of all texts."""
    draw, count = random.Random(0), args.batch * (args.steps + args.warmup)
    return [args.length or max(16, min(512, int(draw.lognormvariate(5.0, 0.6)))) for _ in range(count)]


def batches(args):
    """The lengths of each step's texts."""
    return list(zip(*[iter(lengths(args))] * args.batch))


def learned(args, length):
    """From which token on a text is learned."""
    return 1 if args.length else int(length * 0.6)


def operations(args, row, part):
    """What a step over texts of these lengths takes, of the model's own maps."""
    config = SHAPES[args.shape]
    d, heads = config["hidden_size"], config["num_attention_heads"]
    shared = d // heads * config["num_key_value_heads"]
    block = 2 * d * d + 2 * d * shared + 3 * d * config["intermediate_size"]
    walks = 3 if plain(row).startswith("full") else 2
    tokens, read = sum(part), sum(n - learned(args, n) for n in part)
    attention = sum(2 * d * n * n for n in part)  # two products of half of n² pairs, forwards; twice that backwards
    layers = config["num_hidden_layers"]
    return 2 * walks * (tokens * layers * block + read * d * config["vocab_size"]) + 3 * layers * attention


def folder(tmp, args):
    """A model's config with a tokenizer that has a word for each id, and texts of such words."""
    config = SHAPES[args.shape]
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
        for length in lengths(args):
            text = [f"w{draw.randrange(2, config['vocab_size'])}" for _ in range(length - 1)]
            cut = learned(args, length)
            file.write(json.dumps({"prompt": " ".join(text[:cut]), "completion": " " + " ".join(text[cut:])}) + "\n")


def plain(row):
    """The name of a row in `ROWS`."""
    return row.partition("@")[0].removesuffix("+")


def peftc(args, row):
    keys, adapter, _ = ROWS[plain(row)]
    again = ", recompute = true" if row.endswith("+") else ""
    budget = row.partition("@")[2]
    again += ", fit = auto" if budget else ""
    steps = args.steps + args.warmup
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        folder(tmp, args)
        (tmp / "r.peft").write_text(
            f'model m = local "model" {{ init = random{keys} }}\n'
            'data d = local "data" { prompt = prompt, completion = completion }\n'
            f"stage s = train {{ model = m, data = d.train, objective = causal_lm, adapter = {adapter}, lr = 1e-4,\n"
            f"  steps = {steps}, batch = {args.batch}, clip = 1, shuffle = false{again} }}\n")
        command = [*args.profiler, str(args.peftc), "run", "--quiet", "--offline", "--device", args.device, "--threads", str(args.threads), "r.peft"]
        command += ["--budget", budget] if budget else []
        with (tmp / "err").open("w+") as err:
            process = subprocess.Popen(command, cwd=tmp, stdout=args.report or subprocess.DEVNULL, stderr=err)
            usage = own.wait(process, None)
            if process.returncode:
                err.seek(0)
                raise own.Failed(err.read())
        run = tmp / ".peftc" / "runs" / "r"
        logged = [json.loads(line) for line in (run / "s" / "metrics.jsonl").read_text().splitlines()]
        stage = json.loads((run / "result.json").read_text())["stages"][0]
        beside = 0
        if args.device != "cpu":
            memory = own.check(args, tmp, args.device)["stages"][0]["memory"]
            beside = memory["device"]["cublas_workspace"]
    ends = [0.0] + [args.batch * step["step"] / step["samples_per_s"] for step in logged]
    times = [end - start for start, end in zip(ends, ends[1:])]
    weights = stage["memory"]["frozen_weights"] + stage["memory"]["trainable_weights"]
    return {**rates(args, row, times), "process": usage.ru_maxrss * 1024, "measured": stage["measured_peak_bytes"] + beside,
            "estimated": stage["estimated_peak_bytes"] + beside, "weights": weights, "loss": logged[-1]["loss"]}


def rates(args, row, times):
    """Tokens and operations a second, as medians over the steps behind the first ones."""
    timed = list(zip(batches(args), times))[args.warmup :]
    return {"rate": statistics.median(sum(part) / time for part, time in timed),
            "operations": statistics.median(operations(args, row, part) / time for part, time in timed)}


def pytorch(args, row):
    """PyTorch's side, in this process."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    gpu = args.device != "cpu"
    device = torch.device(args.device)
    config = dict(SHAPES[args.shape])
    config = AutoConfig.for_model(config.pop("model_type"), **config)
    name = plain(row)
    torch.backends.cuda.matmul.allow_tf32 = name.endswith("tf32")
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if name in ("lora-bf16", "qlora") else torch.float32)
    if name == "qlora":
        model = in_four_bits(torch, model, device)
    if "lora" in name:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=LINEAR))
    if row.endswith("+"):
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, **({"fused": True} if gpu else {}))
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times = []
    for part in batches(args):
        ids = torch.zeros(args.batch, max(part), dtype=torch.long)
        mask, labels = ids.clone(), torch.full_like(ids, -100)
        for i, n in enumerate(part):
            ids[i, :n], mask[i, :n] = torch.randint(2, config.vocab_size, (n,)), 1
            labels[i, learned(args, n):n] = ids[i, learned(args, n):n]
        ids, mask, labels = (x.to(device) for x in (ids, mask, labels))
        if gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=name.endswith("autocast") or name == "qlora"):
            # Texts of one length need no mask: PyTorch's fastest attention then serves.
            loss = model(input_ids=ids, attention_mask=None if args.length else mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if gpu:
            loss.item()
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    every = {id(p): p.numel() * p.element_size() for p in model.parameters()}
    return {**rates(args, row, times), "process": resident, "measured": torch.cuda.max_memory_allocated() if gpu else resident,
            "weights": sum(every.values()), "loss": loss.item(), "device": torch.cuda.get_device_name() if gpu else "cpu"}


def in_four_bits(torch, model, device):
    """The maps of the blocks as bitsandbytes has them in nf4, their scales doubly quantised."""
    import bitsandbytes

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in LINEAR:
                new = bitsandbytes.nn.Linear4bit(child.in_features, child.out_features, bias=child.bias is not None,
                                                 compute_dtype=torch.bfloat16, quant_type="nf4", compress_statistics=True)
                new.weight = bitsandbytes.nn.Params4bit(child.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True)
                if child.bias is not None:
                    new.bias = child.bias
                setattr(parent, name, new.to(device))
    model.requires_grad_(False)
    return model


def main():
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--shape", default="smollm2-135m", choices=SHAPES)
    asked.add_argument("--rows", default="full,lora,lora-bf16,lora-nf4,lora-q8_0", help=f"of {', '.join(ROWS)}; with commas")
    asked.add_argument("--peer-rows", help="PyTorch's rows, with commas; those beside the rows if not given, none if empty")
    asked.add_argument("--device", default="cpu", help="cpu or cuda")
    asked.add_argument("--batch", type=int, default=4, help="texts of a step")
    asked.add_argument("--length", type=int, help="tokens of every text, instead of lengths that vary")
    asked.add_argument("--steps", type=int, default=4, help="timed steps")
    asked.add_argument("--warmup", type=int, default=1, help="steps before them")
    asked.add_argument("--threads", type=int, default=os.cpu_count())
    asked.add_argument("--peftc", type=Path, default=REPO / "target" / "debug" / "peftc")
    asked.add_argument("--json", type=Path)
    asked.add_argument("--limit", type=float, help="seconds after which no run is begun")
    asked.add_argument("--profiler", default="", help="a command before peftc's, which is then shown")
    asked.add_argument("--one", help=argparse.SUPPRESS)
    args = asked.parse_args()
    args.peftc = args.peftc.resolve()
    args.profiler = args.profiler.split()
    args.report = sys.stdout if args.profiler else None
    if args.one:
        print(json.dumps(pytorch(args, args.one)))
        return
    rows, begun = args.rows.split(","), time.monotonic()
    peers = args.peer_rows.split(",") if args.peer_rows is not None else [ROWS[plain(r)][2] for r in rows]
    kept = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    # In turn, so that a limit cuts whole pairs.
    failed = False
    turns = [(who, name) for i in range(max(len(rows), len(peers))) for who, names in (("pytorch", peers), ("peftc", rows)) for name in names[i : i + 1]]
    for who, name in dict.fromkeys(turns):
        if not name or (args.limit is not None and time.monotonic() - begun > args.limit):
            continue
        try:
            figures = peftc(args, name) if who == "peftc" else peer(args, name)
        except own.Failed as error:
            print(f"{who}, {name}: {str(error)[-600:]}", file=sys.stderr)
            failed = True
            continue
        kept[f"{key(args)} {who} {name}"] = figures
        print(who, name, figures, file=sys.stderr, flush=True)
        if args.json:
            args.json.write_text(json.dumps(kept, indent=1))
    table(args, rows, kept)
    sys.exit(failed)


def key(args):
    """Under which figures are kept."""
    plain = args.device == "cpu" and args.batch == 4 and args.length is None
    return args.shape if plain else f"{args.shape} {args.device} {args.batch}x{args.length or 'varied'}"


def peer(args, name):
    """PyTorch's figures, from a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--shape", args.shape, "--steps", str(args.steps), "--warmup", str(args.warmup),
               "--threads", str(args.threads), "--device", args.device, "--batch", str(args.batch)]
    command += ["--length", str(args.length)] if args.length else []
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise own.Failed(f"ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table(args, rows, kept):
    gpu = args.device != "cpu"
    held, spent = ("device", "measured") if gpu else ("process", "process")
    print(f"{key(args)}\n\n| | tokens/s | PyTorch | ratio | {held}, MiB | PyTorch | ratio | tensors, measured ÷ estimated |{' bf16 peak | PyTorch |' if gpu else ''}")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |" + (" ---: | ---: |" if gpu else ""))
    for name in rows:
        ours = kept.get(f"{key(args)} peftc {name}")
        peer = kept.get(f"{key(args)} pytorch {ROWS[plain(name)][2]}")
        if not ours:
            continue
        cells = [f"{ours['rate']:.0f}", "–", "–", f"{ours[spent] / 2**20:.0f}", "–", "–", f"{ours['measured'] / ours['estimated']:.3f}"]
        if peer:
            cells[1:3] = [f"{peer['rate']:.0f}", f"{ours['rate'] / peer['rate']:.2f}"]
            cells[4:6] = [f"{peer[spent] / 2**20:.0f}", f"{ours[spent] / peer[spent]:.2f}"]
            peak = next((p for n, p in PEAKS.items() if n in peer.get("device", "")), None)
            if gpu:
                cells += [f"{100 * x['operations'] / peak:.1f} %" if peak else "–" for x in (ours, peer)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
