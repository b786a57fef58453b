#!/usr/bin/env python3
"""peftc and PyTorch in turn: training speed and memory, row by row.

    cargo build
    python benches/pytorch/compare.py --steps 20 --repeats 3
    python benches/pytorch/compare.py --device cuda --shape large --precision f32,tf32,bf16 --batch 16,64 --peer-dtype f32,bf16

Both train on the same texts (reviews, train split), with the same tokenizer, shapes (RoBERTa-base or
-large, random weights, dropout as in the config), batch, number of threads and optimizer, for the first
steps of an epoch, each run in a process of its own; who goes first alternates. Times are medians over the steps
after the warm-up, then over the repeats. PyTorch takes batches in random order, padded to their longest text,
and then, in the same process, as many batches grouped by length (sorted within 50 batches, as transformers'
`group_by_length` does). Peaks are read before the second part.

PyTorch's side of each row:
  full            every parameter
  lora            peft, r = 4, alpha = 8, the six linear maps of each block
  siva            peft's LoRA from singular vectors (`pissa_niter_4`), r = 4, the same maps
  siva_key_query  the same on query and key
  siva_key_value  the same on key and value
  last_3          the last three blocks and the head
  bitfit          all biases and the head
  lst, 5_lst, 9_lst  the side networks of tests/reference/make_side_traces.py, r = 8, on frozen states
  mezo            all parameters moved in place along directions drawn again from their seed
  dora, ia3, adalora, oft, vera, prefix_tuning, prompt_tuning (only where `--methods` names them)
                  peft's own layers, with the same sizes on the same maps; prefixes, which peft has for decoders
                  alone, in an attention written for them

--precision: `f32` (PyTorch without TF32), `tf32` (with), `bf16` (PyTorch under autocast with f32 weights; with
`--peer-dtype bf16` what is frozen is stored in bf16, `f32,bf16` runs both; peftc has `precision`, `dtype` and
`activations = bf16`).

On the processor peaks are the resident memory of whole processes. With `--device cuda` both run on the GPU. PyTorch is
timed from one synchronisation to the next and has one process, in which every row, precision and batch begins with an
emptied cache; its batches are on the GPU before the clock starts, AdamW is the fused one, attention of side networks one
kernel; nothing is compiled. Its peak is `max_memory_allocated`, which counts cuBLAS's workspace; peftc's `measured_peak_bytes` and
`estimated_peak_bytes` count tensors and scratch, and the workspace that `check` gives for the device is added to both.
*Above the weights* is the peak less all weights as stored, adapters too. The table then says which targets are missed,
and the exit code is 1 where any is; `--targets` gives that table on the processor too (PyTorch's bytes being its process's).

Needs torch, transformers, peft, tokenizers (see tests/reference/make_traces.py). Prints Markdown; with --json FILE all
figures too, written after every run; `--resume` keeps those that are there, `--limit SECONDS` begins nothing after that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import own
import table
from rows import HERE, PRECISIONS, REPO, REPORT, ROWS, SHAPES, WHOLE, shape


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    p.add_argument("--precision", default="f32", help=f"of {', '.join(PRECISIONS)}; with commas")
    p.add_argument("--peer-dtype", default="f32", help="how PyTorch stores frozen weights under bf16: f32, bf16; with commas")
    p.add_argument("--steps", type=int, default=20, help="timed steps")
    p.add_argument("--warmup", type=int, default=2, help="steps before the clock starts")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--shape", default="base", help=f"{', '.join(sorted(SHAPES))}, or a config.json of a RoBERTa")
    p.add_argument("--methods", default=",".join(REPORT), help=f"of {', '.join(ROWS)}; with commas")
    p.add_argument("--batch", default="16", help="with commas")
    p.add_argument("--max-length", type=int, default=128)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--peftc", type=Path, default=REPO / "target" / "debug" / "peftc")
    p.add_argument("--json", type=Path, help="file for all figures")
    p.add_argument("--resume", action="store_true", help="go on with what the --json file holds")
    p.add_argument("--limit", type=float, help="seconds after which no run is begun and those under way are ended")
    p.add_argument("--targets", action="store_true", help="the table with targets, on the processor too")
    args = p.parse_args()
    lists = [("methods", ROWS), ("precision", PRECISIONS), ("peer_dtype", ("f32", "bf16"))]
    for name, known in lists:
        values = getattr(args, name).split(",")
        unknown = [v for v in values if v not in known]
        if unknown:
            p.error(f"--{name.replace('_', '-')}: no {', '.join(unknown)}; there are {', '.join(known)}")
        setattr(args, name, values)
    try:
        args.batch = [int(b) for b in args.batch.split(",")]
    except ValueError:
        p.error("--batch takes whole numbers with commas")
    if not shape(args.shape).is_file():
        p.error(f"--shape: there is no {args.shape}")
    if args.resume and not args.json:
        p.error("--resume needs --json")
    args.peftc = args.peftc.resolve()
    return args


class Runs:
    """All runs so far, and the file they are kept in."""

    def __init__(self, args):
        keys = ("device", "shape", "threads", "steps", "warmup", "max_length", "seed")
        self.settings = {key: getattr(args, key) for key in keys}
        self.file, self.list = args.json, []
        if args.resume and self.file.is_file():
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            if kept["settings"] != self.settings:
                sys.exit(f"{self.file} has figures of other settings: {kept['settings']}")
            self.list = [run for run in kept["runs"] if "error" not in run]

    def count(self, name, cell, who):
        same = lambda run: all(run[key] == value for key, value in cell.items())
        return sum(run["row"] == name and run["who"] == who and same(run) for run in self.list)

    def add(self, name, cell, who, figures):
        self.list.append({"row": name, "report": ROWS[name].report, **cell, "who": who, **figures})
        if "error" in figures:
            print(f"{who}, {name}, {cell}:\n{figures['error']}", file=sys.stderr)
        if self.file:
            text = json.dumps({"settings": self.settings, "runs": self.list}, indent=1)
            self.file.write_text(text, encoding="utf-8")


class Clock:
    def __init__(self, limit):
        self.until = None if limit is None else time.monotonic() + limit

    def left(self):
        return None if self.until is None else self.until - time.monotonic()

    def over(self):
        return self.until is not None and self.left() <= 0


def cells(args, name, who):
    """What is measured of a row: peftc's frozen weights are as narrow as its precision."""
    for precision in args.precision:
        both = who == "pytorch" and precision == "bf16" and name not in WHOLE
        for weights in args.peer_dtype if both else ["f32" if who == "pytorch" else "own"]:
            for batch in args.batch:
                yield {"precision": precision, "weights": weights, "batch": batch}


def run_own(args, name, wanted, clock):
    for cell in wanted:
        if clock.over():
            return
        try:
            yield cell, own.run(args, name, cell, clock.left())
        except own.Failed as error:
            yield cell, {"error": str(error)}


class Peer:
    """PyTorch's process: one for all cells on a GPU, where peaks can be counted anew, one for each cell on the processor."""

    def __init__(self, args):
        self.args, self.process, self.said = args, None, None

    def begin(self):
        args = self.args
        spec = {key: getattr(args, key) for key in ("device", "steps", "warmup", "max_length", "threads", "seed")}
        spec["shape"] = args.shape if args.shape in SHAPES else str(Path(args.shape).resolve())
        self.said = tempfile.TemporaryFile("w+")
        command = [sys.executable, str(HERE / "peer.py"), json.dumps(spec)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True)

    def end(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process = None

    def run(self, _, name, wanted, clock):
        for cell in wanted:
            if clock.over():
                return
            yield cell, self.cell(name, cell, clock.left())
            if self.args.device == "cpu":
                self.end()

    def cell(self, name, cell, left):
        """Figures of a cell, or why there are none."""
        if not self.process:
            self.begin()
        late = threading.Timer(left, self.process.kill) if left is not None else None
        if late:
            late.start()
        try:
            self.process.stdin.write(json.dumps({"row": name, **cell}) + "\n")
            self.process.stdin.flush()
            line = next((line for line in self.process.stdout if line.startswith("{")), None)
        except BrokenPipeError:
            line = None
        finally:
            if late:
                late.cancel()
        if line is not None:
            return json.loads(line)
        self.process.wait()
        self.process = None
        self.said.seek(0)
        return {"error": f"ended before its time was over, or with it: {self.said.read()[-2000:]}"}


def main():
    args = arguments()
    if not args.peftc.is_file():
        sys.exit(f"{args.peftc} is not there; `cargo build` makes it")
    clock = Clock(args.limit)
    runs, peer = Runs(args), Peer(args)
    for repeat in range(args.repeats):
        for number, name in enumerate(args.methods):
            pair = [("peftc", run_own), ("pytorch", peer.run)]
            if (repeat + number) % 2:
                pair.reverse()
            for who, run in pair:
                wanted = [cell for cell in cells(args, name, who) if runs.count(name, cell, who) <= repeat]
                if not wanted or clock.over():
                    continue
                begun = time.monotonic()
                for cell, figures in run(args, name, wanted, clock):
                    runs.add(name, cell, who, figures)
                print(f"{repeat + 1}/{args.repeats} {name}: {who}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    peer.end()
    if clock.over():
        print(f"stopped after {args.limit:.0f} s; `--resume` goes on", file=sys.stderr)
    devices = {run["device"] for run in runs.list if run["who"] == "pytorch" and "device" in run}
    print(f"RoBERTa-{args.shape}, {', '.join(sorted(devices))}, {args.threads} threads, {args.steps} steps, {args.repeats} repeats")
    failed = any("error" in run for run in runs.list)
    if args.device == "cpu" and not args.targets:
        print("\n" + table.plain(runs.list))
        sys.exit(failed)
    text, met = table.targets(runs.list, args.shape == "large")
    print("\n" + text)
    sys.exit(failed or clock.over() or not met)


if __name__ == "__main__":
    main()
