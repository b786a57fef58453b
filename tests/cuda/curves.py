#!/usr/bin/env python3
"""The reference curves on a device: losses of PyTorch, of transformers and of peft against those of peftc.

    python3 tests/cuda/curves.py --peftc target/release/peftc --device cuda --jobs 8

`tests/reference` holds 20 losses of every method on three small encoders, and a loss and a curve of every decoder family.
The tests of the repository compare the processor with them; this program compares another device. Each method and each
encoder is a run of its own; all decoders are one. A step's loss may differ by 1e-4, the tensors' bytes must be within 2 %
of their estimate and not above it.

Prints a Markdown table of the methods that miss something and a line of totals; --json FILE gives all numbers. Needs
Python with numpy. Exit code 1 if anything is missed or failed.
"""

import argparse
import concurrent.futures
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

REPO = Path(__file__).resolve().parents[2]
REFERENCE = REPO / "tests" / "reference"
NEAR = 1e-4
SHARE = (0.98, 1.0)
DENSE = "stage dense = train { model = m, data = d.train, adapter = full, lr = 1e-3, steps = 4, batch = 16, max_length = 64 }\n"


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--peftc", type=Path, default=REPO / "target" / "debug" / "peftc")
    p.add_argument("--device", default="cuda")
    p.add_argument("--jobs", type=int, default=4, help="runs at a time")
    p.add_argument("--only", help="methods, with commas; `decoders` are the families")
    p.add_argument("--models", default="bert-tiny,roberta-tiny,distilbert-tiny")
    p.add_argument("--limit", type=float, help="seconds after which nothing is begun")
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    args.peftc = args.peftc.resolve()
    args.models = args.models.split(",")
    args.only = args.only and args.only.split(",")
    return args


def run(args, folder, text):
    """Runs a recipe in a folder; the folder of its results."""
    (folder / "r.peft").write_text(text, encoding="utf-8")
    command = [str(args.peftc), "run", "--quiet", "--offline", "--device", args.device, "--threads", "2", "r.peft"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-1500:]}")
    return folder / ".peftc" / "runs" / "r"


def losses(folder, stage):
    return [json.loads(line)["loss"] for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]


def stages(args, folder):
    found = {s["name"]: s for s in json.loads((folder / "result.json").read_text())["stages"]}
    kind = args.device.split(":")[0]
    for stage in found.values():
        if stage["kind"] == "train" and stage["device"].split(":")[0] != kind:
            raise RuntimeError(f"`{stage['name']}` ran on {stage['device']}")
    return found


def apart(own, wanted):
    if len(own) != len(wanted) or any(x is None or x != x for x in own):
        return float("inf")
    return max(abs(a - b) for a, b in zip(own, wanted))


def share(stage):
    return stage["measured_peak_bytes"] / stage["estimated_peak_bytes"]


def curve(args, name, case):
    """One method on one encoder."""
    before, beside = (DENSE, " tuned = dense\n") if name == "lt_sft" else ("", "")
    text = (f'model m = local "{REFERENCE / case["model"]}"\n'
            f'data d = local "{REPO / "recipes" / "reviews"}" {{ text = sentence, label = label, labels = [negative, positive], take = 320 }}\n'
            f"{before}stage s = train {{\n model = m\n data = d.train\n adapter = {case['method']}\n{beside} optimizer = adamw {{ weight_decay = 0.01 }}\n"
            f" lr = {case['lr']}\n steps = 20\n batch = 16\n max_length = 64\n clip = 0\n dropout = 0\n shuffle = false\n}}\n")
    with tempfile.TemporaryDirectory() as tmp:
        found = run(args, Path(tmp), text)
        stage = stages(args, found)["s"]
        own = losses(found, "s")
        return {"apart": apart(own, case["loss"]) if case["loss"] else None, "share": share(stage), "losses": own}


def decoders(args):
    """All families, a loss and a curve each."""
    traces = json.loads((REFERENCE / "decoders.json").read_text())
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        for split in ("train", "test"):
            lines = [json.dumps({"text": " ".join(f"w{w}" for w in words)}) for words in traces["texts"]]
            (tmp / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        text = 'peftc 1\ndata d = local "." { text = text }\n'
        for case in traces["cases"]:
            name = case["name"]
            model(tmp / name, case)
            text += (f'model m_{name} = local "{name}"\n'
                     f"stage e_{name} = eval {{ model = m_{name}, data = d.test, objective = causal_lm, metrics = [loss] }}\n"
                     f"stage t_{name} = train {{ model = m_{name}, data = d.train, objective = causal_lm, adapter = full, lr = {traces['rate']},"
                     f" optimizer = sgd, batch = {traces['batch']}, steps = {len(case['curve'])}, clip = 0, dropout = 0, shuffle = false }}\n")
        found = run(args, tmp, text)
        all_stages = stages(args, found)
        for case in traces["cases"]:
            name = case["name"]
            loss = all_stages[f"e_{name}"]["metrics"]["loss"]
            far = max(abs(loss - case["loss"]), apart(losses(found, f"t_{name}"), case["curve"]))
            rows.append({"name": name, "model": "decoder", "apart": far, "share": share(all_stages[f"t_{name}"])})
    return rows


def mixed(seed, count):
    """Numbers of 32 bits, as tests/reference/make_decoder_traces.py has them."""
    x = (seed + numpy.arange(count, dtype=numpy.uint64) * 0x9E3779B9) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = ((x ^ (x >> numpy.uint64(shift))) * numpy.uint64(factor)) & 0xFFFFFFFF
    return x ^ (x >> numpy.uint64(16))


def weights(name, shape):
    """A tensor of a decoder, by its name."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x01000193) & 0xFFFFFFFF
    middle = 1.0 if "norm" in name else 0.0
    x = mixed(seed, int(numpy.prod(shape))).astype(numpy.float64)
    return ((x / 2**32 - 0.5) * 0.4 + middle).astype("<f4").tobytes()


def model(folder, case):
    """A family's config, weights and a tokenizer with a word for each id, as the repository's tests write them."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(case["config"]))
    header, data, at = {}, [], 0
    for name, shape in sorted(case["tensors"].items()):
        data.append(weights(name, shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data[-1])]}
        at += len(data[-1])
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"".join(data))
    special = [dict(id=i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
               for i, text in enumerate(["<unk>", "<end>"])]
    vocab = {"<unk>": 0, "<end>": 1, **{f"w{i}": i for i in range(2, 50)}}
    (folder / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None, decoder=None, added_tokens=special,
        pre_tokenizer={"type": "WhitespaceSplit"}, model=dict(type="WordLevel", vocab=vocab, unk_token="<unk>"))))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(dict(tokenizer_class="PreTrainedTokenizerFast", eos_token="<end>", unk_token="<unk>")))


def main():
    args = arguments()
    todo = []
    for path in sorted((REFERENCE / "methods").glob("*.json")):
        if args.only and path.stem not in args.only:
            continue
        seen = set()
        for case in json.loads(path.read_text()).get("curves", []):
            if case["model"] in args.models:
                todo.append((case["name"], case))
                seen.add(case["model"])
    rows, begun = [], time.monotonic()

    def one(item):
        name, case = item
        row = {"name": name, "model": case["model"], "method": case["method"]}
        if args.limit is not None and time.monotonic() - begun > args.limit:
            return {**row, "error": "not run: the time is over"}
        try:
            return {**row, **curve(args, name, case)}
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            return {**row, "error": f"{type(error).__name__}: {error}"}

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        families = pool.submit(decoders, args) if not args.only or "decoders" in args.only else None
        rows = list(pool.map(one, todo))
    try:
        rows += families.result() if families else []
    except (RuntimeError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        rows.append({"name": "decoders", "model": "all", "error": f"{type(error).__name__}: {error}"})
    bad = [row for row in rows if "error" in row or (row["apart"] is not None and not row["apart"] <= NEAR)
           or not SHARE[0] <= row["share"] <= SHARE[1]]
    if args.json:
        args.json.write_text(json.dumps({"device": args.device, "rows": rows}, indent=1))
    if bad:
        print("| method | model | largest difference | measured / estimated | what is wrong |\n| --- | --- | ---: | ---: | --- |")
    for row in bad:
        far, part = row.get("apart"), row.get("share")
        print(f"| {row['name']} | {row['model']} | {'–' if far is None else f'{far:.1e}'} | {'–' if part is None else f'{part:.4f}'} "
              f"| {row.get('error', '')[-300:].replace(chr(10), ' ')} |")
    good = [row["apart"] for row in rows if row.get("apart") is not None]
    shares = [row["share"] for row in rows if "share" in row]
    if good:
        middle = sorted(good)[len(good) // 2]
        print(f"\n{len(rows)} runs on {args.device} in {time.monotonic() - begun:.0f} s, {len(bad)} missed; losses: median {middle:.1e}, largest {max(good):.1e}; "
              f"measured / estimated {min(shares):.4f} to {max(shares):.4f}")
    sys.exit(bool(bad) or not rows)


if __name__ == "__main__":
    main()
