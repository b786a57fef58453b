#!/usr/bin/env python3
"""Write the PyTorch reference files of this folder.

How to run (from the repository root, one thread, under a minute):

    python3 -m venv .venv
    .venv/bin/pip install torch==2.15.0 transformers==5.23.0 peft==0.21.2 \\
        tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6
    .venv/bin/python tests/reference/make_traces.py            # --assets recipes

`--assets DIR` names the folder that holds `reviews/train.tsv` and `reviews-mini/`;
`--out DIR` writes somewhere else than next to this script (used to check that two
runs give the same bytes).  Versions used: Python 3.11.7 and those of the pip line.
Everything is seeded and runs on one CPU thread: two runs on one machine give identical
files.  Another CPU or another BLAS may change the last digits of the float results.

What it writes
  bert-tiny/  roberta-tiny/  distilbert-tiny/   random checkpoints, Hugging Face layout
  <checkpoint>-lora/            untrained peft LoRA adapters (A random, B = 0)
  bert-tiny-lora-trained/       the bert-tiny adapter after the 20 steps of its curve
  forward.json                  token ids, logits and hidden states, evaluation mode
  curves.json                   20 AdamW steps per checkpoint and method
README.md beside this file gives the JSON layouts.

The methods follow PyTorch, transformers and peft; SiVA has no public code and is
transcribed here (class SivaLinear): W0 = U S V, W_r = the triplets r+1..n, frozen,
y = x W_r' + ((x V_t') * S_t) U_t' + b, with U_t [out, r] and V_t [r, in] trained.
"""

import os

# One thread everywhere, set before numpy and torch are loaded.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import argparse
import copy
import json
import math
import platform
import shutil
import sys
import zlib
from pathlib import Path

import numpy
import peft
import safetensors
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers
from tokenizers.implementations import ByteLevelBPETokenizer
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification
from transformers import DistilBertConfig, DistilBertForSequenceClassification
from transformers import RobertaConfig, RobertaForSequenceClassification

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent

VOCAB = 900
HIDDEN = 64
LAYERS = 3
HEADS = 4
FFN = 128
STD = 0.05
LINEAR_STD = 0.15  # weights of linear layers: enough for attention that is not flat
MAX_LENGTH = 64
BATCH = 16
STEPS = 20
LABELS = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}

# Rows of reviews/train.tsv (0 = first row after the header).
SENTENCE_ROWS = [2064, 2, 388, 57, 133, 6416]
PAIR_ROWS = [(2, 1), (6416, 388), (57, 3306)]
MLM_ROWS = [2, 388, 57]
MLM_WORDS = ["great", "terrible", "good", "bad", "the"]

TARGETS = {
    "bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
}
TARGETS["roberta"] = TARGETS["bert"]
# Name fragments of the head's tensors, per architecture.
HEAD = {
    "bert": ["bert.pooler.", "classifier."],
    "roberta": ["classifier."],
    "distilbert": ["pre_classifier.", "classifier."],
}
HEAD_MODULES = {
    "bert": ["pooler", "classifier"],
    "roberta": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
}
LAST_BLOCK = {
    "bert": f"bert.encoder.layer.{LAYERS - 1}.",
    "roberta": f"roberta.encoder.layer.{LAYERS - 1}.",
    "distilbert": f"distilbert.transformer.layer.{LAYERS - 1}.",
}
METHODS = ["full", "last_n", "bitfit", "lora", "siva", "head_only"]
LR = {"full": 5e-5, "last_n": 5e-5, "bitfit": 1e-3, "lora": 1e-3, "siva": 1e-3, "head_only": 1e-3}
RANK = 4
ALPHA = 8


# ------------------------------------------------------------------------------ data


def read_rows(path):
    """(sentence, label) of every row of a reviews TSV."""
    with open(path, encoding="utf-8", newline="\n") as f:
        lines = f.read().split("\n")
    if lines[0].split("\t") != ["sentence", "label", "score"]:
        sys.exit(f"{path}: the header is not sentence, label, score")
    rows = [line.split("\t") for line in lines[1:] if line]
    return [(r[0], int(r[1])) for r in rows]


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")


def compact_lists(text):
    """Put lists of plain numbers on one line (they were written one number a line)."""
    out, depth, buf = [], 0, []
    for line in text.split("\n"):
        bare = line.strip()
        opens = bare.endswith("[")
        if depth == 0 and opens:
            depth, buf = 1, [line]
        elif depth == 1 and (bare.rstrip(",").lstrip("-").replace(".", "").replace("e", "")
                             .replace("-", "").replace("+", "").isdigit()):
            buf.append(bare)
        elif depth == 1 and bare in ("]", "],") and len(buf) > 1:
            out.append(buf[0] + " ".join(buf[1:]) + bare)
            depth = 0
        elif depth == 1:
            out.extend(buf)
            buf, depth = ([line], 1) if opens else ([], 0)
            if not opens:
                out.append(line)
        else:
            out.append(line)
    return "\n".join(out)


def write_numbers(path, value):
    text = compact_lists(json.dumps(value, indent=1, ensure_ascii=False))
    assert json.loads(text) == value
    path.write_text(text + "\n", encoding="utf-8")


# ------------------------------------------------------------------------ tokenizers


def train_wordpiece(sentences):
    """Lower-case WordPiece; the trainer's ids vary between runs, so they are re-made."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

    def bare(model):
        t = Tokenizer(model)
        t.normalizer = normalizers.BertNormalizer(lowercase=True)
        t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return t

    t = bare(models.WordPiece(unk_token="[UNK]"))
    t.train_from_iterator(
        sentences,
        trainers.WordPieceTrainer(vocab_size=VOCAB, special_tokens=specials, show_progress=False),
    )
    words = specials + sorted(set(t.get_vocab()) - set(specials))
    vocab = {w: i for i, w in enumerate(words)}
    t = bare(models.WordPiece(vocab, unk_token="[UNK]"))
    t.add_special_tokens(specials)
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    t.decoder = decoders.WordPiece(prefix="##")
    return t, words


def save_roberta_tokenizer(sentences, folder):
    """Byte-level BPE, given only as vocab.json and merges.txt."""
    t = ByteLevelBPETokenizer()
    t.train_from_iterator(
        sentences,
        vocab_size=VOCAB - 1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        show_progress=False,
    )
    t.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocab["<mask>"] = len(vocab)
    (folder / "vocab.json").write_text(
        json.dumps(dict(sorted(vocab.items(), key=lambda kv: kv[1])), ensure_ascii=False),
        encoding="utf-8",
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "mask_token": "<mask>",
            "model_max_length": 128,
            "pad_token": "<pad>",
            "sep_token": "</s>",
            "tokenizer_class": "RobertaTokenizer",
            "unk_token": "<unk>",
        },
    )


# ----------------------------------------------------------------------- checkpoints


def randomise(model, seed_name):
    """Every tensor N(0, STD^2), LayerNorm weights 1 + that, linear weights N(0, LINEAR_STD^2).

    Biases and LayerNorm tensors are random too, so that a forgotten one shows; each
    tensor is seeded by its name.
    """
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm)}
    linears = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    with torch.no_grad():
        for name, p in model.named_parameters():
            g = torch.Generator().manual_seed(zlib.crc32(f"{seed_name}/{name}".encode()))
            std = LINEAR_STD if id(p) in linears else STD
            p.copy_(torch.randn(p.shape, generator=g) * std + (1.0 if id(p) in norms else 0.0))


def make_checkpoints(out, sentences):
    for name in ("bert-tiny", "roberta-tiny", "distilbert-tiny"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)

    wordpiece, words = train_wordpiece(sentences)
    wordpiece.save(str(out / "bert-tiny" / "tokenizer.json"))
    (out / "distilbert-tiny" / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    for name, cls in (("bert-tiny", "BertTokenizer"), ("distilbert-tiny", "DistilBertTokenizer")):
        write_json(
            out / name / "tokenizer_config.json",
            {"do_lower_case": True, "model_max_length": 128, "tokenizer_class": cls},
        )
    save_roberta_tokenizer(sentences, out / "roberta-tiny")

    common = dict(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        initializer_range=STD,
    )
    built = {
        "bert-tiny": BertForSequenceClassification(
            BertConfig(max_position_embeddings=130, pad_token_id=0, **common, **LABELS)
        ),
        "roberta-tiny": RobertaForSequenceClassification(
            RobertaConfig(
                max_position_embeddings=132,
                type_vocab_size=1,
                pad_token_id=1,
                bos_token_id=0,
                eos_token_id=2,
                layer_norm_eps=1e-5,
                **common,
                **LABELS,
            )
        ),
        "distilbert-tiny": DistilBertForSequenceClassification(
            DistilBertConfig(
                vocab_size=VOCAB,
                max_position_embeddings=130,
                dim=HIDDEN,
                n_layers=LAYERS,
                n_heads=HEADS,
                hidden_dim=FFN,
                dropout=0.1,
                attention_dropout=0.1,
                seq_classif_dropout=0.1,
                sinusoidal_pos_embds=False,
                initializer_range=STD,
                pad_token_id=0,
                **LABELS,
            )
        ),
    }
    for name, model in built.items():
        randomise(model, name)
        model.save_pretrained(out / name)


def arch_of(name):
    return name.split("-")[0]


def load(name, dtype=torch.float32):
    """A checkpoint by its folder name (the working directory is the output folder)."""
    model = AutoModelForSequenceClassification.from_pretrained(
        name, attn_implementation="eager", dtype=torch.float32
    )
    return model.to(dtype).eval()


# --------------------------------------------------------------------------- forward


def tokenizer_of(name):
    t = AutoTokenizer.from_pretrained(name)
    if name == "distilbert-tiny":
        # vocab.txt must give exactly what bert-tiny's tokenizer.json gives.
        other = AutoTokenizer.from_pretrained("bert-tiny")
        for text in ("An overcooked soufflé, 100% bad!", "It's FINE – really."):
            assert t(text)["input_ids"] == other(text)["input_ids"]
    return t


def encode(tok, text, pair):
    e = tok(text, pair, truncation="longest_first", max_length=MAX_LENGTH, return_token_type_ids=True)
    return e["input_ids"], e["token_type_ids"]


def feed(name, ids, types):
    """Model arguments for lists of equally long id rows."""
    args = {"input_ids": torch.tensor(ids)}
    if arch_of(name) == "bert":
        args["token_type_ids"] = torch.tensor(types)
    return args


@torch.no_grad()
def logits_of(model, name, ids, types):
    o = model(**feed(name, [ids], [types]), output_hidden_states=True)
    return o.logits[0].tolist(), o.hidden_states[-1][0, 0].tolist()


def forward_cases(rows):
    models_out = {}
    for name in ("bert-tiny", "roberta-tiny", "distilbert-tiny"):
        tok, model = tokenizer_of(name), load(name)
        cases = []
        todo = [(rows[i][0], None) for i in SENTENCE_ROWS]
        todo += [(rows[i][0], rows[j][0]) for i, j in PAIR_ROWS]
        for text, pair in todo:
            ids, types = encode(tok, text, pair)
            logits, hidden = logits_of(model, name, ids, types)
            cases.append(
                {
                    "text": text,
                    "pair": pair,
                    "ids": ids,
                    "type_ids": types,
                    "logits": logits,
                    "first_token_hidden": hidden[:8],
                }
            )
        models_out[name] = {"max_length": MAX_LENGTH, "cases": cases}
    return models_out


def mlm_cases(assets, rows):
    folder = assets / "reviews-mini"
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model, info = BertForMaskedLM.from_pretrained(
        str(folder), attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    decoder, words = model.cls.predictions.decoder.weight, model.bert.embeddings.word_embeddings.weight
    assert torch.equal(decoder, words)
    model.eval()
    mask = tok.token_to_id("[MASK]")
    token_ids = [tok.token_to_id(w) for w in MLM_WORDS]
    assert None not in token_ids
    cases = []
    for i in MLM_ROWS:
        text = f"{rows[i][0]} It was [MASK]."
        ids = tok.encode(text).ids
        at = ids.index(mask)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, at]
        cases.append(
            {
                "sentence": rows[i][0],
                "text": text,
                "ids": ids,
                "mask_position": at,
                "logits": logits[token_ids].tolist(),
                "argmax": int(logits.argmax()),
            }
        )
    return {"model": "reviews-mini", "token_ids": token_ids, "tokens": MLM_WORDS, "cases": cases}


# ------------------------------------------------------------------------------ LoRA


def tidy_adapter(folder):
    """Same bytes on every run: sorted sets, no model card."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("target_modules", "modules_to_save"):
        config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def make_lora(name):
    arch = arch_of(name)
    torch.manual_seed(zlib.crc32(f"{name}/lora".encode()))
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=TARGETS[arch],
        modules_to_save=HEAD_MODULES[arch],
    )
    model = peft.get_peft_model(load(name), config)
    folder = Path(f"{name}-lora")
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tidy_adapter(folder)


# ------------------------------------------------------------------------------ SiVA


class SivaLinear(nn.Module):
    def __init__(self, base, r):
        super().__init__()
        u, s, v = torch.linalg.svd(base.weight.detach().double(), full_matrices=False)
        dtype = base.weight.dtype
        self.U = nn.Parameter(u[:, :r].to(dtype).contiguous())
        self.V = nn.Parameter(v[:r].to(dtype).contiguous())
        self.register_buffer("S", s[:r].to(dtype))
        self.register_buffer("W_r", ((u[:, r:] * s[r:]) @ v[r:]).to(dtype))
        self.bias = base.bias

    def forward(self, x):
        return x @ self.W_r.T + ((x @ self.V.T) * self.S) @ self.U.T + self.bias


def add_siva(model, targets, r):
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and any(name.endswith("." + t) for t in targets):
            if ".layer." not in name:
                continue
            parent, leaf = name.rsplit(".", 1)
            setattr(model.get_submodule(parent), leaf, SivaLinear(module, r))


# ---------------------------------------------------------------------------- curves


def prepare(name, method, dtype):
    arch = arch_of(name)
    model = load(name, dtype)
    if method == "lora":
        model = peft.PeftModel.from_pretrained(model, f"{name}-lora", is_trainable=True).to(dtype)
        return model
    if method == "siva":
        add_siva(model, TARGETS[arch], RANK)
    for key, p in model.named_parameters():
        head = any(key.startswith(h) for h in HEAD[arch])
        p.requires_grad = head or {
            "full": True,
            "last_n": key.startswith(LAST_BLOCK[arch]),
            "bitfit": key.endswith("bias"),
            "siva": key.endswith((".U", ".V")),
            "head_only": False,
        }[method]
    return model


def no_dropout(model):
    model.train()
    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
        if hasattr(m, "dropout") and isinstance(m.dropout, float):
            m.dropout = 0.0
        if hasattr(m, "dropout_prob"):
            m.dropout_prob = 0.0


def batches(tok, rows, pad):
    for step in range(STEPS):
        chunk = rows[step * BATCH : (step + 1) * BATCH]
        encoded = [encode(tok, text, None) for text, _ in chunk]
        width = max(len(ids) for ids, _ in encoded)
        ids = [e[0] + [pad] * (width - len(e[0])) for e in encoded]
        types = [e[1] + [0] * (width - len(e[1])) for e in encoded]
        mask = [[1] * len(e[0]) + [0] * (width - len(e[0])) for e in encoded]
        yield ids, types, mask, [label for _, label in chunk]


def train(name, method, rows, dtype):
    tok = tokenizer_of(name)
    model = prepare(name, method, dtype)
    no_dropout(model)
    norm_names = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    trained = [(k, p) for k, p in model.named_parameters() if p.requires_grad]
    decay = [p for k, p in trained if not k.endswith("bias") and id(p) not in norm_names]
    plain = [p for k, p in trained if k.endswith("bias") or id(p) in norm_names]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=LR[method],
        betas=(0.9, 0.999),
        eps=1e-8,
        foreach=False,
    )
    losses, norms = [], []
    for ids, types, mask, labels in batches(tok, rows, tok.pad_token_id):
        loss = model(
            **feed(name, ids, types),
            attention_mask=torch.tensor(mask),
            labels=torch.tensor(labels),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        squares = [p.grad.double().square().sum().item() for _, p in trained if p.grad is not None]
        losses.append(loss.item())
        norms.append(math.sqrt(math.fsum(squares)))
        optimizer.step()
    model.eval()
    final = [
        logits_of(model, name, *encode(tok, rows[i][0], None))[0] for i in SENTENCE_ROWS
    ]
    return model, {
        "model": name,
        "method": method,
        "lr": LR[method],
        "trainable": sum(p.numel() for _, p in trained),
        "decayed": sum(p.numel() for p in decay),
        "loss": losses,
        "grad_norm": norms,
        "final_logits": final,
    }


def make_curves(rows):
    curves, trained_lora = [], None
    for name in ("bert-tiny", "roberta-tiny", "distilbert-tiny"):
        for method in METHODS:
            model, record = train(name, method, rows, torch.float32)
            _, exact = train(name, method, rows, torch.float64)
            record["loss_f64"] = exact["loss"]
            record["grad_norm_f64"] = exact["grad_norm"]
            record["final_logits_f64"] = exact["final_logits"]
            curves.append(record)
            if (name, method) == ("bert-tiny", "lora"):
                trained_lora = model
            off = max(abs(a - b) for a, b in zip(record["loss"], exact["loss"]))
            print(f"{name:16} {method:10} {record['trainable']:7} trainable, loss "
                  f"{record['loss'][0]:.4f} -> {record['loss'][-1]:.4f}, f32 off by {off:.1e}")
    return curves, trained_lora


def save_trained_lora(model, rows):
    """The trained adapter and its logits, as an adapter and merged into the weights."""
    name, folder = "bert-tiny", Path("bert-tiny-lora-trained")
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tidy_adapter(folder)
    tok = tokenizer_of(name)
    model = peft.PeftModel.from_pretrained(load(name), str(folder)).eval()
    merged = copy.deepcopy(model).merge_and_unload().eval()
    cases = []
    for i in SENTENCE_ROWS:
        ids, types = encode(tok, rows[i][0], None)
        logits, hidden = logits_of(model, name, ids, types)
        cases.append(
            {
                "text": rows[i][0],
                "ids": ids,
                "type_ids": types,
                "logits": logits,
                "merged_logits": logits_of(merged, name, ids, types)[0],
                "first_token_hidden": hidden[:8],
            }
        )
    return {"adapter": str(folder), "base": name, "max_length": MAX_LENGTH, "cases": cases}


# ------------------------------------------------------------------------------ main


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--assets", type=Path, default=REPO / "recipes")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    assets, out = args.assets.resolve(), args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)  # so that the adapters name their base model by its folder alone
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    rows = read_rows(assets / "reviews" / "train.tsv")
    make_checkpoints(out, [text for text, _ in rows])
    for name in ("bert-tiny", "roberta-tiny", "distilbert-tiny"):
        make_lora(name)
    forward = {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "tokenizers": tokenizers.__version__,
            "safetensors": safetensors.__version__,
            "numpy": numpy.__version__,
        },
        "models": forward_cases(rows),
        "mlm": mlm_cases(assets, rows),
    }
    curves, trained_lora = make_curves(rows)
    forward["lora_trained"] = save_trained_lora(trained_lora, rows)
    write_numbers(out / "forward.json", forward)
    write_numbers(
        out / "curves.json",
        {
            "versions": forward["versions"],
            "settings": {
                "data": "reviews/train.tsv",
                "rows": STEPS * BATCH,
                "batch": BATCH,
                "steps": STEPS,
                "max_length": MAX_LENGTH,
                "betas": [0.9, 0.999],
                "eps": 1e-8,
                "weight_decay": 0.01,
                "schedule": "constant",
                "clip": None,
                "dropout": 0.0,
                "last_n": 1,
                "lora": {"r": RANK, "alpha": ALPHA, "dropout": 0.0},
                "siva": {"r": RANK, "d": "full", "s_placement": "middle"},
                "final_logits_texts": [rows[i][0] for i in SENTENCE_ROWS],
            },
            "curves": curves,
        },
    )


if __name__ == "__main__":
    main()
