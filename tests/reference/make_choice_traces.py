#!/usr/bin/env python3
"""Write choices.json: log-likelihoods of options and the accuracies of lm-evaluation-harness, on tiny decoders of transformers.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_choice_traces.py

The weights are those of make_decoder_traces.py. The rules are those of the harness (`output_type: multiple_choice`), written out here: an
option is what the tokens of `context + " " + option` have behind those of the context, `acc` takes the largest sum, `acc_norm` the largest sum
a byte, `acc_token` a token. A text longer than the limit loses its beginning.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from make_decoder_traces import CASES, fnv, mixed, value

HERE = Path(__file__).resolve().parent
ROWS, MOST = 40, 12


def rows():
    """Words 2 to 49: prompts of 1 to 9, 2 to 4 options of 1 to 4."""
    draws = mixed(fnv("choices"), ROWS * 40).reshape(ROWS, 40)
    words = lambda row, at, most: " ".join(f"w{2 + w % 48}" for w in row[at + 1 : at + 2 + int(row[at] % most)])
    made = []
    for row in draws:
        options = [words(row, 12 + 6 * i, 4) for i in range(2 + int(row[11] % 3))]
        made.append(dict(prompt=words(row, 0, 9), choices=options, answer=int(row[39] % len(options))))
    return made


def encode(text):
    return [int(word[1:]) for word in text.split()]


def main():
    torch.set_num_threads(1)
    cases, made, data = {name: (kind, keys) for name, kind, keys in CASES}, [], rows()
    for of in ("llama", "gpt2", "gemma2"):
        kind, keys = cases[of]
        config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config).float().eval()
        sums, right = [], np.zeros(3)
        with torch.no_grad():
            for path, tensor in model.named_parameters():
                tensor.copy_(value(path, tensor.shape))
            for row in data:
                own, tokens = [], []
                for option in row["choices"]:
                    context = encode(row["prompt"])
                    whole = encode(row["prompt"] + " " + option)
                    count = len(whole) - len(context)
                    ids = torch.tensor([whole[-MOST:]])
                    each = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
                    each = torch.gather(each, 1, ids[0, 1:, None])[:, 0]
                    own.append(each[-count:].sum().item())
                    tokens.append(count)
                size = np.array([float(len(option.encode())) for option in row["choices"]])
                lls = np.array(own)
                picks = [np.argmax(lls), np.argmax(lls / size), np.argmax(lls / np.array(tokens))]
                right += [float(pick == row["answer"]) for pick in picks]
                sums.append(own)
        acc, norm, token = (right / len(data)).tolist()
        loss = -float(np.mean([s[row["answer"]] for s, row in zip(sums, data)]))
        made.append(dict(name=of, acc=acc, acc_norm=norm, acc_token=token, loss=loss, sums=sums))
        print(of, acc, norm, token, loss)
    text = json.dumps(dict(max_length=MOST, rows=data, models=made), separators=(",", ":"))
    (HERE / "choices.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
