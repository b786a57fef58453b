"""A mask by magnitude: the largest weights of all matrices, trained by a transcription."""

import make_side_traces as side
import sparse_methods
from sparse_methods import trained  # noqa: F401

CASES = [("magnitude_mask", f"magnitude_mask {{ density = 0.02, on = {side.ALL} }}", 1e-2)]


def adapt(model, start, case, method):
    names = sparse_methods.maps(model)
    scores = {n: model.get_submodule(n).weight.detach().abs() for n in names}
    sparse_methods.put(model, start, scores, names)
