"""OFT, by peft's own layer."""

import make_side_traces as side

CASES = [
    ("oft", f"oft {{ block_size = 8, on = {side.ALL} }}", 1e-2),
    ("oft_constrained", f"oft {{ block_size = 8, constraint = 0.05, on = {side.ALL} }}", 1e-2),
    ("oft_exact", f"oft {{ block_size = 4, exact = true, share = true, on = {side.ALL} }}", 1e-2),
]
