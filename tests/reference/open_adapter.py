#!/usr/bin/env python3
"""Open an exported adapter folder in every way that peft and transformers document, and compare the logits.

    python tests/reference/open_adapter.py ADAPTER TEXTS.tsv [PREDICTIONS.tsv]

ADAPTER is the `adapter/` folder of a finished stage. TEXTS.tsv has a column `sentence` or `text`.  With PREDICTIONS.tsv,
what an `eval` stage wrote of the same texts, the logits are compared with those too.  The ways: `PeftModel` on the base,
`AutoPeftModelForSequenceClassification`, `AutoModelForSequenceClassification` on the folder itself, and
`pipeline("text-classification")` on it; all from another working directory.  One line a way goes to standard output, with
the largest difference from the first; the exit code is 1 if one fails or is more than 1e-5 off.

Needs torch, transformers, peft (versions: top of make_traces.py).
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import csv
import json
import sys
from pathlib import Path

import torch
import transformers
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

HEADS = ("classifier.out_proj.weight", "classifier.weight")


def main():
    adapter = str(Path(sys.argv[1]).resolve())
    with open(sys.argv[2], newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    texts = [row.get("sentence") or row["text"] for row in rows]
    wanted = None
    if len(sys.argv) > 3:
        with open(sys.argv[3], newline="") as f:
            wanted = [[float(v) for k, v in row.items() if k.startswith("score")] for row in csv.DictReader(f, delimiter="\t")]
    base = json.loads(Path(adapter, "adapter_config.json").read_text())["base_model_name_or_path"]
    with safe_open(Path(adapter, "adapter_model.safetensors"), "pt") as f:
        labels = next(f.get_slice(k).get_shape()[0] for k in f.keys() if k.endswith(HEADS))
    os.chdir("/")
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(adapter)

    def logits(model):
        model.eval()
        with torch.no_grad():
            return [model(**tokenizer(t, return_tensors="pt")).logits[0].tolist() for t in texts]

    def piped():
        made = pipeline("text-classification", model=adapter, tokenizer=adapter, top_k=None, function_to_apply="none")
        order = made.model.config.id2label
        found = [{x["label"]: x["score"] for x in row} for row in made(texts)]
        return [[row[order[i]] for i in range(labels)] for row in found]

    auto = AutoModelForSequenceClassification
    ways = {
        "PeftModel": lambda: logits(PeftModel.from_pretrained(auto.from_pretrained(base, num_labels=labels), adapter)),
        "AutoPeft": lambda: logits(AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=labels)),
        "AutoModel": lambda: logits(auto.from_pretrained(adapter, num_labels=labels)),
    }
    if labels == 2:  # more than the base's number need a model that was made before
        ways["pipeline"] = piped
    failed = False
    for name, way in ways.items():
        found = way()
        wanted = wanted or found
        off = max(abs(a - b) for x, y in zip(found, wanted, strict=True) for a, b in zip(x, y, strict=True))
        failed |= off > 1e-5
        print(f"{name}: {len(found)} texts, off by at most {off:.1e}")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
