"""DeLoRA, by peft's own layer."""

import make_side_traces as side

CASES = [("delora", f"delora {{ rank = 4, lambda = 3, on = {side.ALL} }}", 5e-3)]
