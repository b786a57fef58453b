"""WaveFT, by peft's own layer."""

import make_side_traces as side

CASES = [
    ("waveft", f"waveft {{ frequencies = 60, on = {side.ALL} }}", 1e-2),
    ("waveft_sym3", f"waveft {{ frequencies = 30, wavelet = sym3, scaling = 10, on = {side.ALL} }}", 1e-2),
    ("waveft_plain", "waveft { frequencies = 50, transform = false, init = normal, on = attention.* }", 1e-2),
]
