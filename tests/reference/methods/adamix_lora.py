"""AdaMix with LoRA, transcribed."""

import sys
from pathlib import Path

import make_side_traces as side

sys.path.insert(0, str(Path(__file__).resolve().parent))
from adamix import ALPHA, EXPERTS, RANK, adapt, loss, trained  # noqa: F401

CASES = [
    ("adamix_lora", f"adamix_lora {{ rank = {RANK}, alpha = {ALPHA}, experts = {EXPERTS}, on = {side.ALL} }}", 1e-2),
]
