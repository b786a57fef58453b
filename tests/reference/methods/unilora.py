"""Uni-LoRA, by peft's own layer, which draws the same order from the seed."""

import make_side_traces as side

CASES = [("unilora", f"unilora {{ rank = 4, length = 100, on = {side.ALL} }}", 1e-2)]
