"""SHiRA, by peft's own layer, on the places that peftc chose."""

import make_side_traces as side

CASES = [
    ("shira", f"shira {{ rank = 4, on = {side.ALL} }}", 1e-2),
    ("shira_magnitude", "shira { rank = 2, mask = magnitude, on = attention.{query, value} }", 1e-2),
    ("shira_snip", "shira { rank = 2, mask = snip, samples = 24, on = attention.{query, value} }", 1e-2),
]
