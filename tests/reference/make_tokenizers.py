"""Writes tokenizers.json: what transformers' AutoTokenizer makes of the files of many small tokenizers.

    python tests/reference/make_tokenizers.py        (transformers 5.24.0, tokenizers 0.23.3)

Each case is a folder of files, written in full: a vocabulary in one of three kinds (WordPiece, byte-level BPE,
Unigram), as tokenizer.json or as the older files, under a model type, with a variation of the other files. For
each text and pair of `texts` and `pairs` there are the ids and, where a segment is not 0, the segments that the
model is shown. `refused` cases are those that peftc does not follow and says so. compare_models.py takes the cases
from here.
"""

import json
import os
import pathlib
import tempfile

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer

ROWS = 4096
TEXTS = [
    "a good film",
    "A Good FILM",
    "Überraschung, naïve café",
    "电影 is 好",
    "x[MASK]y",
    " <mask> z",
    "[CLS] [SEP] <s></s>",
    "a <pad> [PAD] b",
    "",
    "  two   spaces\tand\nlines ",
    "İstanbul ǅ ﬁ ½",
    "zero\u200bwidth \u00ad \u0000 \ufffd",
    "emoji 🙂👍🏽",
    "NEW new <new> [NEW]extra",
    "don't; it's 3.14%!",
    "#hash @at ##ing",
    "\u0301accent e\u0301",
    "it was great",
]
PAIRS = [["a good film", "bad"], ["A", "電影 [SEP] b"], ["", "x"]]

LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
CAPITALS = [c.upper() for c in LETTERS]


def word_piece_vocab():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "Good", "FILM", "great", "was", "it", "is",
             "naive", "café", "NEW", "new", "电", "影", "好", "extra", "##ing", "##t", "3", "14", ".", ",", "!", "%", "'", ";",
             "<", ">", "#", "@", "[", "]", "½", "i", "fi", "uber", "Uber", "accent", "é"]
    tokens = words + LETTERS + CAPITALS + ["##" + c for c in LETTERS + CAPITALS]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def byte_level_files():
    trainer = BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.train_from_iterator(["a good film it was great new NEW don't film good great Good FILM"] * 4, trainer)
    model = json.loads(own.to_str())["model"]
    return model["vocab"], [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]


def unigram_vocab():
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(t, 0.0) for t in specials]
    words = ["▁", "▁good", "▁film", "▁a", "▁it", "▁was", "▁great", "▁new", "▁NEW", "film", "good", "▁Good", "é", "电", "影", "好"]
    pieces += [(w, -2.0 - i / 10) for i, w in enumerate(words)]
    pieces += [(c, -6.0 - i / 10) for i, c in enumerate(LETTERS + CAPITALS + list("0123456789.,;!%'#@<>[]"))]
    return pieces + [("<mask>", 0.0)]


def special(content, number, **more):
    own = {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
           "special": True}
    return own | more


def serialized(kind, **parts):
    """A tokenizer.json as transformers writes it, with other parts where they are given."""
    if kind == "wordpiece":
        vocab = word_piece_vocab()
        own = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
        own.normalizer = normalizers.BertNormalizer(lowercase=True)
        own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        own.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        added = [special(t, i) for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])]
    elif kind == "bpe":
        vocab, merges = byte_level_files()
        own = Tokenizer(models.BPE(vocab, [tuple(m.split(" ")) for m in merges]))
        own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        own.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
        names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        added = [special(t, vocab[t], lstrip=t == "<mask>") for t in names]
    elif kind == "albert":
        names = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
        pieces = [(t, 0.0) for t in names] + [p for p in unigram_vocab() if p[0][0] != "<" or p[0] == "<"]
        own = Tokenizer(models.Unigram(pieces, unk_id=1, byte_fallback=False))
        quotes = [normalizers.Replace(marks, '"') for marks in ("``", "''")]
        own.normalizer = normalizers.Sequence(quotes + [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
        own.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
        own.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        added = [special(t, i, lstrip=t == "[MASK]") for i, t in enumerate(names)]
    elif kind == "mpnet":
        vocab = word_piece_vocab()
        names = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
        vocab |= {name: vocab.get(name, len(vocab) + i) for i, name in enumerate(names)}
        own = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
        own.normalizer = normalizers.BertNormalizer(lowercase=True)
        own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        own.post_processor = processors.RobertaProcessing(("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), True, False)
        added = [special(t, vocab[t], lstrip=t == "<mask>") for t in names]
    elif kind == "deberta":
        names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
        pieces = [(t, 0.0) for t in names] + [p for p in unigram_vocab() if p[0][0] != "<" or p[0] == "<"]
        own = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
        own.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip(left=False, right=True)])
        own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always")])
        own.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
        added = [special(t, i) for i, t in enumerate(names)] + [special("[MASK]", len(pieces))]
    else:
        pieces = unigram_vocab()
        own = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
        own.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
        own.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
        added = [special(t, i) for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>"])]
        added.append(special("<mask>", len(pieces) - 1, lstrip=True))
    document = json.loads(own.to_str())
    document["added_tokens"] = added
    for name, value in parts.items():
        if name.startswith("model_"):
            document["model"][name.removeprefix("model_")] = value
        else:
            document[name] = value
    return document


def older(kind):
    if kind == "wordpiece":
        return {"vocab.txt": "".join(t + "\n" for t in word_piece_vocab())}
    vocab, merges = byte_level_files()
    return {"vocab.json": vocab, "merges.txt": "#version: 0.2\n" + "".join(m + "\n" for m in merges)}


CLASS = {"wordpiece": "BertTokenizer", "bpe": "RobertaTokenizer", "unigram": "XLMRobertaTokenizer"}
NATURAL = {"bert": "wordpiece", "distilbert": "wordpiece", "roberta": "bpe", "xlm-roberta": "unigram", "camembert": "unigram"}


def cases():
    """(name, model type, files, whether peftc refuses it)"""
    made = []

    def add(name, model_type, kind, config=None, old=False, refused=False, **more):
        files = dict(older(kind)) if old else {"tokenizer.json": serialized(kind, **more.pop("parts", {}))}
        if config is not None:
            files["tokenizer_config.json"] = config
        files |= {k.replace("__", "."): v for k, v in more.items()}
        made.append((name, model_type, files, refused))

    for model_type, kind in NATURAL.items():
        add("no config", model_type, kind)
        for tokenizer_class in ["BertTokenizer", "DistilBertTokenizerFast", "RobertaTokenizerFast", "XLMRobertaTokenizer",
                                "CamembertTokenizer", "PreTrainedTokenizerFast"]:
            wanted = {v: k for k, v in CLASS.items()}
            of = {"DistilBertTokenizerFast": "wordpiece", "RobertaTokenizerFast": "bpe", "CamembertTokenizer": "unigram"}
            own = of.get(tokenizer_class) or wanted.get(tokenizer_class)
            for other in [own] if own else ["wordpiece", "bpe", "unigram"]:
                add(f"{tokenizer_class} {other}", model_type, other, {"tokenizer_class": tokenizer_class})
    for model_type in ("bert", "distilbert", "roberta"):
        kind = NATURAL[model_type]
        add("older", model_type, kind, old=True)
        add("older named", model_type, kind, {"tokenizer_class": CLASS[kind], "add_prefix_space": True, "do_lower_case": False},
            old=True)
    bert = {"tokenizer_class": "BertTokenizer"}
    for config in [{"do_lower_case": False}, {"strip_accents": False}, {"strip_accents": True, "do_lower_case": False},
                   {"tokenize_chinese_chars": False}, {"strip_accents": None}, {"split_special_tokens": True},
                   {"model_input_names": ["input_ids", "attention_mask"]}, {"cls_token": "[SEP]", "sep_token": "[CLS]"},
                   {"cls_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True}}, {"unk_token": "extra"},
                   {"mask_token": "<new>"}, {"additional_special_tokens": ["NEW", "<new>"]}, {"extra_special_tokens": ["[NEW]"]},
                   {"extra_special_tokens": {"image_token": "<new>"}}, {"image_token": "[NEW]"},
                   {"added_tokens_decoder": {"0": {"content": "[PAD]", "special": True}, "900": {"content": "extra", "lstrip": True},
                                             "901": {"content": "film", "normalized": True, "special": False}}}]:
        for old in (False, True):
            add(f"bert {json.dumps(config)} {'older' if old else ''}", "bert", "wordpiece", bert | config, old=old)
    for config in [{"add_prefix_space": True}, {"add_prefix_space": False}, {"trim_offsets": False}, {"cls_token": "<mask>"},
                   {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}}]:
        for old in (False, True):
            add(f"roberta {json.dumps(config)} {'older' if old else ''}", "roberta", "bpe",
                {"tokenizer_class": "RobertaTokenizer"} | config, old=old)
        add(f"xlmr {json.dumps(config)}", "xlm-roberta", "unigram", {"tokenizer_class": "XLMRobertaTokenizer"} | config)
        add(f"camembert {json.dumps(config)}", "camembert", "unigram", {"tokenizer_class": "CamembertTokenizer"} | config)
    maps = [{"cls_token": "[MASK]", "sep_token": "[PAD]"}, {"pad_token": "[UNK]", "mask_token": {"content": "extra", "lstrip": True,
            "rstrip": False, "single_word": False, "normalized": False}}, {"additional_special_tokens": ["film"]}]
    for own in maps:
        for old in (False, True):
            add(f"map {json.dumps(own)} {old}", "bert", "wordpiece", bert, old=old, special_tokens_map__json=own)
            add(f"map beside a decoder {json.dumps(own)} {old}", "bert", "wordpiece",
                bert | {"added_tokens_decoder": {"2": {"content": "[CLS]", "special": True}}}, old=old, special_tokens_map__json=own)
    for old in (False, True):
        for model_type, kind in (("bert", "wordpiece"), ("roberta", "bpe")):
            add(f"added {old}", model_type, kind, {"tokenizer_class": CLASS[kind]}, old=old,
                added_tokens__json={"<new>": 4000, "[NEW]": 4001, "film": 5})
    lower = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}
    plain = {"tokenizer_class": "PreTrainedTokenizerFast"}
    odd = {"normalizer": lower, "pre_tokenizer": {"type": "Whitespace"}}
    for kind, model_type in (("wordpiece", "bert"), ("bpe", "roberta"), ("unigram", "xlm-roberta"), ("unigram", "camembert")):
        own = {"tokenizer_class": {"camembert": "CamembertTokenizer"}.get(model_type, CLASS[kind])}
        parts = odd if kind != "bpe" else {"normalizer": lower}
        add("odd", model_type, kind, own, parts=parts)
        add("odd as it is", model_type, kind, plain, parts=parts)
        add("no post-processor", model_type, kind, own, parts={"post_processor": None})
        add("no post-processor as it is", model_type, kind, plain, parts={"post_processor": None})
        add("segments as it is", model_type, kind, plain | {"model_input_names": ["input_ids", "token_type_ids"]})
    add("long words", "bert", "wordpiece", bert, parts={"model_max_input_chars_per_word": 3})
    add("long words as it is", "bert", "wordpiece", plain, parts={"model_max_input_chars_per_word": 3})
    add("unknown piece", "xlm-roberta", "unigram", {"tokenizer_class": "XLMRobertaTokenizer"}, parts={"model_unk_id": 0})
    add("unknown piece", "camembert", "unigram", {"tokenizer_class": "CamembertTokenizer"}, parts={"model_unk_id": 0})
    add("no config", "albert", "albert")
    for config in [{}, {"do_lower_case": False}, {"keep_accents": True}, {"do_lower_case": False, "keep_accents": True},
                   {"add_prefix_space": False}, {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}]:
        add(f"albert {json.dumps(config)}", "albert", "albert", {"tokenizer_class": "AlbertTokenizer"} | config)
    add("no config", "electra", "wordpiece")
    add("no config", "mpnet", "mpnet")
    for config in [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}, {"mask_token": "extra"},
                   {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}}]:
        add(f"mpnet {json.dumps(config)}", "mpnet", "mpnet", {"tokenizer_class": "MPNetTokenizer"} | config)
    add("no config", "deberta-v2", "deberta")
    for config in [{}, {"do_lower_case": True}, {"split_by_punct": True}, {"add_prefix_space": False}, {"unk_id": 1},
                   {"vocab_type": "spm"}, {"split_by_punct": True, "do_lower_case": True}, {"unk_token": "▁", "unk_id": 5}]:
        add(f"deberta {json.dumps(config)}", "deberta-v2", "deberta", {"tokenizer_class": "DebertaV2Tokenizer"} | config)
    for name in ("PreTrainedTokenizerFast", "GPT2TokenizerFast", "RobertaTokenizer"):
        add(f"modernbert {name}", "modernbert", "bpe", {"tokenizer_class": name})
    # A class whose model is another.
    for name, kind in (("BertTokenizer", "unigram"), ("RobertaTokenizer", "wordpiece"), ("XLMRobertaTokenizer", "bpe")):
        add(f"{name} {kind}", "bert", kind, {"tokenizer_class": name}, refused=True)
    for config in [{"tokenizer_class": "BertJapaneseTokenizer"}, bert | {"do_basic_tokenize": False}, bert | {"never_split": ["film"]},
                   bert | {"auto_map": {"AutoTokenizer": ["x.Y", None]}}, bert | {"cls_token": None}, bert | {"do_lower_case": "no"},
                   bert | {"truncation_side": "middle"}, bert | {"sp_model_kwargs": {"enable_sampling": True}}]:
        add(json.dumps(config), "bert", "wordpiece", config, refused=True)
    return made


def write(folder, model_type, files):
    folder = pathlib.Path(folder)
    config = {"model_type": model_type, "vocab_size": ROWS}
    for name, content in ({"config.json": config} | files).items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")


def rows(tokenizer, texts, pairs):
    made = []
    for text in [*((t,) for t in texts), *map(tuple, pairs)]:
        own = tokenizer(*text)
        segments = own.get("token_type_ids", [])
        made.append([own["input_ids"], segments] if any(segments) else [own["input_ids"]])
    return made


def main():
    here = pathlib.Path(__file__).parent
    # What several cases have in common is written once.
    bodies = []

    def place(name, content):
        if content not in bodies:
            bodies.append(content)
        return bodies.index(content)

    list_of = []
    for name, model_type, files, refused in cases():
        own = {"name": name, "model_type": model_type, "files": {n: place(n, c) for n, c in files.items()}}
        if refused:
            own["refused"] = True
        else:
            with tempfile.TemporaryDirectory() as folder:
                write(folder, model_type, files)
                own["rows"] = place("", rows(AutoTokenizer.from_pretrained(folder), TEXTS, PAIRS))
        list_of.append(own)
    document = {
        "versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "texts": TEXTS, "pairs": PAIRS, "rows": ROWS, "bodies": bodies, "cases": list_of,
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    (here / "tokenizers.json").write_text(text.replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")
    print(len(list_of), "cases,", len(text.encode()) // 1024, "KiB")


if __name__ == "__main__":
    main()
