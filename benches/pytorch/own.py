"""peftc's side of `compare.py`: a recipe of one stage, run in a process of its own."""

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from rows import ROWS, TEXTS, TOKENIZER, shape


class Failed(Exception):
    """A run that ended otherwise than it should, and what it said."""


# What a model says to compute in a precision, frozen weights and kept results being as narrow.
MODEL_KEYS = {
    "f32": "",
    "tf32": ", precision = tf32",
    "bf16": ", precision = bf16, dtype = bf16, activations = bf16",
}


def recipe(args, name, cell):
    row = ROWS[name]
    optimizer = "" if row.kind == "mezo" else "  optimizer = adamw { weight_decay = 0.01 }\n"
    keys = MODEL_KEYS[cell["precision"]]
    return (
        f'model m = local "model" {{ init = random, tokenizer = "{TOKENIZER.parent}"{keys} }}\n'
        f'data d = local "{TEXTS.parent}" {{ text = sentence, label = label }}\n'
        f"stage s = {row.kind} {{\n  model = m\n  data = d.train\n  adapter = {row.adapter}\n{optimizer}"
        f"  lr = {row.lr}\n  steps = {args.warmup + args.steps}\n  batch = {cell['batch']}\n"
        f"  max_length = {args.max_length}\n  seed = {args.seed}\n}}\n"
    )


@contextlib.contextmanager
def scratch(args, text):
    """A folder with the model's config and the recipe `r.peft`."""
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        (tmp / "model").mkdir()
        (tmp / "model" / "config.json").write_bytes(shape(args.shape).read_bytes())
        (tmp / "r.peft").write_text(text, encoding="utf-8")
        yield tmp


def check(args, folder, device):
    """The document of `check`, whatever its exit code."""
    command = [str(args.peftc), "check", "--quiet", "--json", "--offline", "--device", device, "r.peft"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)["recipes"][0]
    except (ValueError, LookupError):
        raise Failed(done.stderr) from None


def run(args, name, cell, timeout=None):
    """Figures of one run: samples/s, and bytes as they were estimated for the device and measured on it."""
    with scratch(args, recipe(args, name, cell)) as tmp:
        planned = check(args, tmp, args.device)["stages"]
        if not planned:
            raise Failed("`check` refuses the recipe")
        command = [str(args.peftc), "run", "--quiet", "--json", "--offline", "--device", args.device,
                   "--threads", str(args.threads), "r.peft"]
        with (tmp / "err").open("w+") as err:
            process = subprocess.Popen(command, cwd=tmp, stdout=subprocess.DEVNULL, stderr=err)
            usage = wait(process, timeout)
            if process.returncode:
                err.seek(0)
                raise Failed(err.read())
        folder = tmp / ".peftc" / "runs" / "r"
        rows = [json.loads(line) for line in (folder / "s" / "metrics.jsonl").read_text().splitlines()]
        stage = json.loads((folder / "result.json").read_text())["stages"][0]
    if stage["device"].split(":")[0] != args.device.split(":")[0]:
        raise Failed(f"ran on {stage['device']}")
    # The logged rate is that of all steps so far.
    ends = [0.0] + [cell["batch"] * row["step"] / row["samples_per_s"] for row in rows]
    times = [b - a for a, b in zip(ends, ends[1:])][args.warmup :]
    beside = planned[0]["memory"]["device"] or {"cublas_workspace": 0, "total": None}
    return {
        "rate": cell["batch"] / statistics.median(times),
        "loss": rows[-1]["loss"],
        "process": usage.ru_maxrss * 1024,
        "peak": stage["measured_peak_bytes"] + beside["cublas_workspace"],
        "estimated": stage["estimated_peak_bytes"] + beside["cublas_workspace"],
        "estimated_total": beside["total"],
        "weights_bytes": stage["memory"]["frozen_weights"] + stage["memory"]["trainable_weights"],
        "device": stage["device"],
    }


def wait(process, timeout):
    """Waits for a process and gives what it used; one that takes too long is ended."""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        done, status, usage = os.wait4(process.pid, 0 if until is None else os.WNOHANG)
        if done:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage
        if time.monotonic() > until:
            process.kill()
            os.wait4(process.pid, 0)
            process.returncode = -9
            raise Failed(f"not done after {timeout:.0f} s")
        time.sleep(0.01)
