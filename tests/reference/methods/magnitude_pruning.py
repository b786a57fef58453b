"""Magnitude pruning, transcribed: `pruning_methods.py`."""

from pruning_methods import ON, adapt, loss, start, trained

__all__ = ["adapt", "loss", "start", "trained"]
CASES = [("magnitude_pruning", f"magnitude_pruning {{ keep = 0.3, begins = 3, last = 4, on = {ON} }}", 1e-3)]
