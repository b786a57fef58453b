"""SMT: summed gradients in f64 choose blocks, a transcription trains them."""

import sparse_methods
from sparse_methods import trained  # noqa: F401

CASES = [("smt", "smt { blocks = 6, side = 4, samples = 48 }", 1e-2)]


def adapt(model, start, case, method):
    names = [n for n in sparse_methods.maps(model) if n.endswith(("query", "key", "value", "q_lin", "k_lin", "v_lin"))]
    scores = sparse_methods.gradients(model, start, 48, 16, lambda g: g)
    sums = {}
    for name in names:
        rows, columns = scores[name].shape
        block = scores[name].reshape(rows // 4, 4, columns // 4, 4).sum((1, 3), keepdim=True).abs() / 16
        sums[name] = block.expand(rows // 4, 4, columns // 4, 4).reshape(rows, columns)
    sparse_methods.put(model, start, sums, names, side=4)
