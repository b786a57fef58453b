#!/usr/bin/env python3
"""Compares two builds of peftc: the same recipes must give the same estimates, losses, metrics and predictions.

    tests/compare/binaries.py OLD NEW [--steps 6] [--only TEXT] [--drawn FOLDER]

Both binaries check every recipe of `recipes/` and `tests/cases`; both run every recipe of `recipes/reviews` and the
quickstart with a few steps a stage. With `--drawn FOLDER` they run the recipes that `prove --keep FOLDER` left there
instead. What differs is printed, and the exit status is 1. Hashes, times and paths are left out: they may differ.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What two builds may say differently of the same work.
LEFT_OUT = {
    "fingerprint", "hash", "version", "seconds", "samples_per_s", "started", "finished", "date", "machine", "path",
    "dir", "entry", "artifact", "measured_process_bytes", "profile", "ms", "rates", "time", "took_s",
}


def plain(value):
    """A JSON value without what may differ."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in LEFT_OUT and not k.endswith(("_s", "_seconds"))}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, str):
        return re.sub(r"[0-9a-f]{16,}|/tmp/\S+", "…", value)
    return value


def differences(a, b, at=""):
    """Paths at which two JSON values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted(a.keys() | b.keys()) for d in differences(a.get(k), b.get(k), f"{at}.{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{at}[{i}]")]
    return [] if a == b else [f"{at}: {str(a)[:100]} | {str(b)[:100]}"]


def said(binary, args, cwd):
    run = subprocess.run([binary, *args], cwd=cwd, capture_output=True, text=True, timeout=1800)
    try:
        told = plain(json.loads(run.stdout))
    except ValueError:
        told = plain(run.stdout)
    return {"exit": run.returncode, "said": told}


def shortened(text, steps):
    """A recipe with few steps a stage, evaluated seldom."""
    text = re.sub(r"\bepochs\s*=\s*[\w.]+", f"steps = {steps}", text)
    text = re.sub(r"\bsteps\s*=\s*[\w.]+", f"steps = {steps}", text)
    text = re.sub(r"\bevaluate\s*=\s*\d+\s*steps", f"evaluate = {steps} steps", text)
    return re.sub(r"\bsamples\s*=\s*\d{3,}", "samples = 16", text)


def written(out):
    """Logs and predictions of a run."""
    told = {}
    for file in sorted(out.rglob("*.jsonl")) + sorted(out.rglob("*.tsv")):
        lines = file.read_text().splitlines()
        if file.suffix == ".jsonl":
            lines = [plain(json.loads(line)) for line in lines]
        told[str(file.relative_to(out))] = lines
    return told


def ran(binary, recipe, steps):
    """Losses, metrics, estimates and predictions of a shortened run."""
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        shutil.copytree(ROOT / "recipes", place / "recipes")
        for file in (place / "recipes").rglob("*.peft"):
            file.write_text(shortened(file.read_text(), steps))
        out = place / "out"
        args = ["run", "--quiet", "--json", "--fresh", "--threads", "2", "--store", str(place / "store"), "--out", str(out)]
        return said(binary, [*args, str(place / recipe)], place) | written(out)


def drawn(binary, folder):
    """The results of a drawn recipe, its logs and its predictions."""
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place) / "drawn"
        shutil.copytree(folder, place)
        args = ["run", "--quiet", "--json", "--fresh", "--offline", "--threads", "2", "--store", "store", "--out", "out"]
        return said(binary, [*args, "drawn.peft"], place) | written(place / "out")


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("old")
    ask.add_argument("new")
    ask.add_argument("--steps", type=int, default=6)
    ask.add_argument("--only", default="")
    ask.add_argument("--drawn", type=pathlib.Path)
    asked = ask.parse_args()
    binaries = [str(pathlib.Path(b).resolve()) for b in (asked.old, asked.new)]
    recipes = sorted((ROOT / "recipes").rglob("*.peft"))
    cases = sorted((ROOT / "tests" / "cases").glob("*.peft"))
    wrong = compared = 0

    def show(name, a, b):
        nonlocal wrong, compared
        compared += 1
        found = differences(a, b)
        wrong += bool(found)
        for line in found[:12]:
            print(f"{name}{line}", flush=True)

    if asked.drawn:
        for folder in sorted(asked.drawn.iterdir(), key=lambda f: (len(f.name), f.name)):
            show(f"draw {folder.name} ", *(drawn(b, folder) for b in binaries))
        recipes, cases = [], []
    for file in recipes + cases:
        if asked.only in str(file):
            args = ["check", "--offline", "--json", "--threads", "2", str(file.relative_to(ROOT))]
            show(f"check {file.relative_to(ROOT)} ", *(said(b, args, ROOT) for b in binaries))
    for file in recipes:
        name = file.relative_to(ROOT)
        if asked.only in str(file) and (name.parent.name == "reviews" or name.name == "quickstart.peft"):
            show(f"run {name} ", *(ran(b, name, asked.steps) for b in binaries))
    print(f"{compared} compared, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
