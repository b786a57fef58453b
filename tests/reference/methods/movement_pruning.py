"""Movement pruning, transcribed: `pruning_methods.py`. Most weights are kept: AdamW moves all scores by nearly the same steps, so
that in their middle many lie closer together than rounding can tell apart."""

from pruning_methods import ON, adapt, group, loss, start, trained

__all__ = ["adapt", "group", "loss", "start", "trained"]
CASES = [("movement_pruning", f"movement_pruning {{ keep = 0.9, begins = 4, last = 5, score_rate = 20, on = {ON} }}", 1e-3)]
