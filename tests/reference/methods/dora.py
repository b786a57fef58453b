"""DoRA, by peft's own layer."""

import make_side_traces as side

CASES = [("dora", f"dora {{ rank = 4, alpha = 8, on = {side.ALL} }}", 1e-2)]
