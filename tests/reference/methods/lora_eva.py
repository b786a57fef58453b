"""EVA by peft: its own components of the same batches, which peftc's first values are held against, and its own training."""

import make_side_traces as side
import make_traces as base
import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.utils.incremental_pca import IncrementalPCA
from pathlib import Path

# peft decomposes roughly and by chance; here it does so exactly, as peftc does.
IncrementalPCA._svd_fn_lowrank = IncrementalPCA._svd_fn_full
# Maps that read the same have equal components; which of them gets the last one is not told by torch's usual sort.
usual = torch.Tensor.argsort
torch.Tensor.argsort = lambda x, **more: usual(x, stable=True, **more)

CASES = [
    ("lora_eva", f"lora {{ rank = 4, alpha = 8, init = eva, eva_tau = 0.9, on = {side.ALL} }}", 2e-3),
    (
        "lora_eva_scaled",
        f"lora {{ rank = 4, alpha = 8, rs_lora = true, init = eva, eva_tau = 0.9, eva_rho = 3, on = {side.ALL} }}",
        2e-3,
    ),
    # peft divides in place, so that maps that read the same are whitened once for each of them: here no two do.
    (
        "lora_eva_white",
        "lora { rank = 4, alpha = 8, init = eva, eva_tau = 0.9, eva_whiten = true, eva_adjust_scaling = false, on = {attention.{query, output}, ffn.{up, down}} }",
        2e-3,
    ),
]


def batches(name):
    """The first epoch's batches, as peft takes them: first those that no other is as large as in every size."""
    rows = base.read_rows(Path(__file__).parents[3] / "recipes" / "reviews" / "train.tsv")[: base.STEPS * base.BATCH]
    tok, made, sizes = base.tokenizer_of(name), [], []
    for ids, types, mask, _ in base.batches(tok, rows, tok.pad_token_id):
        made.append({**base.feed(name, ids, types), "attention_mask": torch.tensor(mask)})
        lengths = [sum(row) for row in mask]
        sizes.append((len(lengths), sum(lengths), sum(n * n for n in lengths), max(lengths)))
    least = lambda i, k: sizes[i] != sizes[k] and all(a <= b for a, b in zip(sizes[i], sizes[k]))
    every = range(len(sizes))
    first = [i for i in every if not any(least(i, k) for k in every) and sizes.index(sizes[i]) == i]
    print("first", first)
    return [made[i] for i in first + [i for i in every if i not in first]]


def adapt(model, start, case, method):
    """peft's own model, from whose components peftc's may differ by rounding alone."""
    name = f"{model.config.model_type}-tiny"
    targets = sorted(k.removesuffix(".lora_A.weight") for k in start if k.endswith(".lora_A.weight"))
    scaled, white = case == "lora_eva_scaled", case == "lora_eva_white"
    eva = EvaConfig(rho=3.0 if scaled else 2.0, tau=0.9, whiten=white, adjust_scaling_factors=not white)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        lora_alpha=8,
        use_rslora=scaled,
        init_lora_weights="eva",
        eva_config=eva,
        target_modules=targets,
        modules_to_save=["classifier", "pre_classifier", "pooler"],
    )
    adapted = get_peft_model(model, config)
    initialize_lora_eva_weights(adapted, batches(name), show_progress_bar=False)
    ranks = {}
    for path, module in adapted.named_modules():
        if not path.endswith(".lora_A.default"):
            continue
        path = path.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        own, a = start[f"{path}.lora_A.weight"], module.weight.detach()
        kept = own[own.abs().sum(1) > 0]
        assert len(kept) == len(a), (path, len(kept), len(a))
        ranks[path] = len(a)
        gram = lambda x: torch.linalg.qr(x.T.double())[0]
        apart = (gram(kept) @ gram(kept).T - gram(a) @ gram(a).T).abs().max()
        assert apart < 1e-4, (path, apart)
        if f"{path}.lora_factor" in start:
            scale = adapted.get_submodule(f"base_model.model.{path}").scaling["default"]
            assert abs(scale - (4 if scaled else 2) * start[f"{path}.lora_factor"][0]) < 1e-5, (path, scale)
    gone = [t for t in targets if t not in ranks]
    assert all(not start[f"{t}.lora_A.weight"].any() for t in gone)
    print("ranks", sorted(ranks.values()), "without", len(gone))
    return adapted


def trained(case, key):
    """Whether a parameter of the model is trained; peft's model has names of its own."""
    return "lora_" in key or "modules_to_save" in key
