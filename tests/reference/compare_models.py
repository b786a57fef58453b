"""Tiny random models of every variation that the config classes and tokenizer files allow, scored by peftc and by
transformers: logits within 1e-4, or refused by both or by name.

    python tests/reference/compare_models.py --peftc target/debug/peftc [--only PART] [--random 150]

Run by hand (transformers 5.24.0). Parts: `configs` (one key at a time, then at random), `words` (masked-LM heads, tied and
not), `tokenizers` (the cases of make_tokenizers.py), `exports` (what a trained stage leaves, opened by AutoTokenizer: the
ids are those of the files it came from).
"""

import argparse
import csv
import json
import os
import pathlib
import random
import subprocess
import tempfile

import make_tokenizers as tok
import torch
import transformers
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
TEXTS = [t for t in tok.TEXTS if t.strip()]
PAIRS = [p for p in tok.PAIRS if all(t.strip() for t in p)]
KINDS = {
    "bert": transformers.BertConfig, "roberta": transformers.RobertaConfig, "xlm-roberta": transformers.XLMRobertaConfig,
    "camembert": transformers.CamembertConfig, "distilbert": transformers.DistilBertConfig,
    "electra": transformers.ElectraConfig, "albert": transformers.AlbertConfig, "modernbert": transformers.ModernBertConfig,
    "xlm-roberta-xl": transformers.XLMRobertaXLConfig, "mpnet": transformers.MPNetConfig,
    "deberta-v2": transformers.DebertaV2Config,
}
NATURAL = tok.NATURAL | {"electra": "wordpiece", "albert": "unigram", "modernbert": "bpe", "xlm-roberta-xl": "unigram", "mpnet": "mpnet", "deberta-v2": "deberta"}
CLASS = tok.CLASS | {"mpnet": "MPNetTokenizer", "deberta": "DebertaV2Tokenizer"}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "max_position_embeddings": 600, "vocab_size": 512, "initializer_range": 0.4}
SMALL_DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 600, "vocab_size": 512,
                "initializer_range": 0.4}


class Bench:
    def __init__(self, peftc):
        self.peftc, self.done, self.refused, self.wrong, self.worst = os.path.abspath(peftc), 0, 0, [], 0.0

    def run(self, folder, recipe):
        pathlib.Path(folder, "r.peft").write_text("peftc 1\n" + recipe)
        command = [self.peftc, "run", "r.peft", "--quiet", "--offline", "--threads", "1"]
        env = os.environ | {"XDG_CACHE_HOME": folder}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)

    def scores(self, folder, stage):
        with open(pathlib.Path(folder, ".peftc/runs/r", stage, "predictions.tsv"), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        rows.sort(key=lambda r: int(r["index"]))
        return [{k.removeprefix("score_"): float(v) for k, v in r.items() if k.startswith("score")} for r in rows]

    def compare(self, name, ours, theirs):
        self.done += 1
        apart = max((abs(a - b) for x, y in zip(ours, theirs) for a, b in zip(x, y)), default=float("nan"))
        self.worst = max(self.worst, apart)
        if len(ours) != len(theirs) or not apart < 1e-4:
            self.wrong.append(f"{name}: {apart:.6f} over {len(ours)} of {len(theirs)}")

    def say(self, name, why):
        self.wrong.append(f"{name}: {why.strip().splitlines()[0][:300] if why.strip() else 'no word'}")


def data(folder, pairs, labels):
    os.makedirs(pathlib.Path(folder, "data"), exist_ok=True)
    rows = [{"text": t[0], "other": t[1], "label": labels[i % len(labels)]} for i, t in enumerate(pairs)]
    text = "".join(json.dumps(r) + "\n" for r in rows)
    pathlib.Path(folder, "data/test.jsonl").write_text(text)
    pathlib.Path(folder, "data/train.jsonl").write_text(text)


def save(model, folder, **how):
    model.save_pretrained(pathlib.Path(folder, "m"), **how)


def patch(folder, keys, remove=()):
    path = pathlib.Path(folder, "m/config.json")
    config = json.loads(path.read_text()) | keys
    for key in remove:
        config.pop(key, None)
    path.write_text(json.dumps(config))


def own_tokenizer(folder, kind, model_type):
    files = {"tokenizer.json": tok.serialized(kind), "tokenizer_config.json": {"tokenizer_class": CLASS[kind]}}
    if model_type in ("modernbert", "xlm-roberta-xl"):
        # Their files decide, whatever class they name.
        files["tokenizer_config.json"]["mask_token"] = "<mask>"
    for name, content in files.items():
        pathlib.Path(folder, "m", name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def encode(tokenizer, model, *text):
    own = tokenizer(*text, return_tensors="pt")
    if model.config.model_type in ("distilbert", "modernbert"):
        own.pop("token_type_ids", None)
    return own


def classify(bench, name, folder, pair, refused=False, write=None):
    """A model in folder/m scored on texts, or on pairs."""
    texts = [p for p in PAIRS] if pair else [[t, ""] for t in TEXTS]
    config = json.loads(pathlib.Path(folder, "m/config.json").read_text())
    named = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    labels = [named[key] for key in sorted(named, key=int)]
    regression = len(labels) == 1
    data(folder, texts, [0.5] if regression else labels)
    columns = "[text, other]" if pair else "text"
    recipe = f'model m = local "m"\ndata d = local "data" {{ text = {columns}, label = label }}\n' \
             "stage s = eval { model = m, data = d.test }\n"
    done = bench.run(folder, recipe)
    if refused:
        bench.refused += 1
        if done.returncode == 0:
            bench.say(name, "is not refused")
        return
    if done.returncode != 0:
        return bench.say(name, done.stderr)
    model = AutoModelForSequenceClassification.from_pretrained(pathlib.Path(folder, "m"), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(pathlib.Path(folder, "m"))
    with torch.no_grad():
        theirs = [model(**encode(tokenizer, model, *(t if pair else t[:1]))).logits[0].tolist() for t in texts]
    ours = bench.scores(folder, "s")
    ours = [list(r.values()) for r in ours] if regression else [[r[label] for label in labels] for r in ours]
    bench.compare(name, ours, theirs)


def variation(rng, model_type):
    """Keys at random."""
    heads = rng.choice([1, 2, 4])
    keys = {"num_labels": rng.choice([1, 2, 3, 7]), "max_position_embeddings": rng.choice([600, 700])}
    width = heads * rng.choice([4, 8])
    act = rng.choice(["gelu", "gelu_new", "relu", "silu", "swish", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "gelu_accurate",
                      "gelu_python_tanh"])
    if model_type == "distilbert":
        keys |= {"n_heads": heads, "dim": width, "n_layers": rng.choice([1, 2, 3]), "hidden_dim": rng.choice([8, 40]),
                 "activation": act, "sinusoidal_pos_embds": rng.random() < 0.5, "seq_classif_dropout": rng.choice([0.0, 0.3])}
    elif model_type == "modernbert":
        layers = rng.choice([1, 2, 4])
        flag = lambda: rng.random() < 0.5
        keys |= {"num_attention_heads": heads, "hidden_size": width, "num_hidden_layers": layers,
                 "intermediate_size": rng.choice([8, 40]), "hidden_activation": act, "classifier_activation": rng.choice(["gelu", "silu"]),
                 "norm_eps": rng.choice([1e-12, 1e-5, 0.1]), "norm_bias": flag(), "attention_bias": flag(), "mlp_bias": flag(),
                 "classifier_bias": flag(), "decoder_bias": flag(), "classifier_pooling": rng.choice(["cls", "mean"]),
                 "local_attention": rng.choice([1, 2, 5, 8, 128]), "global_rope_theta": rng.choice([50.0, 160000.0]),
                 "local_rope_theta": rng.choice([20.0, 10000.0]), "pad_token_id": 0}
        if flag():
            keys["global_attn_every_n_layers"] = rng.choice([1, 2, 3])
        else:
            keys["layer_types"] = [rng.choice(["full_attention", "sliding_attention"]) for _ in range(layers)]
    else:
        if model_type in ("electra", "albert", "deberta-v2"):
            keys |= {"embedding_size": rng.choice([4, width])}
        if model_type == "albert":
            keys |= {"num_hidden_groups": 1, "inner_group_num": rng.choice([1, 2]), "classifier_dropout_prob": rng.choice([0.0, 0.4])}
        keys |= {"num_attention_heads": heads, "hidden_size": width, "num_hidden_layers": rng.choice([1, 2, 3]),
                 "intermediate_size": rng.choice([8, 40]), "hidden_act": act, "layer_norm_eps": rng.choice([1e-12, 1e-5, 0.1]),
                 "type_vocab_size": rng.choice([1, 2, 3]), "classifier_dropout": rng.choice([None, 0.4]),
                 "pad_token_id": rng.choice([0, 1, 2, 7])}
    if model_type == "deberta-v2":
        flag = lambda: rng.random() < 0.5
        keys |= {"relative_attention": rng.random() < 0.9, "position_buckets": rng.choice([-1, 2, 3, 6, 16]),
                 "max_relative_positions": rng.choice([-1, 5, 12, 40]), "share_att_key": flag(), "position_biased_input": flag(),
                 "pos_att_type": rng.choice(["c2p|p2c", "p2c|c2p", ["c2p"], "p2c", None, "none"]),
                 "norm_rel_ebd": rng.choice(["layer_norm", "none"]), "type_vocab_size": rng.choice([0, 2]), "legacy": flag(),
                 "pooler_hidden_act": rng.choice(["gelu", "tanh"]), "pooler_dropout": rng.choice([0, 0.1]), "pad_token_id": rng.choice([0, 7])}
        if not keys["legacy"]:
            keys["embedding_size"] = width
        if flag():
            keys |= {"conv_kernel_size": rng.choice([1, 3, 5, 7]), "conv_groups": rng.choice([1, 2]), "conv_act": rng.choice(["tanh", "gelu", "relu"])}
    if model_type == "albert":
        keys["num_hidden_groups"] = rng.randint(1, keys["num_hidden_layers"])
    return keys


def one_at_a_time(model_type):
    bert = model_type != "distilbert"
    act = "hidden_act" if bert else "activation"
    yield {}, {}, False
    for name in ["gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh", "gelu_accurate", "relu", "silu",
                 "swish"]:
        yield {act: name}, {}, False
    for name in ["quick_gelu", "relu2", "tanh", "mish", "linear", "gelu_10", "leaky_relu", "sigmoid"]:
        yield {act: name}, {}, True
    for more in [{"output_attentions": True}, {"chunk_size_feed_forward": 1}, {"torch_dtype": "float16"}, {"use_cache": False},
                 {"tie_word_embeddings": False}, {"initializer_range": 1.0}, {"bos_token_id": 9}, {"temperature": 0.1},
                 {"id2label": {"1": "a", "0": "b"}, "label2id": {"a": 1, "b": 0}}]:
        yield {}, more, False
    for more in [{"is_encoder_decoder": True}, {"position_embedding_type": "rotary"}, {"pruned_heads": {"0": [1]}},
                 {"quantization_config": {"quant_method": "bitsandbytes"}}, {"auto_map": {"AutoModel": "x.Y"}}, {act: None}, {act: 3},
                 {"problem_type": "multi_label_classification"}]:
        yield {}, more, True
    if bert:
        for more in [{"is_decoder": True}, {"add_cross_attention": True, "is_decoder": True}]:
            yield more, {}, True
        for keys in [{"layer_norm_eps": 0.5}, {"type_vocab_size": 1}, {"type_vocab_size": 4}, {"pad_token_id": 3}, {"pad_token_id": 5}]:
            yield keys, {}, False
        if model_type != "bert":
            yield {}, {"pad_token_id": None}, True
    else:
        yield {"sinusoidal_pos_embds": True}, {}, False


def configs(bench, count):
    plans = [(t, k, m, r) for t in tok.NATURAL for k, m, r in one_at_a_time(t)]
    rng = random.Random(1)
    for i in range(count):
        model_type = rng.choice(list(KINDS))
        plans.append((model_type, variation(rng, model_type), {}, False))
    for i, (model_type, keys, more, refused) in enumerate(plans):
        torch.manual_seed(i)
        base = SMALL_DISTIL if model_type == "distilbert" else SMALL
        config = KINDS[model_type](**(base | keys))
        kind = NATURAL[model_type]
        pair = i % 3 == 0 and not (model_type in ("bert", "electra", "deberta-v2") and config.type_vocab_size == 1)
        with tempfile.TemporaryDirectory() as folder:
            model = AutoModelForSequenceClassification.from_config(config)
            how = [{}, {"max_shard_size": "5KB"}][i % 2]
            save(model.half() if i % 5 == 0 else model, folder, **how)
            pathlib.Path(folder, "m/model-stray.safetensors").write_bytes(b"nothing")
            own_tokenizer(folder, kind, model_type)
            patch(folder, more)
            classify(bench, f"{model_type} {keys} {more} {'pairs' if pair else ''}", folder, pair, refused)


def words(bench, count):
    rng = random.Random(2)
    for i in range(count):
        model_type = rng.choice(list(KINDS))
        keys = variation(rng, model_type) | {"num_labels": 2, "tie_word_embeddings": i % 2 == 0}
        base = SMALL_DISTIL if model_type == "distilbert" else SMALL
        torch.manual_seed(i)
        model = AutoModelForMaskedLM.from_config(KINDS[model_type](**(base | keys)))
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value)
        kind = NATURAL[model_type]
        mask = "[MASK]" if kind in ("wordpiece", "deberta") else "<mask>"
        with tempfile.TemporaryDirectory() as folder:
            save(model, folder)
            own_tokenizer(folder, kind, model_type)
            data(folder, [[t, ""] for t in TEXTS], ["bad", "good"])
            recipe = 'model m = local "m"\ndata d = local "data" { text = text, label = label }\n' \
                     'prompt p = prompt { template = "{text} it was {mask} !", verbalizer = { bad: "film", good: "good" } }\n' \
                     "stage s = eval { model = m, data = d.test, prompt = p, objective = label_words }\n"
            done = bench.run(folder, recipe)
            name = f"words {model_type} {keys}"
            if done.returncode != 0:
                bench.say(name, done.stderr)
                continue
            model = AutoModelForMaskedLM.from_pretrained(pathlib.Path(folder, "m")).eval()
            tokenizer = AutoTokenizer.from_pretrained(pathlib.Path(folder, "m"))
            ids = [tokenizer(" x " + w, add_special_tokens=False)["input_ids"][-1] for w in ("film", "good")]
            theirs, ours = [], []
            for text, row in zip(TEXTS, bench.scores(folder, "s")):
                own = encode(tokenizer, model, f"{text} it was {mask} !")
                at = (own["input_ids"][0] == tokenizer.mask_token_id).nonzero()[-1].item()
                with torch.no_grad():
                    theirs.append(model(**own).logits[0, at, ids].tolist())
                ours.append([row["bad"], row["good"]])
            bench.compare(name, ours, theirs)


def tokenizer_model(folder, model_type, files):
    torch.manual_seed(3)
    base = SMALL_DISTIL if model_type == "distilbert" else SMALL
    more = {} if model_type == "distilbert" else {"type_vocab_size": 2}
    model = AutoModelForSequenceClassification.from_config(KINDS[model_type](**(base | more | {"vocab_size": tok.ROWS})))
    save(model, folder)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        pathlib.Path(folder, "m", name).write_text(text, encoding="utf-8")


def tokenizers(bench):
    for name, model_type, files, refused in tok.cases():
        for pair in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                tokenizer_model(folder, model_type, files)
                classify(bench, f"{model_type} {name} {'pairs' if pair else ''}", folder, pair, refused)


def exports(bench):
    for name, model_type, files, refused in tok.cases():
        if refused:
            continue
        with tempfile.TemporaryDirectory() as folder:
            tokenizer_model(folder, model_type, files)
            data(folder, [[t, ""] for t in TEXTS], ["LABEL_0", "LABEL_1"])
            recipe = 'model m = local "m"\ndata d = local "data" { text = text, label = label }\n' \
                     "stage s = train { model = m, data = d.train, adapter = full, lr = 1e-4, steps = 1, batch = 4 }\n"
            done = bench.run(folder, recipe)
            if done.returncode != 0:
                bench.say(f"export {model_type} {name}", done.stderr)
                continue
            result = json.loads(pathlib.Path(folder, ".peftc/runs/r/result.json").read_text())
            left = pathlib.Path(folder, result["stages"][0]["artifact"])
            left = next(p for p in [left / "model", *left.parent.rglob("model"), *pathlib.Path(folder, ".peftc").rglob("model")] if p.is_dir())
            before, after = (AutoTokenizer.from_pretrained(p) for p in (pathlib.Path(folder, "m"), left))
            ours, theirs = (tok.rows(t, tok.TEXTS, tok.PAIRS) for t in (after, before))
            bench.done += 1
            if ours != theirs:
                bench.wrong.append(f"export {model_type} {name}: other ids under {type(after).__name__}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peftc", required=True)
    parser.add_argument("--only")
    parser.add_argument("--random", type=int, default=150)
    own = parser.parse_args()
    parts = {"configs": lambda b: configs(b, own.random), "words": lambda b: words(b, own.random), "tokenizers": tokenizers,
             "exports": exports}
    for name, part in parts.items():
        if own.only in (None, name):
            bench = Bench(own.peftc)
            part(bench)
            print(f"{name}: {bench.done} compared, {bench.refused} to be refused, {len(bench.wrong)} wrong, at most {bench.worst:.2g} apart",
                  flush=True)
            print("\n".join(bench.wrong), flush=True)


if __name__ == "__main__":
    main()
