"""VeRA, by peft's own layer."""

import make_side_traces as side

CASES = [("vera", f"vera {{ rank = 16, on = {side.ALL} }}", 5e-2)]
