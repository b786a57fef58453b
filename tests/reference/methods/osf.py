"""OSF, by peft's own layer, whose hooks project the gradients."""

import make_side_traces as side

CASES = [
    ("osf", f"osf {{ on = {side.ALL} }}", 2e-3),
    ("osf_keep", f"osf {{ keep = 3, on = {{attention.*, ffn.up}} }}", 2e-3),
]
