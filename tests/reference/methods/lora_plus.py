"""LoRA+, by peft's own layer with a rate of its own for B, and for the head's biases too as peft's optimizer has it."""

import make_side_traces as side

CASES = [
    ("lora_plus", f"lora {{ rank = 4, alpha = 8, rate_b = 16, on = {side.ALL} }}", 5e-4),
    ("lora_gaussian", f"lora {{ rank = 4, alpha = 8, init = gaussian, rate_b = 4, rate_vectors = true, on = {side.ALL} }}", 1e-3),
]


def group(case, key):
    """The rate's factor for a parameter."""
    if case == "lora_plus":
        return 16.0 if "lora_b" in key else 1.0
    return 4.0 if "lora_b" in key or key.endswith("bias") else 1.0
