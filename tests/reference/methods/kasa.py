"""KaSA, by peft's own layer and terms of the loss."""

import make_side_traces as side
from torch.nn import functional as F

CASES = [("kasa", f"kasa {{ rank = 4, alpha = 8, beta = 0.01, gamma = 0.02, on = {side.ALL} }}", 1e-3)]


def loss(model, feed, mask, labels, step):
    """The terms are added by hand there."""
    own = F.cross_entropy(model(**feed, attention_mask=mask).logits, labels)
    return own + model.base_model._get_kasa_loss()
