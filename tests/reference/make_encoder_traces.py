#!/usr/bin/env python3
"""Write encoders.json: losses and SGD curves of tiny encoders of the families that have no checkpoint in this folder, and of
their variations, as transformers computes them: on whole texts, and on the words at a mask.

How to run (from the repository root; torch 2.15.0, transformers 5.24.0):

    .venv/bin/python tests/reference/make_encoder_traces.py

No weights are kept: each is a function of its name and index (`value`), which the test repeats. Everything is computed in
f32 on one thread, with eager attention and without dropout; a text's tokens are its words.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import json

import torch
from make_decoder_traces import HERE, fnv, mixed, value
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

TEXTS, BATCH, STEPS, RATE, CLASSES, MASK = 24, 8, 6, 0.1, 3, 1
WORDS = [2, 3, 4]

COMMON = dict(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=64, pad_token_id=0, num_labels=CLASSES,
)
ALBERT = {**COMMON, "embedding_size": 16}
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=300.0)
V3 = dict(
    relative_attention=True, position_buckets=6, max_relative_positions=-1, pos_att_type="p2c|c2p", share_att_key=True,
    norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0, layer_norm_eps=1e-7,
)
CASES = [
    ("electra", "electra", {**COMMON, "embedding_size": 16}),
    ("electra_one_width", "electra", {**COMMON, "embedding_size": 32, "hidden_act": "relu", "tie_word_embeddings": False}),
    ("albert", "albert", ALBERT),
    ("albert_groups", "albert", {**ALBERT, "num_hidden_groups": 2, "inner_group_num": 2, "hidden_act": "gelu",
                                 "layer_norm_eps": 1e-3, "tie_word_embeddings": False}),
    ("modernbert", "modernbert", {**COMMON, "local_attention": 6}),
    ("modernbert_biases", "modernbert", {
        **COMMON, "local_attention": 9, "attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True,
        "decoder_bias": False, "classifier_pooling": "mean", "hidden_activation": "silu", "classifier_activation": "relu",
        "norm_eps": 1e-3, "global_attn_every_n_layers": 2, "global_rope_theta": 500.0, "local_rope_theta": 20.0,
    }),
    ("modernbert_layers", "modernbert", {
        **COMMON, "local_attention": 1, "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "rope_parameters": {"full_attention": YARN, "sliding_attention": {"rope_type": "linear", "factor": 2.0}},
        "classifier_pooling": "mean", "tie_word_embeddings": False,
    }),
    ("xlm_roberta_xl", "xlm-roberta-xl", COMMON),
    ("xlm_roberta_xl_silu", "xlm-roberta-xl", {**COMMON, "hidden_act": "silu", "type_vocab_size": 2, "tie_word_embeddings": False}),
    ("mpnet", "mpnet", COMMON),
    ("mpnet_untied", "mpnet", {**COMMON, "hidden_act": "silu", "relative_attention_num_buckets": 40, "layer_norm_eps": 1e-3,
                               "tie_word_embeddings": False}),
    ("deberta_v3", "deberta-v2", {**COMMON, **V3}),
    ("deberta_own_maps", "deberta-v2", {
        **COMMON, **V3, "share_att_key": False, "norm_rel_ebd": "none", "position_buckets": -1, "max_relative_positions": 7,
        "position_biased_input": True, "type_vocab_size": 2, "embedding_size": 16, "pooler_hidden_act": "tanh", "hidden_act": "relu",
        "tie_word_embeddings": False,
    }),
    ("deberta_queries", "deberta-v2", {
        **COMMON, **V3, "pos_att_type": ["c2p"], "share_att_key": False, "position_buckets": 8, "max_relative_positions": 9,
        "legacy": False, "layer_norm_eps": 1e-3,
    }),
    ("deberta_keys", "deberta-v2", {**COMMON, **V3, "pos_att_type": "p2c", "position_buckets": 5, "embedding_size": 8, "hidden_act": "silu"}),
    ("deberta_plain", "deberta-v2", {**COMMON, "pos_att_type": "c2p|p2c", "type_vocab_size": 1}),
    ("deberta_convolved", "deberta-v2", {**COMMON, **V3, "conv_kernel_size": 3, "conv_act": "gelu"}),
    ("bert_relative", "bert", {**COMMON, "position_embedding_type": "relative_key"}),
    ("roberta_relative", "roberta", {**COMMON, "position_embedding_type": "relative_key_query", "max_position_embeddings": 40}),
    ("electra_relative", "electra", {**COMMON, "embedding_size": 16, "position_embedding_type": "relative_key_query"}),
    ("deberta_groups", "deberta-v2", {**COMMON, **V3, "conv_kernel_size": 5, "conv_groups": 4, "num_hidden_layers": 1}),
]


def texts():
    """Words 2 to 49, in texts of 1 to 20 words, and a class for each."""
    draws = mixed(fnv("encoded"), TEXTS * 22).reshape(TEXTS, 22)
    return [([int(2 + w % 48) for w in row[1 : 2 + int(row[0] % 20)]], int(row[21] % CLASSES)) for row in draws]


class Relative(torch.nn.Module):
    """`BertSelfAttention.forward` of transformers 4.57 with `position_embedding_type` `relative_key` or `relative_key_query`."""

    def __init__(self, own, config):
        super().__init__()
        self.heads, self.size, self.most = own.num_attention_heads, own.attention_head_size, config.max_position_embeddings
        self.query, self.key, self.value = own.query, own.key, own.value
        self.distance_embedding = torch.nn.Embedding(2 * self.most - 1, self.size)
        self.kind = config.position_embedding_type

    def forward(self, hidden_states, *_, **__):
        batch, n, width = hidden_states.shape
        of = lambda layer: layer(hidden_states).view(batch, n, self.heads, self.size).transpose(1, 2)
        query, key, value = of(self.query), of(self.key), of(self.value)
        scores = torch.matmul(query, key.transpose(-1, -2))
        distance = torch.arange(n).view(-1, 1) - torch.arange(n).view(1, -1)
        places = self.distance_embedding(distance + self.most - 1)
        scores = scores + torch.einsum("bhld,lrd->bhlr", query, places)
        if self.kind == "relative_key_query":
            scores = scores + torch.einsum("bhrd,lrd->bhlr", key, places)
        shares = torch.softmax(scores / self.size**0.5, dim=-1)
        return torch.matmul(shares, value).transpose(1, 2).reshape(batch, n, width), None


class Nowhere(torch.nn.Module):
    def forward(self, ids):
        return torch.zeros(1)


def relative(model):
    """Puts it into a model, whose embeddings then have no positions. Files hold their table all the same."""
    own = getattr(model, model.config.model_type)
    for layer in own.encoder.layer:
        layer.attention.self = Relative(layer.attention.self, model.config)
    shape = list(own.embeddings.position_embeddings.weight.shape)
    own.embeddings.position_embeddings = Nowhere()
    return {f"{model.config.model_type}.embeddings.position_embeddings.weight": shape}


def loss(model, rows, words):
    """The mean over some texts: of their classes, or of the words at a mask behind each."""
    total = 0.0
    for row, label in rows:
        ids = torch.tensor([row + [MASK] * words])
        logits = model(input_ids=ids).logits.float()
        logits = logits[0, -1, WORDS] if words else logits[0]
        total = total + F.cross_entropy(logits, torch.tensor(label))
    return total / len(rows)


def curve(kind, keys, words):
    """The loss of all texts before training, the curve, and the shapes of all tensors."""
    config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
    config._attn_implementation = "eager"
    auto = AutoModelForMaskedLM if words else AutoModelForSequenceClassification
    model = auto.from_config(config).float().eval()
    unread = relative(model) if "position_embedding_type" in keys else {}
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            tensor.copy_(value(path.lower(), tensor.shape))
    rows = texts()
    with torch.no_grad():
        before = loss(model, rows, words).item()
    losses = []
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for step in range(STEPS):
        at = step * BATCH % TEXTS
        optimizer.zero_grad()
        now = loss(model, rows[at : at + BATCH], words)
        now.backward()
        optimizer.step()
        losses.append(now.item())
    shapes = {path: list(tensor.shape) for path, tensor in model.named_parameters()}
    return dict(loss=before, curve=losses, tensors=shapes | unread)


def main():
    torch.set_num_threads(1)
    made = []
    for name, kind, keys in CASES:
        both = {head: curve(kind, keys, words) for head, words in (("classes", False), ("words", True))}
        made.append(dict(name=name, config={"model_type": kind, **keys}, **both))
        print(f"{name:24} {both['classes']['curve']} {both['words']['curve']}")
    out = dict(rate=RATE, batch=BATCH, words=WORDS, texts=texts(), cases=made)
    text = json.dumps(out, separators=(",", ":"))
    (HERE / "encoders.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
