"""Super-Tuning and Supra, by peft's own layer."""

import make_side_traces as side

CASES = [
    ("supertuning", f"supertuning {{ sparsity = 0.9, on = {side.ALL} }}", 1e-2),
    ("supertuning_smallest", f"supertuning {{ sparsity = 0.6, select = smallest, on = {side.ALL} }}", 5e-3),
    ("supra", f"supertuning {{ sparsity = 0.95, rank = 4, on = {side.ALL} }}", 1e-2),
]
