"""LoftQ, transcribed: bitsandbytes rounds, torch decomposes what that loses, and the pair stands on the rounded weight."""

import bitsandbytes.functional as bnb
import make_side_traces as side
import torch
from torch import nn

CASES = [
    (f"loftq_{n}", f"lora {{ rank = 4, alpha = 4, init = loftq, loftq_iterations = {n}, on = {side.ALL} }}", 2e-3) for n in (1, 3)
]


def rounded(weight):
    """A matrix as nf4 with nested scales decodes it."""
    packed, state = bnb.quantize_4bit(weight.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4")
    return bnb.dequantize_4bit(packed, state).to(torch.float32)


def adapt(model, start, case, method):
    """Round each weight in turns with the pair of what that loses, which peftc's pair has to be."""
    for name in [k.removesuffix(".lora_A.weight") for k in start if k.endswith(".lora_A.weight")]:
        module = model.get_submodule(name)
        weight = module.weight.detach().clone()
        rest = weight
        for _ in range(int(case.split("_")[1])):
            base = rounded(rest)
            u, s, vh = torch.linalg.svd(weight - base, full_matrices=False)
            pair = (u[:, :4] * s[:4]) @ vh[:4]
            rest = weight - pair
        a, b = start[f"{name}.lora_A.weight"], start[f"{name}.lora_B.weight"]
        assert torch.allclose(b @ a, pair, atol=2e-5), name
        with torch.no_grad():
            module.weight.copy_(base)
        module.lora_A = nn.Linear(a.shape[1], a.shape[0], bias=False)
        module.lora_B = nn.Linear(b.shape[1], b.shape[0], bias=False)
        module.register_forward_hook(lambda m, args, y: y + m.lora_B(m.lora_A(args[0])))


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "lora_" in key
