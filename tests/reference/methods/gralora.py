"""GraLoRA, by peft's own layer, with and without a LoRA of the whole weight."""

import make_side_traces as side

CASES = [
    ("gralora", f"gralora {{ rank = 8, alpha = 16, k = 4, on = {side.ALL} }}", 5e-3),
    ("gralora_hybrid", f"gralora {{ rank = 4, alpha = 8, hybrid_rank = 2, on = {side.ALL} }}", 5e-3),
]
