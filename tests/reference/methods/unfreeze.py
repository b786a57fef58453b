"""Gradual unfreezing: parameters get gradients, and the optimizer's state, from the step on that they join at."""

from torch.nn import functional as F

EVERY = 4
CASES = [
    ("unfreeze", f"unfreeze {{ every = {EVERY} steps }}", 2e-3),
    ("unfreeze_rates", f"unfreeze {{ every = {EVERY} steps, last = 2, rate = 0.5, rate_decay = 0.4 }}", 2e-3),
    ("unfreeze_named", 'unfreeze { modules = ["embeddings", "layer.1"], at = [0, 7] }', 2e-3),
]


def start(case, method):
    """The head's first values are the same under any method; one whose first step is a whole training leaves them."""
    return "lora { rank = 1 }"


def adapt(model, start, case, method):
    model.case, model.joins = case, {}
    for key, _ in model.named_parameters():
        model.joins[key] = joins(case, key, model.config.num_hidden_layers)


def joins(case, key, layers):
    """The step that a parameter joins at, counted from 0; None if it stays frozen."""
    if key.startswith(("classifier", "pre_classifier")) or "pooler" in key:
        return 0
    layer = int(key.split("layer.")[1].split(".")[0]) if "layer." in key else None
    if case == "unfreeze_named":
        return 0 if ".embeddings." in key else 7 if layer == 1 else None
    place = layers if layer is None else layers - 1 - layer
    return None if case == "unfreeze_rates" and place >= 2 else EVERY * place


def trained(case, key):
    return joins(case, key, LAYERS) is not None


LAYERS = 3


def group(case, key):
    if case != "unfreeze_rates" or "layer." not in key:
        return 1.0
    place = LAYERS - 1 - int(key.split("layer.")[1].split(".")[0])
    return 0.5 * 0.4**place


def loss(model, feed, mask, labels, step):
    for key, q in model.named_parameters():
        own = model.joins[key]
        q.requires_grad_(own is not None and own <= step - 1)
    return F.cross_entropy(model(**feed, attention_mask=mask).logits, labels)
