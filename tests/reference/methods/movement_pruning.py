"""Movement pruning, transcribed: `pruning_methods.py`."""

from pruning_methods import ON, adapt, group, loss, start, trained

__all__ = ["adapt", "group", "loss", "start", "trained"]
CASES = [("movement_pruning", f"movement_pruning {{ keep = 0.4, begins = 2, last = 5, score_rate = 20, on = {ON} }}", 1e-3)]
