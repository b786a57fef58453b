#!/usr/bin/env python3
"""Write gguf/: small random models as GGUF files, and what transformers gives of them.

How to run (from the repository root; `pip install gguf==0.19.0 sentencepiece==0.2.3 transformers==5.24 torch`):

    .venv/bin/python tests/reference/make_gguf.py [FOLDER]

Tensors go by the names of gguf's own map, rows of queries and keys in the order of llama.cpp's converter, Gemma's norms
with one added. Tokenizers are one of each kind that is read: BPE over bytes, and SentencePiece's BPE, whose ids are
sentencepiece's own. Without a folder, only four of the models are written, into tests/reference/gguf; with one, all.
"""

import io
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
WORDS = "once upon a time there was a small girl who had a red ball and a big dog in the old house by the sea".split()
TEXTS = [
    "once upon a time there was a small girl",
    "the dog had 12 red balls in 2019",
    "  two spaces, naïve café — ünïcode\n\nand lines",
]
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, initializer_range=0.3, rms_norm_eps=1e-5)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 5000.0}
MODELS = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", dict(head_dim=8, rope_parameters=LLAMA3)),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", dict(head_dim=16)),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", dict(head_dim=16)),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=4)),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=4,
                                                             num_hidden_layers=6, intermediate_size=32)),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", dict(sliding_window=None, pad_token_id=0)),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", dict(num_hidden_layers=4, pad_token_id=0)),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", {}),
    "granite": ("GraniteForCausalLM", "GraniteConfig", dict(attention_multiplier=0.3, embedding_multiplier=3.0,
                                                            residual_multiplier=0.7, logits_scaling=2.0)),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", dict(n_inner=48)),
    # llama.cpp computes the GELU of tanh, so that is what a file is read as.
    "gptneox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", dict(hidden_act="gelu_new", layer_norm_eps=1e-5,
                                                            use_parallel_residual=False,
                                                            rope_parameters={"rope_type": "default", "rope_theta": 700.0,
                                                                             "partial_rotary_factor": 0.5})),
}
# Matrices that the class has transposed.
TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
PERMUTED = ("llama", "smollm3", "granite")


def permute(w, heads):
    """As `LlamaModel.permute` of llama.cpp's converter."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def grouped(data, heads):
    """As `GPTNeoXModel` of llama.cpp's converter: queries, keys and values of all heads behind each other."""
    each = data.reshape(heads, 3, data.shape[0] // heads // 3, *data.shape[1:])
    return np.concatenate([each[:, i].reshape(-1, *data.shape[1:]) for i in range(3)])


def byte_tokenizer():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>", "<|start|>"], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    t.train_from_iterator([" ".join(WORDS)] * 9 + TEXTS[:2] * 3, trainer)
    return t


def add_bytes(w):
    t = byte_tokenizer()
    state = json.loads(t.to_str())
    vocab = sorted(state["model"]["vocab"].items(), key=lambda p: p[1])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list([token for token, _ in vocab])
    w.add_token_types([3 if token.startswith("<|") else 1 for token, _ in vocab])
    w.add_token_merges([" ".join(m) for m in state["model"]["merges"]])
    w.add_bos_token_id(1)
    w.add_eos_token_id(0)
    w.add_add_bos_token(False)
    w.add_chat_template("{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}")
    return len(vocab), [t.encode(x).ids + [0] for x in TEXTS]


def add_pieces(w):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 9 + TEXTS[:2] * 3), model_writer=out, model_type="bpe", vocab_size=330,
        byte_fallback=True, hard_vocab_limit=False, normalization_rule_name="identity", remove_extra_whitespaces=False,
        user_defined_symbols=["<turn>"], minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    count = sp.vocab_size()
    kinds = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else
             4 if sp.id_to_piece(i) == "<turn>" else 1 for i in range(count)]
    w.add_tokenizer_model("llama")
    w.add_token_list([sp.id_to_piece(i) for i in range(count)])
    w.add_token_scores([sp.get_score(i) for i in range(count)])
    w.add_token_types(kinds)
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    return count, [[sp.bos_id()] + sp.encode(x) + [sp.eos_id()] for x in TEXTS]


def describe(w, config, arch):
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.n_inner if arch == "gpt2" else config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    if arch == "gpt2":
        w.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    if arch == "gptneox":
        head = config.hidden_size // config.num_attention_heads
        w.add_layer_norm_eps(config.layer_norm_eps)
        w.add_rope_dimension_count(int(head * config.rope_parameters["partial_rotary_factor"]))
        w.add_rope_freq_base(config.rope_parameters["rope_theta"])
        w.add_parallel_residual(config.use_parallel_residual)
        return
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    w.add_key_length(head)
    w.add_value_length(head)
    w.add_rope_dimension_count(head)
    rope = config.rope_parameters
    if arch == "gemma3":
        w.add_rope_freq_base(rope["full_attention"]["rope_theta"])
    else:
        w.add_rope_freq_base(rope["rope_theta"])
    if arch in ("gemma2", "gemma3"):
        w.add_sliding_window(config.sliding_window)
    if arch == "gemma2":
        w.add_attn_logit_softcapping(config.attn_logit_softcapping)
        w.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch == "granite":
        w.add_attention_scale(config.attention_multiplier)
        w.add_embedding_scale(config.embedding_multiplier)
        w.add_residual_scale(config.residual_multiplier)
        w.add_logit_scale(config.logits_scaling)
    if rope.get("rope_type") == "llama3":
        plain = rope["rope_theta"] ** (-torch.arange(0, head, 2, dtype=torch.float32) / head)
        inverse, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        w.add_tensor("rope_freqs.weight", (plain / inverse).numpy())


def make(arch, folder):
    cls, config, own = MODELS[arch]
    path = folder / f"{arch}.gguf"
    w = gguf.GGUFWriter(str(path), arch)
    pieces = arch.startswith("gemma")
    vocab, rows = (add_pieces if pieces else add_bytes)(w)
    config = getattr(transformers, config)(**{**SIZES, **own, "vocab_size": vocab})
    torch.manual_seed(7)
    model = getattr(transformers, cls)(config).eval()
    w.add_name(arch)
    describe(w, config, arch)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), config.num_hidden_layers)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name or ".ln_" in name or name.endswith("bias"):
                p.add_(0.3 * torch.randn_like(p))
            # The file's numbers are the model's, in 16 bits where they are matrices.
            if p.dim() == 2:
                p.copy_(p.half().float())
            data = p.numpy()
            if arch in PERMUTED and "q_proj" in name:
                data = permute(data, config.num_attention_heads)
            if arch in PERMUTED and "k_proj" in name:
                data = permute(data, config.num_key_value_heads)
            if arch == "gpt2" and name.endswith(TURNED):
                data = data.T
            if arch == "gptneox" and ".query_key_value." in name:
                data = grouped(data, config.num_attention_heads)
            if pieces and name.endswith("norm.weight"):
                data = data + 1
            if arch == "phi3" and "mlp.gate_up_proj" in name:
                there = f"blk.{name.split('.')[2]}.ffn_up.weight"
            else:
                there = names.get_name(name, try_suffixes=(".weight", ".bias"))
            w.add_tensor(there, np.ascontiguousarray(data.astype(np.float16 if data.ndim == 2 else np.float32)))
        total = count = 0
        for ids in rows:
            logits = model(torch.tensor([ids])).logits[0, :-1].double()
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
            count += len(ids) - 1
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return {"texts": TEXTS, "ids": rows, "loss": total / count}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "gguf"
    folder.mkdir(exist_ok=True)
    names = MODELS if len(sys.argv) > 1 else ("llama", "gemma2", "gpt2", "gptneox")
    made = {arch: make(arch, folder) for arch in names}
    (folder / "expected.json").write_text(json.dumps(made, indent=1) + "\n")
    for arch, own in made.items():
        print(arch, own["loss"], (folder / f"{arch}.gguf").stat().st_size)


if __name__ == "__main__":
    main()
