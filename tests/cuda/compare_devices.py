#!/usr/bin/env python3
"""The same recipes on two devices: losses, gradients, trained tensors and scores against each other.

    python3 tests/cuda/compare_devices.py --peftc target/release/peftc --devices cpu,cuda
    python3 tests/cuda/compare_devices.py --devices cpu,cpu          # tries this program; all differences are 0

Three models: `mini`, the embedded one (recipes/reviews-mini), `random`, a BERT of 4 blocks x 768 with random weights, and
`tales`, the embedded LLaMA on chats. Methods: full, lora, siva, k_lst and mezo, each in the precisions asked for; `bf16` stores frozen weights in
bf16 too, `bf16_kept` has `activations = bf16` beside it. Of every combination one recipe
runs on each device:

  start   one step at a vanishing rate: what training starts from
  grad    one step of SGD without clipping: start - grad is the gradient times the rate, which is so large that the
          tensor's own rounding does not show, of every trained tensor
  learn   three steps of AdamW: losses, gradient norms, and the tensors it leaves
  score   evaluation of what was learned, on 48 texts: loss and scores

and of MeZO `learn` and `score`. Differences are relative. Losses: to the loss. Gradients: of each tensor, norm of the
difference by the norm of the gradient (of the tensor, or a thousandth of the whole gradient's where that is larger: a
key's bias has a gradient of rounding errors only), and of all together. MeZO's projected gradients: by the larger of
the two, within bounds of their own. Tensors after AdamW: difference by how far all of them
moved; AdamW divides by the gradient's size, so that an element whose gradient is all rounding may move either way.
Scores are logits, their differences absolute; of a decoder they are sums over a text, their differences relative. What is held to the tolerances (f32 1e-4; tf32, bf16 2e-2) is told in the
table; tensors after AdamW are shown, and held to a fifth of the movement; those after MeZO are shown. Exit code 1 if anything is missed or failed.

Needs Python with numpy; prints a Markdown table, --json FILE gives all numbers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

REPO = Path(__file__).resolve().parents[2]
REVIEWS, MINI = REPO / "recipes" / "reviews", REPO / "recipes" / "reviews-mini"
ALL = "{attention.{query, key, value, output}, ffn.{up, down}}"
METHODS = {
    "full": "full",
    "lora": f"lora {{ rank = 4, alpha = 8, on = {ALL} }}",
    "siva": f"siva {{ rank = 4, on = {ALL} }}",
    "k_lst": "k_lst { k = 3, r = 8 }",
    "mezo": "full",
}
PRECISIONS = {
    "f32": "",
    "tf32": "precision = tf32",
    "bf16": "precision = bf16, dtype = bf16",
    "bf16_kept": "precision = bf16, dtype = bf16, activations = bf16",
    "nf4": "dtype = nf4",
    "nf4_kept": "precision = bf16, dtype = nf4, activations = bf16",
    "q8_0": "dtype = q8_0",
    "q4_0": "precision = bf16, dtype = q4_0",
}
TOLERANCE = {p: 1e-4 if p in ("f32", "nf4", "q8_0") else 2e-2 for p in PRECISIONS}
# Of MeZO's projected gradients, differences of two losses, in which rounding weighs: one that is lost is 1 off, one of
# the other sign 2.
PROJECTED = {p: 2e-2 if t < 1e-3 else 0.9 if "kept" in p else 0.5 for p, t in TOLERANCE.items()}
MOVED = 0.2  # of tensors after AdamW, as a share of the movement
FLOOR = 1e-3  # of the whole gradient, below which a tensor's own is too small to be held to
EPSILON = 1e-3  # of MeZO
STEEP = 1024  # rate at which a gradient is read off a step; a power of two keeps its bits
RATE = {"full": 2e-5, "mezo": 1e-6}
RANDOM = {
    "architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 6000, "hidden_size": 768,
    "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 128,
    "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
}
TINY = {**RANDOM, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TALES, PLACES = REPO / "recipes" / "tales-mini", REPO / "recipes" / "places-mini"
MODELS = ("mini", "random", "tiny", "tales")
ALL_OF_DECODERS = "{ attention.*, ffn.* }"


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--peftc", type=Path, default=REPO / "target" / "debug" / "peftc")
    p.add_argument("--devices", default="cpu,cuda", help="two, with a comma; the first is the reference")
    p.add_argument("--precision", default="f32,bf16", help=f"of {', '.join(PRECISIONS)}")
    p.add_argument("--methods", default=",".join(METHODS))
    p.add_argument("--models", default="mini,random", help=f"of {', '.join(MODELS)} (2 blocks x 64, to try things)")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--max-length", type=int, default=64)
    p.add_argument("--json", type=Path)
    p.add_argument("--limit", type=float, help="seconds after which nothing is begun")
    args = p.parse_args()
    for name, known in (("precision", PRECISIONS), ("methods", METHODS), ("models", MODELS)):
        values = getattr(args, name).split(",")
        if set(values) - set(known):
            p.error(f"--{name}: there are {', '.join(known)}")
        setattr(args, name, values)
    args.devices = args.devices.split(",")
    if len(args.devices) != 2:
        p.error("--devices takes two")
    args.peftc = args.peftc.resolve()
    if not args.peftc.is_file():
        p.error(f"{args.peftc} is not there")
    return args


# ------------------------------------------------------------------------------------------------ recipes


def recipe(args, folder, model, method, precision):
    keys = [PRECISIONS[precision]] if PRECISIONS[precision] else []
    decoder = model == "tales"
    if decoder:
        place = TALES
    elif model == "mini":
        place = MINI
    else:
        place = folder / model
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text(json.dumps(TINY if model == "tiny" else RANDOM))
        keys += ["init = random", f'tokenizer = "{MINI}"']
    rate = RATE.get(method, 1e-3)
    common = f"batch = {args.batch}, max_length = {args.max_length}, seed = 5"
    adapter = METHODS[method]
    texts = [
        f'data d = local "{REVIEWS}" {{ text = sentence, label = label }}',
        f'data e = local "{folder / "data"}" {{ text = sentence, label = label }}',
    ]
    if decoder:
        common = f"batch = {args.batch}, seed = 5, objective = causal_lm"
        adapter = adapter.replace(ALL, ALL_OF_DECODERS)
        texts = [f'data d = local "{PLACES}" {{ messages = messages, take = 160 }}', f'data e = local "{PLACES}" {{ messages = messages, take = 32 }}']
    first = f"model = m, data = d.train, adapter = {adapter}, {common}"
    lines = [f'model m = local "{place}" {{ {", ".join(keys)} }}', *texts]
    if method == "mezo":
        lines.append(f"stage learn = mezo {{ {first}, lr = {rate}, epsilon = {EPSILON}, steps = 3 }}")
    else:
        sgd = "optimizer = sgd, clip = 0, steps = 1"
        lines += [
            f"stage start = train {{ {first}, {sgd}, lr = 1e-30 }}",
            f"stage grad = train {{ {first}, {sgd}, lr = {STEEP} }}",
            f"stage learn = train {{ {first}, lr = {rate}, steps = 3 }}",
        ]
    scored = ", metrics = [loss]" if decoder else ""
    lines.append(f"stage score = eval {{ from = learn, data = e.test{scored} }}")
    return "\n".join(lines) + "\n"


def few_texts(folder):
    """A split of 48 texts to score."""
    (folder / "data").mkdir()
    lines = (REVIEWS / "test.tsv").read_text(encoding="utf-8").split("\n")
    (folder / "data" / "test.tsv").write_text("\n".join(lines[:49]) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------ results


def tensors(path):
    """The tensors of a safetensors file, in f64."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    found = {}
    for name, about in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + at for at in about["data_offsets"])
        if about["dtype"] == "BF16":
            raw = (numpy.frombuffer(data[begin:end], "<u2").astype("<u4") << 16).view("<f4")
        else:
            raw = numpy.frombuffer(data[begin:end], {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[about["dtype"]])
        found[name] = raw.astype(numpy.float64)
    return found


def trained(folder):
    """What a stage left: its adapter's parts in our names, or the model."""
    for name in ("adapter/peftc.safetensors", "model/model.safetensors"):
        if (folder / name).is_file():
            return tensors(folder / name)
    raise FileNotFoundError(f"{folder}: neither adapter nor model")


class Result:
    """What a recipe left on a device: a stage's log, tensors, scores."""

    def __init__(self, root):
        self.stages = {s["name"]: s for s in json.loads((root / "out" / "result.json").read_text())["stages"]}
        self.logs, self.tensors = {}, {}
        for name, stage in self.stages.items():
            if name == "score":
                self.scores, table = numpy.zeros((1, 1)), root / "out" / name / "predictions.tsv"
                rows = table.read_text().splitlines() if table.is_file() else ["prediction"]
                head = rows[0].split("\t")
                first = head.index("prediction") + 1 if "prediction" in head else len(head)
                if first < len(head):
                    self.scores = numpy.array([[float(x) for x in r.split("\t")[first:]] for r in rows[1:]])
                continue
            log = (root / "out" / name / "metrics.jsonl").read_text().splitlines()
            self.logs[name] = [json.loads(line) for line in log]
            self.tensors[name] = trained(root / stage["artifact"])


def run(args, folder, text, device, number):
    root = folder / f"{device.replace(':', '_')}_{number}"
    root.mkdir()
    (root / "r.peft").write_text(text, encoding="utf-8")
    command = [str(args.peftc), "run", "--quiet", "--json", "--offline", "--device", device, "--store", "store",
               "--out", "out", "r.peft"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{device}: exit code {done.returncode}\n{done.stderr}")
    result = Result(root)
    kind = device.split(":")[0]
    for stage in result.stages.values():
        if stage["device"].split(":")[0] != kind:
            raise RuntimeError(f"`{stage['name']}` ran on {stage['device']}, not on {device}")
    return result


# --------------------------------------------------------------------------------------------- differences


def norm(parts):
    return float(numpy.sqrt(sum(float(numpy.dot(x, x)) for x in parts)))


def gap(a, b):
    """Relative difference of two numbers."""
    if not (numpy.isfinite(a) and numpy.isfinite(b)):
        return float("inf")
    return abs(a - b) / max(abs(a), 1e-12)


def same_names(a, b):
    if a.keys() != b.keys():
        raise RuntimeError(f"other tensors: {sorted(a.keys() ^ b.keys())[:5]}")
    return a.keys()


def moved(before, after):
    """What a step took away, of tensors that it changed."""
    parts = {name: before[name] - after[name] for name in same_names(before, after)}
    return {name: part for name, part in parts.items() if part.any()}


def gradients(one, other):
    a = moved(one.tensors["start"], one.tensors["grad"])
    b = moved(other.tensors["start"], other.tensors["grad"])
    names = sorted(a.keys() | b.keys())
    zero = lambda side, name: side.get(name, numpy.zeros(1))
    whole = norm(a.values())
    each = {n: norm([zero(a, n) - zero(b, n)]) / max(norm([zero(a, n)]), FLOOR * whole, 1e-30) for n in names}
    worst = max(each, key=each.get)
    return {"worst": each[worst], "where": worst, "all": norm(zero(a, n) - zero(b, n) for n in names) / whole,
            "tensors": len(names)}


def differences(method, decoder, one, other):
    """Everything that is compared, each as a relative difference."""
    # A text's scores of a decoder are sums over its tokens, and counts.
    scale = numpy.maximum(numpy.abs(one.scores), 1.0) if decoder else 1.0
    pairs = [(x, y) for stage in one.logs for x, y in zip(one.logs[stage], other.logs[stage], strict=True)]
    found = {
        "first": gap(one.logs["learn"][0]["loss"], other.logs["learn"][0]["loss"]),
        "loss": max(gap(x["loss"], y["loss"]) for x, y in pairs),
        "score_loss": gap(one.stages["score"]["loss_last"], other.stages["score"]["loss_last"]),
        "scores": float(numpy.max(numpy.abs(one.scores - other.scores) / scale)),
    }
    a, b = one.tensors["learn"], other.tensors["learn"]
    apart = norm(a[n] - b[n] for n in same_names(a, b))
    if method == "mezo":
        pull = [both for x, y in pairs for both in zip(x["projected_grad"], y["projected_grad"], strict=True)]
        found["projected"] = max(abs(p - q) / max(abs(p), abs(q), 1e-30) for p, q in pull)
        found["trained"] = apart / norm(a.values())
    else:
        found["start"] = max(float(numpy.max(numpy.abs(one.tensors["start"][n] - other.tensors["start"][n]), initial=0.0))
                             for n in same_names(one.tensors["start"], other.tensors["start"]))
        found["grad_norm"] = max(gap(x["grad_norm"], y["grad_norm"]) for x, y in pairs)
        gradient = gradients(one, other)
        found |= {"gradient": gradient["all"], "gradient_worst": gradient["worst"], "worst_tensor": gradient["where"],
                  "tensors": gradient["tensors"]}
        found["moved"] = apart / norm(moved(one.tensors["start"], a).values())
    return found


def missed(found, tolerance, projected):
    """Which differences are too large."""
    held = {"loss": tolerance, "score_loss": tolerance, "scores": tolerance, "grad_norm": tolerance, "gradient": tolerance,
            "gradient_worst": tolerance, "projected": projected, "moved": MOVED, "start": 1e-20}
    return [key for key, most in held.items() if key in found and not found[key] <= most]


# -------------------------------------------------------------------------------------------------- table


COLUMNS = [("first", "first loss"), ("loss", "losses"), ("gradient", "gradient"), ("gradient_worst", "worst tensor's"),
           ("grad_norm", "gradient norms"), ("projected", "projected"), ("moved", "after AdamW, of the way"),
           ("trained", "trained"), ("score_loss", "score's loss"), ("scores", "scores")]


def table(args, rows):
    lines = [f"{args.devices[1]} against {args.devices[0]}: largest relative differences", "",
             "| model | method | precision | " + " | ".join(said for _, said in COLUMNS) + " | missed |",
             "| --- | --- | --- |" + " ---: |" * len(COLUMNS) + " --- |"]
    for row in rows:
        found = row["found"]
        cells = [f"{found[key]:.1e}" if key in found else "–" for key, _ in COLUMNS]
        lines.append(f"| {row['model']} | {row['method']} | {row['precision']} | " + " | ".join(cells)
                     + f" | {', '.join(row['missed']) or 'nothing'} |")
    bad = sum(bool(row["missed"]) for row in rows)
    held = ", ".join(f"{p} {TOLERANCE[p]:.0e}" for p in args.precision)
    lines += ["", f"{len(rows)} combinations, {bad} missed; tolerances: {held}"]
    return "\n".join(lines)


def main():
    args = arguments()
    rows, begun = [], time.monotonic()
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        few_texts(folder)
        todo = [(m, p, x) for m in args.models for p in args.precision for x in args.methods]
        for number, (model, precision, method) in enumerate(todo):
            if args.limit is not None and time.monotonic() - begun > args.limit:
                rows += [{"model": m, "method": x, "precision": p, "found": {}, "missed": ["not run: the time is over"]}
                         for m, p, x in todo[number:]]
                break
            text = recipe(args, folder, model, method, precision)
            try:
                sides = [run(args, folder, text, device, f"{number}_{i}") for i, device in enumerate(args.devices)]
                found = differences(method, model == "tales", *sides)
                bad = missed(found, TOLERANCE[precision], PROJECTED[precision])
            except (RuntimeError, OSError, ValueError, KeyError) as error:
                print(f"{model}, {method}, {precision}: {type(error).__name__}: {error}", file=sys.stderr)
                found, bad = {}, ["failed"]
            rows.append({"model": model, "method": method, "precision": precision, "found": found, "missed": bad})
            print(f"{model} {method} {precision}: {', '.join(bad) or 'good'}", file=sys.stderr, flush=True)
            for left in folder.glob(f"*_{number}_*"):
                subprocess.run(["rm", "-rf", str(left)], check=True)
    if args.json:
        args.json.write_text(json.dumps({"devices": args.devices, "rows": rows}, indent=1), encoding="utf-8")
    print(table(args, rows))
    sys.exit(any(row["missed"] for row in rows) or not rows)


if __name__ == "__main__":
    main()
