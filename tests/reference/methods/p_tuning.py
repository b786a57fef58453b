"""P-tuning: peft's own encoder."""

import torch
from peft import PromptEncoderConfig, get_peft_model

CASES = [
    ("p_tuning", "p_tuning { tokens = 4, hidden = 12 }", 5e-3),
    ("p_tuning_lstm", "p_tuning { tokens = 4, hidden = 6, encoder = lstm }", 5e-3),
]


def adapt(model, start, case, method):
    lstm = case.endswith("lstm")
    config = PromptEncoderConfig(
        task_type="SEQ_CLS", num_virtual_tokens=4, encoder_hidden_size=6 if lstm else 12,
        encoder_reparameterization_type="LSTM" if lstm else "MLP", num_layers=model.config.num_hidden_layers,
        num_attention_heads=model.config.num_attention_heads, token_dim=model.config.hidden_size,
    )
    made = get_peft_model(model, config)
    encoder = made.prompt_encoder["default"]
    site = next(k for k in start if k.endswith(".prompt")).removesuffix(".prompt")
    with torch.no_grad():
        encoder.embedding.weight.copy_(start[f"{site}.prompt"])
        for key, q in encoder.named_parameters():
            if f"{site}.{key}" in start:
                q.copy_(start[f"{site}.{key}"])
        for key, q in made.named_parameters():
            bare = key.replace("base_model.", "", 1).replace("modules_to_save.default.", "")
            if bare in start:
                q.copy_(start[bare])
    return made


def trained(case, key):
    return "prompt_encoder" in key or "classifier" in key or "pooler" in key
