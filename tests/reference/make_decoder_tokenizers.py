"""Writes decoder_tokenizers.json: what transformers' AutoTokenizer makes of tokenizers of decoders.

    python tests/reference/make_decoder_tokenizers.py        (transformers 5.24.0, tokenizers 0.23.3)

Cases are written as in tokenizers.json. There are two vocabularies, byte-level BPE and BPE of pieces that falls back to
bytes, each under every model type and class name of decoders, and with variations of the keys that the classes read.
"""

import json
import pathlib
import tempfile

import make_tokenizers as base
import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer

TEXTS = [
    "a good film", "I'LL don't we've", "in 1234 or 12 and 3.14%", "line\n\n  next\tand \r\n end  ", "e\u0301 naïve Å \u212b",
    "电影 is 好", "<|im_start|>user\nhi<|im_end|>\n", "<s> a</s> b <bos><eos>", "x<|endoftext|>y <|endoftext|>", "▁under▁score", "",
    "   lead and trail   ", "emoji 🙂👍🏽", "\u0000 \ufffd \u00a0 \u200b", "CamelCaseWords 'quoted' (paren) [x] {y}",
    "a <unk> b <pad>", "<|padding|>z",
]
PAIRS = [["a good film", "12"], ["", "x"]]
WORDS = ["a good film it was great new don't film good great Good film 12 1234 user hi next line under score"] * 4
NAMES = ["<unk>", "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|padding|>"]


def trained(own, alphabet, special):
    own.train_from_iterator(WORDS, BpeTrainer(vocab_size=len(special) + len(alphabet) + 60, special_tokens=special,
                                              initial_alphabet=alphabet, show_progress=False))
    return json.loads(own.to_str())["model"]


def byte_level():
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(own, pre_tokenizers.ByteLevel.alphabet(), NAMES)


def pieces():
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    letters = sorted(set("▁abcdefghijklmnopqrstuvwxyzABCDEFGHI0123456789.,'%é电"))
    return trained(own, letters, NAMES + [f"<0x{i:02X}>" for i in range(256)])


MODELS = {"bytes": byte_level(), "pieces": pieces()}


def serialized(kind, **parts):
    model = MODELS[kind]
    vocab, merges = model["vocab"], [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    if kind == "bytes":
        own = Tokenizer(models.BPE(vocab, merges))
        own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        own.post_processor = processors.ByteLevel(trim_offsets=False)
    else:
        own = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        own.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])])
    document = json.loads(own.to_str())
    document["added_tokens"] = [base.special(t, vocab[t]) for t in NAMES]
    for name, value in parts.items():
        if name.startswith("model_"):
            document["model"][name.removeprefix("model_")] = value
        else:
            document[name] = value
    return document


def older():
    model = MODELS["bytes"]
    merges = "".join((" ".join(m) if isinstance(m, list) else m) + "\n" for m in model["merges"])
    return {"vocab.json": model["vocab"], "merges.txt": "#version: 0.2\n" + merges}


TYPES = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3", "olmo2", "granite", "gpt2",
         "gpt_neox"]
CLASSES = [None, "LlamaTokenizerFast", "GPT2Tokenizer", "Qwen2TokenizerFast", "GemmaTokenizer", "GPTNeoXTokenizerFast",
           "PreTrainedTokenizerFast"]
OWN = {"LlamaTokenizer": "pieces", "GPT2Tokenizer": "bytes", "Qwen2Tokenizer": "bytes", "GemmaTokenizer": "pieces",
       "GPTNeoXTokenizer": "bytes"}


def cases():
    made = []

    def add(name, model_type, files, config):
        files = dict(files)
        if config is not None:
            files["tokenizer_config.json"] = config
        made.append((name, model_type, files))

    for model_type in TYPES:
        for name in CLASSES:
            for kind in MODELS:
                config = None if name is None else {"tokenizer_class": name}
                add(f"{name} {kind}", model_type, {"tokenizer.json": serialized(kind)}, config)
    bare = {"post_processor": None}
    odd = {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}}
    both = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [NAMES.index(t)], "tokens": [t]} for t in ("<s>", "</s>")}}
    for name, kind in OWN.items():
        for config in [{"add_prefix_space": True}, {"add_prefix_space": False}, {"legacy": True}, {"legacy": False, "add_prefix_space": True},
                       {"add_bos_token": True, "add_eos_token": True}, {"bos_token": None, "eos_token": "<|im_end|>"},
                       {"unk_token": "<pad>"}, {"split_special_tokens": True}, {"extra_special_tokens": ["[new]", "good"]},
                       {"added_tokens_decoder": {"6": {"content": "<|endoftext|>", "special": True, "normalized": False},
                                                 "700": {"content": "film", "lstrip": True, "special": False}}}]:
            add(f"{name} {json.dumps(config)}", "llama", {"tokenizer.json": serialized(kind)}, {"tokenizer_class": name} | config)
        for title, parts in (("bare", bare), ("odd", odd), ("both ends", {"post_processor": both}),
                             ("whole words", {"model_ignore_merges": True})):
            add(f"{name} {title}", "llama", {"tokenizer.json": serialized(kind, **parts)}, {"tokenizer_class": name})
            add(f"as it is {name} {title}", "smollm3", {"tokenizer.json": serialized(kind, **parts)},
                {"tokenizer_class": "PreTrainedTokenizerFast"})
        if kind == "bytes":
            add(f"{name} older", "llama", older(), {"tokenizer_class": name, "add_prefix_space": True})
    for model_type in ("gpt2", "qwen2", "gpt_neox"):
        add("older", model_type, older(), None)
    return made


def main():
    here = pathlib.Path(__file__).parent
    bodies, list_of, lost = [], [], []

    def place(content):
        if content not in bodies:
            bodies.append(content)
        return bodies.index(content)

    for name, model_type, files in cases():
        with tempfile.TemporaryDirectory() as folder:
            base.write(folder, model_type, files)
            try:
                rows = base.rows(AutoTokenizer.from_pretrained(folder), TEXTS, PAIRS)
            except Exception as why:
                lost.append((model_type, name, str(why)[:90]))
                continue
        own = {"name": name, "model_type": model_type, "files": {n: place(c) for n, c in files.items()}}
        own["rows"] = place(rows)
        list_of.append(own)
    document = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "texts": TEXTS, "pairs": PAIRS, "rows": base.ROWS, "bodies": bodies, "cases": list_of,
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    (here / "decoder_tokenizers.json").write_text(text.replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")
    print(len(list_of), "cases,", len(text.encode()) // 1024, "KiB; what transformers refuses:", *lost, sep="\n")


if __name__ == "__main__":
    main()
