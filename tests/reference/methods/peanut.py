"""PEANuT, by peft's own layer."""

import make_side_traces as side

CASES = [
    ("peanut", f"peanut {{ rank = 4, on = {side.ALL} }}", 2e-2),
    ("peanut_deep", f"peanut {{ rank = 4, depth = 2, function = gelu, scaling = 2, on = {side.ALL} }}", 2e-2),
]
