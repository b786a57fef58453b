"""GLoRA, by peft's own layer."""

import make_side_traces as side

CASES = [
    ("glora", f"glora {{ rank = 4, on = {side.ALL} }}", 1e-2),
    ("glora_vectors", f"glora {{ weight = vector, coupling = vector, bias = vector, on = {side.ALL} }}", 1e-2),
    ("glora_numbers", f"glora {{ weight = constant, coupling = none, bias = constant, on = {side.ALL} }}", 1e-2),
]
