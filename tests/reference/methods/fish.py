"""FISH mask: squared gradients in f64 choose the places, a transcription trains them."""

import make_side_traces as side
import sparse_methods
from sparse_methods import trained  # noqa: F401

CASES = [
    ("fish", f"fish {{ density = 0.02, samples = 24, on = {side.ALL} }}", 1e-2),
    ("fish_absolute", f"fish {{ density = 0.3, samples = 24, score = absolute, on = {side.ALL} }}", 2e-3),
]


def adapt(model, start, case, method):
    square = abs if "absolute" in method else lambda g: g**2
    names = sparse_methods.maps(model)
    scores = sparse_methods.gradients(model, start, 24, 1, square)
    sparse_methods.put(model, start, scores, names)
