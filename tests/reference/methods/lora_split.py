"""PiSSA and OLoRA, transcribed: the product is taken out of the weight. Their starts are compared with those of peft."""

import copy

import make_side_traces as side
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

CASES = [
    ("pissa", f"lora {{ rank = 4, alpha = 4, init = pissa, on = {side.ALL} }}", 2e-3),
    ("olora", f"lora {{ rank = 4, alpha = 8, init = olora, on = {side.ALL} }}", 2e-3),
]


def adapt(model, start, case, method):
    """Take the product out of each weight, and put it beside the map."""
    scale = 1.0 if case == "pissa" else 2.0
    names = [k.removesuffix(".lora_A.weight") for k in start if k.endswith(".lora_A.weight")]
    config = LoraConfig(r=4, lora_alpha=4 * scale, init_lora_weights=case, target_modules=names)
    theirs = get_peft_model(copy.deepcopy(model), config).base_model.model
    for name in names:
        module = model.get_submodule(name)
        a, b = start[f"{name}.lora_A.weight"], start[f"{name}.lora_B.weight"]
        with torch.no_grad():
            module.weight -= scale * (b @ a)
        other = theirs.get_submodule(name)
        assert torch.allclose(module.weight, other.base_layer.weight, atol=2e-5), name
        if case == "olora":
            assert torch.allclose(a, other.lora_A["default"].weight, atol=2e-5), name
        module.lora_A = nn.Linear(a.shape[1], a.shape[0], bias=False)
        module.lora_B = nn.Linear(b.shape[1], b.shape[0], bias=False)
        module.register_forward_hook(lambda m, args, y: y + scale * m.lora_B(m.lora_A(args[0])))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "lora_" in key
