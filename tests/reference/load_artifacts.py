#!/usr/bin/env python3
"""Load an exported artifact with transformers / peft and print its logits.

    python tests/reference/load_artifacts.py ARTIFACT TEXTS.tsv [options]

ARTIFACT is a folder that holds `adapter/` (peft layout) or `model/` (Hugging Face
layout), or is such a folder itself; with both, `--kind` chooses (default: model).
TEXTS.tsv has a header line; `--text` and `--pair` name its columns (default: `sentence`
if there is one, else the first column).  One JSON line a row goes to standard output:

    {"row": 0, "logits": [...], "label": "positive"}

An adapter's base model is looked for under `base_model_name_or_path` as given, then
beside the adapter and its parent folders, then in `tests/reference/`; `--base DIR` says
it outright.  The number of labels comes from the trained head that the adapter holds.
The tokenizer is taken from the first of model folder, adapter folder, artifact folder
and base folder that has one; `--tokenizer DIR` says it outright.  Rows are run one by
one, without padding, in f32 and evaluation mode.  Nothing is fetched from a hub.

Needs torch, transformers, peft (versions: top of make_traces.py).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
HEADS = ("classifier.out_proj.weight", "classifier.weight", "score.weight")


def find_parts(artifact, kind):
    """('adapter' | 'model', folder)"""
    model = artifact / "model" if (artifact / "model").is_dir() else artifact
    adapter = artifact / "adapter" if (artifact / "adapter").is_dir() else artifact
    has_model = (model / "config.json").is_file()
    has_adapter = (adapter / "adapter_config.json").is_file()
    if has_model and kind != "adapter":
        return "model", model
    if has_adapter and kind != "model":
        return "adapter", adapter
    sys.exit(f"{artifact}: no model/config.json and no adapter/adapter_config.json to load")


def find_base(named, adapter):
    """The base model's folder."""
    tries = [Path(named)]
    tries += [parent / named for parent in [adapter, *adapter.resolve().parents]]
    tries += [HERE / named, HERE.parent.parent / named]
    for folder in tries:
        if (folder / "config.json").is_file():
            return folder
    sys.exit(f"{adapter}: base model {named!r} not found; name its folder with --base")


def labels_in(adapter):
    """Number of outputs of the head in an adapter's tensor file, or None."""
    path = adapter / "adapter_model.safetensors"
    if not path.is_file():
        return None
    with safe_open(path, "pt") as f:
        for key in f.keys():
            if key.endswith(HEADS):
                return f.get_slice(key).get_shape()[0]
    return None


def load_tokenizer(folders):
    for folder in folders:
        if folder is None or not folder.is_dir():
            continue
        names = {p.name for p in folder.iterdir()}
        if names & {"tokenizer_config.json", "vocab.txt", "vocab.json"}:
            return AutoTokenizer.from_pretrained(str(folder))
        if "tokenizer.json" in names:
            return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    sys.exit("no tokenizer found; name its folder with --tokenizer")


def load_model(kind, folder, base):
    if kind == "model":
        return AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=torch.float32)
    import peft

    config = AutoConfig.from_pretrained(str(base))
    count = labels_in(folder)
    if count is not None and count != config.num_labels:
        config.num_labels = count
    model = AutoModelForSequenceClassification.from_pretrained(
        str(base), config=config, dtype=torch.float32
    )
    return peft.PeftModel.from_pretrained(model, str(folder))


def read_columns(path, text, pair):
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    header = lines[0].rstrip("\r").split("\t")
    if text is None:
        text = "sentence" if "sentence" in header else header[0]
    for name in (text, pair):
        if name is not None and name not in header:
            sys.exit(f"{path}: no column {name!r} (columns: {', '.join(header)})")
    a, b = header.index(text), None if pair is None else header.index(pair)
    for line in lines[1:]:
        if line:
            cells = line.rstrip("\r").split("\t")
            yield cells[a], None if b is None else cells[b]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--kind", choices=["model", "adapter"])
    parser.add_argument("--text", help="column of the (first) text")
    parser.add_argument("--pair", help="column of the second text")
    parser.add_argument("--base", type=Path, help="base model folder of an adapter")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--limit", type=int, help="rows to run")
    parser.add_argument("--merge", action="store_true", help="merge the adapter first")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()

    kind, folder = find_parts(args.artifact, args.kind)
    base = None
    if kind == "adapter":
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = args.base or find_base(config["base_model_name_or_path"], folder)
    model = load_model(kind, folder, base).eval()
    if args.merge:
        if kind != "adapter":
            sys.exit("--merge is for adapters")
        model = model.merge_and_unload().eval()
    tok = load_tokenizer([args.tokenizer] if args.tokenizer else [folder, args.artifact, base])
    names = model.config.id2label
    wants_types = getattr(model.config, "type_vocab_size", 0) > 1
    for row, (text, pair) in enumerate(read_columns(args.texts, args.text, args.pair)):
        if args.limit is not None and row >= args.limit:
            break
        e = tok(
            text,
            pair,
            truncation="longest_first",
            max_length=args.max_length,
            return_token_type_ids=True,
        )
        inputs = {"input_ids": torch.tensor([e["input_ids"]])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if wants_types:
            inputs["token_type_ids"] = torch.tensor([e["token_type_ids"]])
        with torch.no_grad():
            logits = model(**inputs).logits[0].tolist()
        line = {"row": row, "logits": logits}
        if len(logits) > 1:
            line["label"] = names.get(max(range(len(logits)), key=logits.__getitem__))
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
