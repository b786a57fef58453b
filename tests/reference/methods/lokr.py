"""LoKr, by peft's own layer: whole factors, products, both starts."""

import make_side_traces as side

CASES = [
    ("lokr", f"lokr {{ rank = 8, alpha = 8, on = {side.ALL} }}", 1e-2),
    ("lokr_factored", f"lokr {{ rank = 2, alpha = 2, factor = 4, decompose_both = true, on = {side.ALL} }}", 1e-2),
    ("lokr_lycoris", f"lokr {{ rank = 2, alpha = 4, init = lycoris, on = {side.ALL} }}", 1e-2),
]
