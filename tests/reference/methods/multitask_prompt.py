"""Multitask prompt tuning: peft's own embedding, for one task."""

import torch
from peft import MultitaskPromptTuningConfig, PromptTuningConfig, get_peft_model
from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding
from torch import nn

CASES = [
    ("multitask_prompt", "multitask_prompt { tokens = 4, rank = 2, tasks = 3, task = 1 }", 2e-2),
]


class OneTask(nn.Module):
    """The prompts of a task."""

    def __init__(self, config, table, task):
        super().__init__()
        self.all, self.task = MultitaskPromptEmbedding(config, table), task
        # By these names they do not decay.
        self.cols_gate, self.rows_gate = (nn.Parameter(p.detach().clone()) for p in self.factors().values())

    @property
    def embedding(self):
        return self.all.embedding

    def factors(self):
        return {"prefix_task_cols": self.all.prefix_task_cols, "prefix_task_rows": self.all.prefix_task_rows}

    def forward(self, indices):
        own = {"prefix_task_cols": self.cols_gate, "prefix_task_rows": self.rows_gate}
        task = torch.tensor([self.task] * len(indices))
        return torch.func.functional_call(self.all, own, (indices, task))


def adapt(model, start, case, method):
    sizes = {
        "num_virtual_tokens": 4, "num_layers": model.config.num_hidden_layers,
        "num_attention_heads": model.config.num_attention_heads, "token_dim": model.config.hidden_size,
    }
    own = MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_ranks=2, num_tasks=3, num_transformer_submodules=1, **sizes
    )
    made = get_peft_model(model, PromptTuningConfig(task_type="SEQ_CLS", **sizes))
    encoder = OneTask(own, model.get_input_embeddings(), 1)
    made.prompt_encoder["default"] = encoder
    site = next(k for k in start if k.endswith(".prompt")).removesuffix(".prompt")
    with torch.no_grad():
        encoder.all.embedding.weight.copy_(start[f"{site}.prompt"])
        for name, own in (("prefix_task_cols", encoder.cols_gate), ("prefix_task_rows", encoder.rows_gate)):
            own.copy_(start[f"{site}.{name}"].view(own.shape))
        for key, q in made.named_parameters():
            bare = key.replace("base_model.", "", 1).replace("modules_to_save.default.", "")
            if bare in start:
                q.copy_(start[bare])
    return made


def trained(case, key):
    return "prompt_encoder" in key or "classifier" in key or "pooler" in key
