"""LN tuning, by peft's own layer."""

CASES = [("ln_tuning", "ln_tuning", 1e-2)]
