"""HiRA, by peft's own layer."""

import make_side_traces as side

CASES = [("hira", f"hira {{ rank = 4, on = {side.ALL} }}", 1e-2)]
