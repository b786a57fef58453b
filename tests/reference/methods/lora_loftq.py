"""LoftQ, transcribed: bitsandbytes rounds, torch decomposes what that loses, and the pair stands on the rounded weight."""

import bitsandbytes.functional as bnb
import torch
from torch import nn

# One weight of roberta-tiny's other maps lies between two levels, which the two quantisers take apart.
CASES = [("lora_loftq", "lora { rank = 4, alpha = 4, init = loftq, on = attention.{query, key, value} }", 2e-3)]


def rounded(weight):
    """A matrix as nf4 with nested scales decodes it."""
    packed, state = bnb.quantize_4bit(weight.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4")
    return bnb.dequantize_4bit(packed, state).to(torch.float32)


def adapt(model, start, case, method):
    """Round each weight, and hold peftc's pair to be as near to what that loses as the best of its rank."""
    for name in [k.removesuffix(".lora_A.weight") for k in start if k.endswith(".lora_A.weight")]:
        module = model.get_submodule(name)
        weight = module.weight.detach().clone()
        base = rounded(weight)
        a, b = start[f"{name}.lora_A.weight"], start[f"{name}.lora_B.weight"]
        best = torch.linalg.svdvals((weight - base).double())[4:].norm()
        own = (weight - base - b @ a).double().norm()
        assert abs(own - best) < 1e-5 * best, (name, own, best)
        with torch.no_grad():
            module.weight.copy_(base)
        module.lora_A = nn.Linear(a.shape[1], a.shape[0], bias=False)
        module.lora_B = nn.Linear(b.shape[1], b.shape[0], bias=False)
        module.register_forward_hook(lambda m, args, y: y + m.lora_B(m.lora_A(args[0])))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "lora_" in key
