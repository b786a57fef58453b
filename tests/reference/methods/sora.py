"""SoRA, transcribed with its two readings of the proximal step."""

import make_side_traces as side
import torch
from torch import nn
from torch.nn import functional as F

RANK, SCALE, XI, L1 = 4, 2.0, 2e-2, 0.5
KEYS = f"rank = {RANK}, alpha = {int(SCALE * RANK)}, l1 = {L1}, threshold = {XI}, rate_gate = 2, on = {side.ALL}"
CASES = [("sora", f"sora {{ {KEYS} }}", 5e-3), ("sora_reference", f"sora {{ prox = reference, {KEYS} }}", 5e-3)]


def start(case, method):
    """The method that one step is made with for the first values: without what moves gates at any rate."""
    return method.replace(f"threshold = {XI}", "threshold = 0")


def adapt(model, start, case, method):
    """Put a gated pair beside each map."""
    model.reading = case
    for name in [k.removesuffix(".sora_A") for k in start if k.endswith(".sora_A")]:
        module = model.get_submodule(name)
        for part in ("A", "B", "gate"):
            module.register_parameter(f"sora_{part}", nn.Parameter(start[f"{name}.sora_{part}"].clone()))
        module.register_forward_hook(
            lambda m, args, y: y + SCALE * ((args[0] @ m.sora_A.T) * m.sora_gate) @ m.sora_B.T
        )


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "sora_" in key


def group(case, key):
    """The rate's factor for a parameter."""
    return 2.0 if "sora_gate" in key else 1.0


def gates(model):
    return [q for key, q in model.named_parameters() if key.endswith("sora_gate")]


def loss(model, feed, mask, labels, step):
    """The mean magnitude of all gates is in the loss."""
    all_gates = torch.cat(gates(model))
    return F.cross_entropy(model(**feed, attention_mask=mask).logits, labels) + L1 * all_gates.abs().mean()


def after(model, step):
    """The proximal step; the reference subtracts in place and compares then."""
    with torch.no_grad():
        for gate in gates(model):
            moved = gate.sign() * (gate.abs() - XI).clamp(min=0)
            if model.reading == "sora_reference":
                moved = torch.where(moved.abs() < XI, torch.zeros_like(moved), moved)
            gate.copy_(moved)
