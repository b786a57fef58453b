"""RoAd, by peft's own layer."""

import make_side_traces as side

CASES = [(f"road_{n}", f"road {{ numbers = {n}, group_size = 8, on = {side.ALL} }}", 1e-2) for n in (1, 4)]
