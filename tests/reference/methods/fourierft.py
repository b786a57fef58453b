"""FourierFT, by peft's own layer."""

import make_side_traces as side

CASES = [("fourierft", f"fourierft {{ frequencies = 40, on = {side.ALL} }}", 1e-1)]
