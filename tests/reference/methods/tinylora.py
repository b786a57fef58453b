"""TinyLoRA, by peft's own layer: a vector of its own for each map, and shared ones."""

import make_side_traces as side

CASES = [
    ("tinylora", f"tinylora {{ rank = 3, numbers = 8, on = {side.ALL} }}", 2e-2),
    ("tinylora_tied", f"tinylora {{ numbers = 16, weight_tying = 0.7, bound = 0.02, on = {side.ALL} }}", 2e-2),
]
