"""A mask by movement: weights times summed gradients in f64 choose the places, a transcription trains them."""

import make_side_traces as side
import sparse_methods
from sparse_methods import trained  # noqa: F401

CASES = [("movement_mask", f"movement_mask {{ density = 0.05, samples = 24, on = {side.ALL} }}", 1e-2)]


def adapt(model, start, case, method):
    names = sparse_methods.maps(model)
    sums = sparse_methods.gradients(model, start, 24, 1, lambda g: g)
    scores = {n: -sums[n] * model.get_submodule(n).weight.detach().double() for n in names}
    sparse_methods.put(model, start, scores, names)
