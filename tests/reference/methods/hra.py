"""HRA, by peft's own layer."""

import make_side_traces as side

CASES = [
    ("hra", f"hra {{ rank = 4, on = {side.ALL} }}", 1e-2),
    ("hra_orthogonal", f"hra {{ rank = 3, orthogonal = true, on = {side.ALL} }}", 1e-2),
]
