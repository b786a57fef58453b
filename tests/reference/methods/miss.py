"""MiSS, by peft's own layer: plain with a rank that does not divide the input, by blocks of the weight, and narrow."""

import make_side_traces as side

CASES = [
    ("miss", f"miss {{ rank = 5, on = {side.ALL} }}", 5e-3),
    ("miss_bat", f"miss {{ rank = 8, variant = bat, on = {side.ALL} }}", 5e-3),
    ("miss_mini", f"miss {{ rank = 8, variant = mini, mini_rank = 4, on = {side.ALL} }}", 5e-3),
]
