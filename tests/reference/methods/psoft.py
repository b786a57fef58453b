"""PSOFT, by peft's own layer, which gets our singular vectors in the place of those that it computes: signs are any library's own."""

import re

import make_side_traces as side
import torch
from peft import PsoftConfig
from peft.tuners.psoft.layer import Linear

CASES = [
    ("psoft", f"psoft {{ rank = 6, on = {side.ALL} }}", 2e-2),
    ("psoft_series", f"psoft {{ rank = 4, basis = even, exact = false, bound = 0.05, scale_in = false, on = {side.ALL} }}", 2e-2),
    ("psoft_free", f"psoft {{ rank = 4, orthogonal = false, scale_out = false, on = {side.ALL} }}", 1e-2),
]


def config(method):
    """The config of a method as a recipe writes it."""
    rank = int(re.search(r"rank = (\d+)", method)[1])
    return PsoftConfig(
        r=rank,
        psoft_alpha=2 * rank,
        ab_svd_init="pissa_init" if "basis = even" in method else "psoft_init",
        psoft_orth="orthogonal = false" not in method,
        psoft_mag_a="scale_in = false" not in method,
        psoft_mag_b="scale_out = false" not in method,
        use_cayley_neumann="exact = false" in method,
        cayley_neumann_eps=0.05 if "bound" in method else None,
    )


def adapt(model, start, case, method):
    for name in {k.rsplit(".psoft_U", 1)[0] for k in start if k.endswith("psoft_U")}:
        parent, _, last = name.rpartition(".")
        layer = Linear(model.get_submodule(name), "default", config(method))
        u, s, v = (start[f"{name}.psoft_{part}"] for part in "USV")
        s = s / layer.scaling["default"]
        if layer.ab_svd_init["default"] == "psoft_init":
            a, b = v, u @ torch.diag(s)
        else:
            a, b = torch.diag(s.sqrt()) @ v, u @ torch.diag(s.sqrt())
        layer._set_psoft_ab_cache_buffers("default", a, b)
        setattr(model.get_submodule(parent), last, layer)


def trained(case, key):
    return "psoft_R" in key
