"""RandLoRA, by peft's own layer, with a rank that divides the sides of maps and one that does not."""

import make_side_traces as side

CASES = [
    ("randlora", f"randlora {{ rank = 8, alpha = 8, on = {side.ALL} }}", 1e-2),
    ("randlora_odd", f"randlora {{ rank = 5, alpha = 5, on = {side.ALL} }}", 1e-2),
]
