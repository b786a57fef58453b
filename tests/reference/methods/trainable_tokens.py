"""Trainable tokens alone and beside LoRA, by peft's own layers."""

CASES = [
    ("trainable_tokens", "trainable_tokens { token_ids = [7, 4, 120, 11] }", 2e-3),
]
