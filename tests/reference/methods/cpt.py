"""Context-aware prompt tuning: peft's own embedding and projection, before a classifier."""

import torch
from peft import PromptTuningConfig, get_peft_model
from peft.tuners.cpt.config import CPTConfig
from peft.tuners.cpt.model import CPTEmbedding

CASES = [
    (
        "cpt",
        "cpt { token_ids = [7, 9, 12, 40, 5], types = [1, 2, 3, 4, 2], epsilon = 0.2, format_epsilon = 0.1 }",
        2e-2,
    ),
    ("cpt_templates", "cpt { token_ids = [30, 31] }", 2e-2),
]


def adapt(model, start, case, method):
    ids = [7, 9, 12, 40, 5] if case == "cpt" else [30, 31]
    types = [1, 2, 3, 4, 2] if case == "cpt" else [1, 1]
    table, hidden = model.get_input_embeddings(), model.config.hidden_size
    plain = PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=len(ids), num_layers=model.config.num_hidden_layers,
        num_attention_heads=model.config.num_attention_heads, token_dim=hidden,
    )
    own = CPTConfig(
        task_type="CAUSAL_LM", cpt_token_ids=ids, cpt_tokens_type_mask=types,
        opt_projection_epsilon=0.2 if case == "cpt" else 0.1, opt_projection_format_epsilon=0.1,
    )
    own.token_dim = hidden
    made = get_peft_model(model, plain)
    made.prompt_encoder["default"] = CPTEmbedding(own, table)
    with torch.no_grad():
        for key, q in made.named_parameters():
            bare = key.replace("base_model.", "", 1).replace("modules_to_save.default.", "")
            if bare in start:
                q.copy_(start[bare])
    return made


def trained(case, key):
    return "delta_embedding" in key or "classifier" in key or "pooler" in key
