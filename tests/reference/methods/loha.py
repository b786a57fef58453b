"""LoHa, by peft's own layer: a small rank, computed in pairs, and a larger one."""

import make_side_traces as side

CASES = [
    ("loha", f"loha {{ rank = 2, alpha = 4, on = {side.ALL} }}", 2e-2),
    ("loha_dense", f"loha {{ rank = 8, alpha = 8, on = {side.ALL} }}", 1e-2),
]
