"""AdaMSS, by peft's own layer, which finds the clusters again."""

import make_side_traces as side

CASES = [
    ("adamss", f"adamss {{ rank = 12, subspaces = 3, on = {side.ALL} }}", 1e-2),
    ("adamss_ranks", f"adamss {{ rank = 20, subspaces = 4, subspace_rank = 2, decomposition_seed = 5, on = {side.ALL} }}", 1e-2),
]
