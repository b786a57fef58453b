#!/usr/bin/env python3
"""Write seq2seq.json: loss and SGD curves of tiny encoders with a decoder, as transformers computes them.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_seq2seq_traces.py

Weights are functions of their names, as in make_decoder_traces.py. A source is the words of one of its texts, a target some of
another's; behind both stands the token that ends a text. Transformers ties T5's head and embeddings whatever the config says, so a head
of its own is put in where the config says so. Sines and cosines are not kept, but for those of a case that has other numbers there.
"""

import json

import torch
from make_decoder_traces import BATCH, HERE, RATE, STEPS, TEXTS, texts, value
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSeq2SeqLM

T5 = dict(
    vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
    relative_attention_max_distance=12, dropout_rate=0.1, layer_norm_epsilon=1e-6, feed_forward_proj="relu",
    pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
)
BART = dict(
    vocab_size=50, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48, decoder_layers=2,
    decoder_attention_heads=4, decoder_ffn_dim=40, max_position_embeddings=40, dropout=0.1, attention_dropout=0.1,
    activation_dropout=0.1, pad_token_id=0, bos_token_id=0, eos_token_id=1, decoder_start_token_id=1,
    forced_eos_token_id=None,
)
MARIAN = {**BART, "decoder_start_token_id": 0, "activation_function": "swish", "scale_embedding": True}
CASES = [
    ("t5", "t5", T5),
    ("t5_v11", "t5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ("t5_depths", "t5", {**T5, "num_decoder_layers": 3, "num_layers": 1, "d_kv": 5, "num_heads": 3}),
    ("t5_gated_relu", "t5", {**T5, "feed_forward_proj": "gated-relu", "relative_attention_num_buckets": 32,
                             "relative_attention_max_distance": 128, "decoder_start_token_id": 3}),
    ("t5_silu", "t5", {**T5, "feed_forward_proj": "silu", "layer_norm_epsilon": 1e-3, "relative_attention_num_buckets": 5}),
    ("t5_unscaled", "t5", {**T5, "feed_forward_proj": "gelu_new", "scale_decoder_outputs": False}),
    ("mt5", "mt5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ("mt5_tied", "mt5", {**T5, "feed_forward_proj": "gated-silu"}),
    ("bart", "bart", {**BART, "decoder_layers": 1, "decoder_attention_heads": 2}),
    ("bart_apart", "bart", {**BART, "activation_function": "relu", "scale_embedding": True, "tie_word_embeddings": False}),
    ("mbart", "mbart", {**BART, "d_model": 30, "encoder_attention_heads": 5, "decoder_attention_heads": 3,
                        "activation_function": "gelu_new", "scale_embedding": True, "decoder_start_token_id": 7}),
    ("marian", "marian", MARIAN),
    ("marian_two_tables", "marian", {**MARIAN, "share_encoder_decoder_embeddings": False, "vocab_size": 54, "decoder_vocab_size": 50}),
    ("marian_three_tables", "marian", {**MARIAN, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}),
    ("pegasus", "pegasus", {**BART, "d_model": 27, "encoder_attention_heads": 3, "decoder_attention_heads": 9}),
    ("plbart", "plbart", {**BART, "decoder_start_token_id": None}),
    ("blenderbot_small", "blenderbot-small", {**BART, "activation_function": "tanh", "pad_token_id": 3}),
    ("m2m100", "m2m_100", {**BART, "d_model": 21, "encoder_attention_heads": 3, "decoder_attention_heads": 1,
                           "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "pad_token_id": 2}),
]
# Cases whose tables of sines and cosines are other numbers.
PLACED = ["marian_two_tables"]


def kept(case, model):
    """The tensors that the model's files hold, and that the tests make."""
    for path, tensor in model.named_parameters():
        if tensor.requires_grad or case[0] in PLACED:
            yield path, tensor
    yield from ((path, tensor) for path, tensor in model.named_buffers() if path == "final_logits_bias")


def pairs():
    """Each text with the first words of that before it."""
    rows = texts()
    return [[row + [1], rows[i - 1][:9] + [1]] for i, row in enumerate(rows)]


def loss(model, rows):
    """The mean over all tokens of some targets."""
    total, count = 0.0, 0
    for source, target in rows:
        labels = torch.tensor([target])
        logits = model(input_ids=torch.tensor([source]), labels=labels, use_cache=False).logits.float()
        total = total + F.cross_entropy(logits[0], labels[0], reduction="sum")
        count += len(target)
    return total / count


def build(case):
    """The model of a case, with the weights that the tests give it."""
    _, kind, keys = case
    config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
    if "t5" in kind:
        config.scale_decoder_outputs = keys.get("scale_decoder_outputs", getattr(config, "scale_decoder_outputs", None))
    config._attn_implementation = "eager"
    model = AutoModelForSeq2SeqLM.from_config(config).float().eval()
    if "t5" in kind and keys.get("tie_word_embeddings") is False:
        model.lm_head.weight = torch.nn.Parameter(torch.empty(model.shared.weight.shape))
    with torch.no_grad():
        for path, tensor in kept(case, model):
            tensor.copy_(value(path.lower(), tensor.shape))
    return model


def main():
    torch.set_num_threads(1)
    rows, made = pairs(), []
    for case in CASES:
        name, kind, keys = case
        model = build(case)
        with torch.no_grad():
            before = loss(model, rows).item()
        curve = []
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        for step in range(STEPS):
            at = step * BATCH % TEXTS
            optimizer.zero_grad()
            now = loss(model, rows[at : at + BATCH])
            now.backward()
            optimizer.step()
            curve.append(now.item())
        shapes = {path: list(tensor.shape) for path, tensor in kept(case, model)}
        made.append(dict(name=name, config={"model_type": kind, **keys}, loss=before, curve=curve, tensors=shapes))
        print(f"{name:24} {before:.6f} {curve[-1]:.6f} {sum(p.numel() for p in model.parameters())}")
    out = dict(rate=RATE, batch=BATCH, pairs=rows, cases=made)
    text = json.dumps(out, separators=(",", ":"))
    (HERE / "seq2seq.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
