"""DEFT and PaRa, by peft's own layer. Where DEFT starts unchanged, half of P has gradients of rounding errors alone at first, which
AdamW makes steps of; the rate is low there."""

import make_side_traces as side

CASES = [
    ("deft", f"deft {{ rank = 4, on = {side.ALL} }}", 5e-5),
    ("deft_scaled", f"deft {{ rank = 3, alpha = 6, init = normal, on = {side.ALL} }}", 5e-3),
    ("deft_qr", f"deft {{ rank = 4, projection = qr, on = {side.ALL} }}", 5e-3),
    ("para", f"deft {{ rank = 4, inject = false, on = {side.ALL} }}", 1e-2),
]
