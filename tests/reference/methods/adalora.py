"""AdaLoRA, by peft's own layer, loss and allocation of ranks."""

import make_side_traces as side

STEPS = 20
CASES = [
    (
        "adalora",
        "adalora { init_rank = 4, target_rank = 2, alpha = 8, tinit = 2, tfinal = 5, delta_t = 3, "
        f"on = {side.ALL} }}",
        1e-2,
    )
]


def start(case, method):
    """The method that one step is made with for the first values: peftc refuses a schedule that is longer."""
    return method.replace("tinit = 2, tfinal = 5, ", "")


def loss(model, feed, mask, labels, step):
    """Their loss has the distance from orthogonal matrices in it."""
    config = model.peft_config["default"]
    config.total_step, config.tinit, config.tfinal = STEPS, 2, 5
    return model(**feed, attention_mask=mask, labels=labels).loss


def after(model, step):
    """Their allocation, with steps counted from 0."""
    model.base_model.update_and_allocate(step - 1)
