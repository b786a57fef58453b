"""PaSTA, transcribed: peft does not have it."""

import torch
from torch import nn

CASES = [
    ("pasta", "pasta { dropout = 0 }", 2e-2),
    ("pasta_shared", "pasta { vectors = 3, shared = true, dropout = 0, on = layers[1..].block }", 2e-2),
]


def adapt(model, start, case, method):
    backbone = getattr(model, model.base_model_prefix)
    layers = backbone.encoder.layer if hasattr(backbone, "encoder") else backbone.transformer.layer
    most, state = (3 if "shared" in case else 2), {}
    model.pasta = nn.ParameterDict()

    def note(_, args, kwargs):
        ids = kwargs["input_ids"]
        # Special tokens that are no padding, in their order.
        tokens = {"bert": (2, 3), "distilbert": (2, 3), "roberta": (0, 2)}[model.config.model_type]
        special = torch.isin(ids, torch.tensor(SPECIAL.get(model.config.model_type, tokens))) & (kwargs["attention_mask"] > 0)
        place = special.cumsum(1) * special
        state["place"] = place * (place <= most)

    model.register_forward_pre_hook(note, with_kwargs=True)
    for i, layer in enumerate(layers):
        if f"block.{i}.pasta" not in start:
            continue
        vectors = nn.Parameter(start[f"block.{i}.pasta"].clone())
        model.pasta[str(i)] = vectors

        def add(_, args, kwargs, vectors=vectors):
            rows = vectors.expand(most, -1) if vectors.shape[0] < most else vectors
            table = torch.cat([torch.zeros_like(rows[:1]), rows])
            return (args[0] + table[state["place"]], *args[1:]), kwargs

        layer.register_forward_pre_hook(add, with_kwargs=True)


# Ids of special tokens, where they are not BERT's or RoBERTa's own.
SPECIAL = {}


def trained(case, key):
    return "pasta" in key
