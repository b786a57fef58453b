"""MiCA, by peft's own layer: B frozen, A trained."""

import make_side_traces as side

CASES = [("lora_mica", f"lora {{ rank = 4, alpha = 8, init = mica, on = {side.ALL} }}", 2e-3)]
