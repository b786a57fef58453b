#!/usr/bin/env python3
"""Write recipes/peft_comparison/ and docs/peft-comparison.md: the PEFT project's own comparison of methods, planned.

How to run (from the repository root, after `cargo build`):

    python3 tests/reference/make_peft_comparison.py --peftc target/debug/peftc --table TABLE.tsv

TABLE.tsv has a row for each result of `method_comparison/MetaMathQA/results` in huggingface/peft (commit 5d602fd), with columns
`variant`, `num_trainable_params`, `mem_reserved_max_bytes`, `peft_config_json` and `train_config_json`. All of them train
Llama-3.2-3B in bf16, adapters in f32, on batches of 4 chats of at most 768 tokens, on an L40S of 48 GB.

`ADAPTERS` says what each variant is in a recipe. A variant that has no row there is listed in the document as one that cannot be
written yet.
"""

import argparse
import csv
import json
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "recipes" / "peft_comparison"
DOC = ROOT / "docs" / "peft-comparison.md"
QV = "attention.{query, value}"
CARD = "l40s-48gb"
GIB = 2**30

# What the rows of the table are in a recipe: by variant, without its common beginning.
ADAPTERS = {
    "full-finetuning lr_0.00001": "full",
    "lora rank32": f"lora {{ rank = 32, alpha = 64, on = {QV} }}",
    "lora rank64": f"lora {{ rank = 64, alpha = 128, on = {QV} }}",
    "lora rank64-rslora": f"lora {{ rank = 64, alpha = 64, rs_lora = true, on = {QV} }}",
    "lora rank10-target-mlp": "lora { rank = 10, alpha = 20, on = ffn.{gate, up, down} }",
    "lora rank32-dora": f"dora {{ rank = 32, alpha = 64, on = {QV} }}",
    "vera default": f"vera {{ rank = 256, d_initial = 0.1, on = {QV} }}",
    "adalora rank32": f"adalora {{ init_rank = 64, target_rank = 8, alpha = 8, on = {QV} }}",
    "adaptionprompt lr_0.0005": "llama_adapter { tokens = 100 }",
    "adaptionprompt lr_5e-3": "llama_adapter { tokens = 100 }",
    "beft target-v_proj": "beft { on = attention.value }",
    "boft default": f"boft {{ block_size = 4, on = {QV} }}",
    "c3a default": f"c3a {{ block_size = 64, on = {QV} }}",
    "delora rank32": f"delora {{ rank = 32, lambda = 15, on = {QV} }}",
    "fourierft default": f"fourierft {{ frequencies = 1000, scaling = 300, init = normal, on = {QV} }}",
    "fourierft n_frequency-5000": f"fourierft {{ frequencies = 5000, scaling = 300, init = normal, on = {QV} }}",
    "hira rank32-lr4.5e-3": f"hira {{ rank = 32, on = {QV} }}",
    "ia3 default": "ia3 { on = { attention.{key, value}, ffn.down }, feedforward = ffn.down }",
    "ia3 lr_0.001": "ia3 { on = { attention.{key, value}, ffn.down }, feedforward = ffn.down }",
    "ia3 all-attn-5k-lr0.005": "ia3 { on = { attention.*, ffn.* }, feedforward = ffn.* }",
    "ln_tuning default": "ln_tuning",
    "loha rank32": f"loha {{ rank = 32, alpha = 64, on = {QV} }}",
    "oft rank32": f"oft {{ block_size = 96, on = {QV} }}",
    "prefixtuning lr_0.001": "prefix_tuning { tokens = 200 }",
    "prefixtuning lr_0.005_zero_init": "prefix_tuning { tokens = 200, init = zero }",
    "prefixtuning tokens50-init_prefix-lr_0.005": "prefix_tuning { tokens = 50, init = zero }",
    "prompt_tuning default": "prompt_tuning { tokens = 200 }",
    "prompt_tuning lr_0.001": "prompt_tuning { tokens = 200 }",
    "prompt_tuning sample_vocab-lr_0.001": "prompt_tuning { tokens = 200, init = vocabulary }",
    "ptuning default": "p_tuning { tokens = 20 }",
    "randlora default": f"randlora {{ rank = 32, alpha = 640, on = {QV} }}",
    "road lr_0.001": f"road {{ numbers = 2, group_size = 64, on = {QV} }}",
    "shira lr_0.0003-random_seed_42": f"shira {{ rank = 32, on = {QV} }}",
    "lokr rank32-factor4-lr0.003": f"lokr {{ rank = 32, alpha = 64, factor = 4, on = {QV} }}",
    "miss default": f"miss {{ rank = 64, on = {QV} }}",
    "miss bat": f"miss {{ rank = 64, variant = bat, on = {QV} }}",
    "miss mini": f"miss {{ rank = 64, variant = mini, mini_rank = 64, on = {QV} }}",
    "gralora rank32": f"gralora {{ rank = 32, alpha = 64, k = 2, on = {QV} }}",
    "lora rank32-lorafa": f"lora {{ rank = 32, alpha = 64, lora_fa = true, on = {QV} }}",
    "lora rank14-target-mlp-bdlora": "bdlora { rank = 14, alpha = 28, blocks = 2, on = ffn.{gate, up, down} }",
    "trainable_tokens sos+eos": "trainable_tokens { token_ids = [128_000, 128_001] }",
    "lora rank32-mica": f"lora {{ rank = 32, alpha = 64, init = mica, on = {QV} }}",
    "pvera default": f"pvera {{ rank = 256, on = {QV} }}",
    "pvera rank64": f"pvera {{ rank = 64, on = {QV} }}",
    "tinylora default": f"tinylora {{ on = {QV} }}",
    "tinylora weight-tying": f"tinylora {{ weight_tying = 1, on = {QV} }}",
    "adamss rank32": f"adamss {{ subspaces = 32, on = {QV} }}",
    "frod default": f"frod {{ on = {QV} }}",
    "frod sparse0.02-lr_0.001": f"frod {{ sparse_rate = 0.02, on = {QV} }}",
    "lily rank140-mlp-a2-b2-s8.0": "lily { rank = 140, stride = 14, scaling = 8, on = ffn.* }",
    "lily rank896-a2-b2-s2.0": f"lily {{ rank = 896, stride = 14, scaling = 2, on = {QV} }}",
    "unilora default": f"unilora {{ rank = 32, on = {QV} }}",
    "deft rank32": f"deft {{ rank = 32, alpha = 128, on = {QV} }}",
    "deft rank32-para": f"deft {{ rank = 32, inject = false, projection = qr, on = {QV} }}",
    "glora default": f"glora {{ rank = 8, on = {QV} }}",
    "glora vector-paths": f"glora {{ rank = 8, weight = vector, coupling = vector, on = {QV} }}",
    "osf rank128": "[osf { keep = 2_944, on = { attention.{query, output}, ffn.* } }, osf { keep = 896, on = attention.{key, value} }]",
    "peanut rank1-relu-depth0-s32.0": f"peanut {{ rank = 1, scaling = 32, on = {QV} }}",
    "peanut rank32-relu-depth0-s2.0": f"peanut {{ rank = 32, scaling = 2, on = {QV} }}",
    "psoft default": f"psoft {{ rank = 256, on = {QV} }}",
    "psoft fast": f"psoft {{ rank = 256, exact = false, on = {QV} }}",
    "waveft n_frequency-5000": f"waveft {{ frequencies = 5000, on = {QV} }}",
    "vblora default": f"vblora {{ rank = 4, vectors = 256, length = 256, top_k = 2, on = {QV} }}",
}

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 24,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}

COMMON = """peftc 1

# What all rows of the PEFT project's comparison share: Llama-3.2-3B in bf16 on MetaMathQA. Each recipe here is one of its
# configurations. `peftc check --offline --device l40s-48gb recipes/peft_comparison/lora_rank32.peft` plans it without the model.

model llama = hub "meta-llama/Llama-3.2-3B" { config = "llama-3.2-3b.json", dtype = bf16 }

data math = hub "meta-math/MetaMathQA" { prompt = query, completion = response }
"""


def short(variant):
    """`lora rank32` of `lora/llama-3.2-3B-rank32`."""
    method, name = variant.split("/")
    return f"{method} {name.removeprefix('llama-3.2-3B-')}"


def file_name(name):
    return name.replace(" ", "_").replace("-", "_").replace(".", "_") + ".peft"


def recipe(name, adapter, row):
    train = json.loads(row["train_config_json"])
    optimizer = train["optimizer_kwargs"]
    key = "adapters" if adapter.startswith("[") else "adapter"
    decay = optimizer.get("weight_decay", 0.01)
    assert train["lr_scheduler"] == "cosine" and train["grad_norm_clip"] == 1.0 and train["batch_size"] == 4
    assert train["max_seq_length"] == 768 and train["max_steps"] == 5000 and train["dtype"] == "bfloat16"
    return f"""peftc 1

# PEFT's configuration `{row["variant"]}`: {int(row["num_trainable_params"]):,} parameters trained.

import "common.peft"

stage learn = train {{
  model = llama
  data = math.train
  objective = causal_lm
  {key} = {adapter}
  optimizer = adamw {{ weight_decay = {decay:g} }}
  schedule = cosine {{ peak = {optimizer["lr"]:g} }}
  steps = 5_000
  batch = 4
  micro_batch = 1
  max_length = 768
  clip = 1
}}
"""


def planned(peftc, path):
    command = [peftc, "check", "--json", "--quiet", "--offline", "--device", CARD, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    value = json.loads(done.stdout)["recipes"][0]
    errors = [d for d in value["diagnostics"] if d["severity"] == "error"]
    assert not errors, (path, errors)
    return value["stages"][0], value["device_bytes"]


def resident(stage):
    """Bytes that stay for the whole training, gradients of trained tensors included."""
    memory = stage["memory"]
    frozen, trained = memory["frozen_weights"], stage["parameters"]["trainable"]
    return frozen + memory["trainable_weights"] + memory["optimizer"] + 4 * trained


def line(cells):
    return "| " + " | ".join(cells) + " |"


def document(rows, missing):
    ratios = [r["ratio"] for r in rows]
    same = sum(r["own"] == r["theirs"] for r in rows)
    text = [
        "# PEFT's own comparison, planned",
        "",
        "The PEFT project compares its methods on one task: Llama-3.2-3B in bf16, adapters in f32, batches of 4 chats of at most 768 tokens,",
        "on an L40S of 48 GB (huggingface/peft, `method_comparison/MetaMathQA`, commit 5d602fd). `recipes/peft_comparison` has these configurations",
        "as recipes. Each is planned from the model's config.json alone:",
        "",
        "```console",
        "$ peftc check --offline --device l40s-48gb recipes/peft_comparison/lora_rank32.peft",
        "```",
        "",
        f"{len(rows)} of {len(rows) + len(missing)} configurations can be written. In {same} of them the number of trained parameters is PEFT's.",
        f"The median of planned bytes over PEFT's maximum is {statistics.median(ratios):.2f}, the largest {max(ratios):.2f}.",
        "",
        "- **PEFT's maximum** is what PyTorch had reserved at most, as PEFT measured it. **Planned** is all that the card holds with `peftc`: tensors,",
        "  kernels, context. A step reads its 4 chats one after the other (`micro_batch = 1`), which gives the same gradient; PEFT reads them at once.",
        "- **Resident** is what stays between steps: frozen weights in bf16, and weights, gradients and two moments of what is trained in f32. PEFT's",
        "  side is computed as 2 bytes a weight and 16 bytes a trained parameter, which is what its measurements come to;",
        "  for `full` as 8 bytes a weight, since PEFT trains bf16 weights in place. `peftc` trains in f32, so that plan is larger.",
        "- Nothing here was run on that card.",
        "",
        line(["configuration", "method", "trained", "PEFT's", "planned GiB", "PEFT's maximum GiB", "ratio", "resident GiB", "PEFT's"]),
        line(["---", "---", "---:", "---:", "---:", "---:", "---:", "---:", "---:"]),
    ]
    for r in sorted(rows, key=lambda r: r["name"]):
        own, theirs = r["own"], r["theirs"]
        text.append(
            line(
                [
                    r["name"],
                    f"`{r['method']}`",
                    f"{own:,}",
                    "the same" if own == theirs else f"{theirs:,}",
                    f"{r['planned'] / GIB:.1f}",
                    f"{r['reserved'] / GIB:.1f}",
                    f"{r['ratio']:.2f}",
                    f"{r['resident'] / GIB:.2f}",
                    f"{r['their_resident'] / GIB:.2f}",
                ]
            )
        )
    if missing:
        text += ["", "Not written yet: " + ", ".join(f"`{m}`" for m in sorted(missing)) + "."]
    DOC.write_text("\n".join(text) + "\n", encoding="utf-8")


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--peftc", required=True)
    ask.add_argument("--table", required=True)
    asked = ask.parse_args()
    csv.field_size_limit(2**30)
    with open(asked.table, encoding="utf-8", newline="") as f:
        table = [r for r in csv.DictReader(f, delimiter="\t") if r["task"] == "MetaMathQA"]
    OUT.mkdir(exist_ok=True)
    for old in OUT.glob("*.peft"):
        old.unlink()
    (OUT / "llama-3.2-3b.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    (OUT / "common.peft").write_text(COMMON, encoding="utf-8")
    rows, missing = [], []
    for row in table:
        name = short(row["variant"])
        adapter = ADAPTERS.get(name)
        if adapter is None:
            missing.append(name)
            continue
        path = OUT / file_name(name)
        path.write_text(recipe(name, adapter, row), encoding="utf-8")
        subprocess.run([str(Path(asked.peftc).resolve()), "fmt", str(path)], check=True)
        stage, bytes_planned = planned(str(Path(asked.peftc).resolve()), path)
        theirs, total = int(row["num_trainable_params"]), 3_212_749_824
        reserved = int(row["mem_reserved_max_bytes"])
        rows.append(
            {
                "name": name,
                "method": adapter.lstrip("[").split(" ")[0],
                "own": stage["parameters"]["trainable"],
                "theirs": theirs,
                "planned": bytes_planned,
                "reserved": reserved,
                "ratio": bytes_planned / reserved,
                "resident": resident(stage),
                "their_resident": 8 * total if adapter == "full" else 2 * total + 16 * theirs,
            }
        )
        print(rows[-1], flush=True)
    unknown = set(ADAPTERS) - {short(r["variant"]) for r in table}
    assert not unknown, unknown
    document(rows, missing)


if __name__ == "__main__":
    main()
