"""Prompt tuning: peft's own class, which cannot go on with what it loads, so it is made anew."""

import torch
from peft import PromptTuningConfig, get_peft_model

CASES = [
    ("prompt_tuning", "prompt_tuning { tokens = 5 }", 5e-2),
    ("prompt_vocabulary", "prompt_tuning { tokens = 3, init = vocabulary }", 2e-2),
    ("prompt_ids", "prompt_tuning { tokens = 4, token_ids = [7, 9] }", 2e-2),
]


def adapt(model, start, case, method):
    name = next(k for k in start if k.endswith(".prompt"))
    if case == "prompt_ids":
        table = model.get_input_embeddings().weight
        assert torch.equal(start[name], table[[7, 9, 7, 9]])
    config = PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=start[name].shape[0], num_layers=model.config.num_hidden_layers,
        num_attention_heads=model.config.num_attention_heads, token_dim=model.config.hidden_size,
    )
    made = get_peft_model(model, config)
    with torch.no_grad():
        made.prompt_encoder["default"].embedding.weight.copy_(start[name])
        for key, q in made.named_parameters():
            bare = key.replace("base_model.", "", 1).replace("modules_to_save.default.", "")
            if bare in start:
                q.copy_(start[bare])
    return made


def trained(case, key):
    return "prompt_encoder" in key or "classifier" in key or "pooler" in key
