"""LoRA with ranks and scales by place, by peft's own layers under `rank_pattern` and `alpha_pattern`."""

import make_side_traces as side

RANKS = 'ranks = { "layers[0..1].attention.query": 6, "ffn.*": 2 }'
ALPHAS = 'alphas = { "attention.value": 4, "ffn.up": 1.5 }'

CASES = [("lora_ranks", f"lora {{ rank = 4, alpha = 8, {RANKS}, {ALPHAS}, on = {side.ALL} }}", 2e-3)]
