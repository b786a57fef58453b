"""LoRA-FA: peft's layer with A frozen, and the gradient of B as peft's optimizer projects it, in f32 throughout."""

import make_side_traces as side
import torch
from torch.nn import functional as F

RANK, ALPHA = 4, 8
CASES = [("lora_fa", f"lora {{ rank = {RANK}, alpha = {ALPHA}, lora_fa = true, on = {side.ALL} }}", 5e-3)]


def loss(model, feed, mask, labels, step):
    """In the first step A is frozen, and each B gets its hook."""
    if step == 1:
        for module in model.modules():
            if not hasattr(module, "lora_A"):
                continue
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            a.requires_grad_(False)
            inverse = torch.linalg.pinv(a @ a.T + 1e-8 * torch.eye(RANK)) / (ALPHA / RANK) ** 2
            b.register_hook(lambda grad, inverse=inverse: grad @ inverse)
    return F.cross_entropy(model(**feed, attention_mask=mask).logits, labels)
