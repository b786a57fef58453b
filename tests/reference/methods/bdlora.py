"""BD-LoRA, by peft's own layers: names of modules must tell the factors apart, which those of DistilBERT do."""

import make_side_traces as side

CASES = [
    ("bdlora", "bdlora { rank = 4, alpha = 8, on = attention.{query, key, value, output} }", 2e-3),
    ("bdlora_a", f"bdlora {{ rank = 4, alpha = 8, blocks = 4, factor = a, on = {side.ALL} }}", 2e-3),
]
