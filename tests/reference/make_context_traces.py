#!/usr/bin/env python3
"""Write context.json: labels told from demonstrations in the context, on a tiny decoder and a tiny encoder of transformers.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_context_traces.py

The weights are those of make_decoder_traces.py and make_encoder_traces.py; a text's tokens are its words. A text stands in the template
`{text} w5 {mask}`, demonstrations of each class before it, each with `w6` behind it. All texts of a class in the split that they are drawn from
have the same words, so that any draw shows the same. A label's score is the sum or the mean of its tokens' log-probabilities under the decoder, or its
logit at the encoder's mask; with `calibrate` each probability is divided by that of the text `w40` (Zhao et al. 2021, arXiv 2102.09690, section 5).
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import json

import torch
from make_decoder_traces import CASES as DECODERS, HERE, fnv, mixed, value
from make_encoder_traces import CASES as ENCODERS, MASK
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

TEXTS, SHOWN = 24, 2
LABELS = {"decoder": [[2], [3, 4], [9, 10, 11]], "encoder": [[2], [3], [4]]}
POOL = [[20, 21, 22], [30, 31], [41, 42, 43, 44]]


def texts():
    draws = mixed(fnv("context"), TEXTS * 14).reshape(TEXTS, 14)
    return [([int(12 + w % 38) for w in row[1 : 2 + int(row[0] % 12)]], int(row[13] % 3)) for row in draws]


def made(auto, kind, keys):
    config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
    config._attn_implementation = "eager"
    model = auto.from_config(config).float().eval()
    with torch.no_grad():
        for path, tensor in model.named_parameters():
            tensor.copy_(value(path.lower(), tensor.shape))
    return model, {path: list(tensor.shape) for path, tensor in model.named_parameters()}


def shown(labels, order):
    classes = [c for c in range(3) for _ in range(SHOWN)] if order == "classes" else [c for _ in range(SHOWN) for c in range(3)]
    return [token for c in classes for token in POOL[c] + [5] + labels[c] + [6]]


def scores(model, kind, text, order, by):
    labels = LABELS[kind]
    before = shown(labels, order) + text + [5]
    with torch.no_grad():
        if kind == "encoder":
            return model(input_ids=torch.tensor([before + [MASK]])).logits[0, -1, [own[0] for own in labels]].double()
        all = []
        for own in labels:
            each = model(input_ids=torch.tensor([before + own]), use_cache=False).logits[0].double().log_softmax(-1)
            each = torch.stack([each[len(before) - 1 + i, token] for i, token in enumerate(own)])
            all.append(each.sum() if by == "sum" else each.mean())
        return torch.stack(all)


def case(model, kind, order, by, calibrate):
    data = texts()
    shares = torch.stack([scores(model, kind, text, order, by).softmax(-1) for text, _ in data])
    if calibrate:
        shares = shares / scores(model, kind, [40], order, by).softmax(-1)
        shares = shares / shares.sum(-1, keepdim=True)
    labels = torch.tensor([label for _, label in data])
    loss = F.nll_loss(shares.log(), labels).item()
    print(kind, order, by, calibrate, loss, (shares.argmax(-1) == labels).double().mean().item())
    return dict(
        model=kind, order=order, by=by, calibrate=calibrate, loss=loss, predictions=shares.argmax(-1).tolist(),
        accuracy=(shares.argmax(-1) == labels).double().mean().item(), shares=shares.tolist(),
    )


def main():
    torch.set_num_threads(1)
    decoder = next((kind, keys) for name, kind, keys in DECODERS if name == "llama")
    encoder = next((kind, keys) for name, kind, keys in ENCODERS if name == "electra")
    lm, lm_shapes = made(AutoModelForCausalLM, *decoder)
    mlm, mlm_shapes = made(AutoModelForMaskedLM, *encoder)
    cases = [case(lm, "decoder", "classes", "sum", False), case(lm, "decoder", "turns", "mean", True)]
    cases += [case(mlm, "encoder", "turns", "sum", False), case(mlm, "encoder", "classes", "sum", True)]
    models = dict(
        decoder=dict(config={"model_type": decoder[0], **decoder[1]}, tensors=lm_shapes),
        encoder=dict(config={"model_type": encoder[0], **encoder[1]}, tensors=mlm_shapes),
    )
    text = json.dumps(dict(texts=texts(), pool=POOL, labels=LABELS, models=models, cases=cases), separators=(",", ":"))
    (HERE / "context.json").write_text(text.replace('{"model"', '\n{"model"') + "\n")


if __name__ == "__main__":
    main()
