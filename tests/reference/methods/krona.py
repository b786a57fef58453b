"""KronA, by peft's LoKr of whole factors."""

import make_side_traces as side

CASES = [("krona", f"krona {{ factor = 16, scale = 2, on = {side.ALL} }}", 1e-2)]
