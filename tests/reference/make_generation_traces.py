#!/usr/bin/env python3
"""Write generation.json: what transformers generates, greedily, with the decoders of decoders.json, and how it classifies.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_generation_traces.py

Each case has prompts of several lengths, and behind each the tokens of `generate(do_sample=False)`; and the probabilities of
three classes by the class for sequence classification, where transformers has one.
"""

import json

import make_decoder_traces as decoders
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

PROMPTS, NEW = [[5, 9, 13], [40], [7, 7, 21, 3, 30, 12, 44, 2, 18, 25, 33, 6, 11, 29, 47, 8, 15]], 24


def build(auto, kind, keys):
    """The model of a case, with the weights that the tests give it."""
    config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)), num_labels=3)
    config._attn_implementation = "eager"
    model = auto.from_config(config).float().eval()
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            tensor.copy_(decoders.value(path, tensor.shape))
    return model


def generate(case):
    name, kind, keys = case
    model = build(AutoModelForCausalLM, kind, keys)
    made = []
    for prompt in PROMPTS:
        with torch.no_grad():
            out = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                do_sample=False, max_new_tokens=NEW, eos_token_id=1, pad_token_id=0,
            )
        made.append(out[0, len(prompt):].tolist())
    case = {"name": name, "made": made}
    if type(model.config) in AutoModelForSequenceClassification._model_mapping:
        model = build(AutoModelForSequenceClassification, kind, keys)
        with torch.no_grad():
            scores = [model(torch.tensor([prompt])).logits[0].softmax(-1).tolist() for prompt in PROMPTS]
        case["classes"] = [[round(x, 7) for x in row] for row in scores]
    return case


if __name__ == "__main__":
    torch.set_num_threads(1)
    text = {"new": NEW, "prompts": PROMPTS, "cases": [generate(case) for case in decoders.CASES]}
    (decoders.HERE / "generation.json").write_text(json.dumps(text, separators=(",", ":")) + "\n")
