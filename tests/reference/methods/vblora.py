"""VB-LoRA, by peft's own layer."""

import make_side_traces as side

CASES = [("vblora", f"vblora {{ rank = 2, vectors = 12, length = 16, top_k = 3, on = {side.ALL} }}", 2e-2)]
