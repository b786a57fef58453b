#!/usr/bin/env python3
"""Write qsiva.json: curves of SiVA whose rest is stored in blocks, on a tiny LLaMA of transformers.

How to run (from the repository root; the environment of make_traces.py, with gguf):

    .venv/bin/python tests/reference/make_qsiva_traces.py

The weights and texts are those of make_decoder_traces.py. numpy decomposes each matrix, and gguf rounds what the top vectors leave of
it. Signs of singular vectors change no loss.
"""

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from make_decoder_traces import BATCH, CASES, TEXTS, loss, texts, value

HERE = Path(__file__).resolve().parent
RANK, STEPS, RATE = 4, 20, 0.05
ON = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj")


class Siva(nn.Module):
    def __init__(self, weight, kind):
        super().__init__()
        own = weight.double().numpy()
        u, s, v = np.linalg.svd(own, full_matrices=False)
        rest = (own - (u[:, :RANK] * s[:RANK]) @ v[:RANK]).astype(np.float32)
        if kind is not None:
            rest = gguf.quants.dequantize(gguf.quants.quantize(rest, kind), kind)
        single = lambda x: torch.tensor(np.ascontiguousarray(x).astype(np.float32))
        self.rest, self.s = single(rest), single(s[:RANK])
        self.u, self.v = nn.Parameter(single(u[:, :RANK])), nn.Parameter(single(v[:RANK]))

    def forward(self, x):
        return x @ self.rest.T + ((x @ self.v.T) * self.s) @ self.u.T


def main():
    torch.set_num_threads(1)
    rows, made = texts(), []
    kind, keys = {name: (kind, keys) for name, kind, keys in CASES}["llama"]
    types = gguf.GGMLQuantizationType
    for tail, rounded in (("f32", None), ("q8_0", types.Q8_0), ("q4_0", types.Q4_0)):
        config = AutoConfig.for_model(kind, **json.loads(json.dumps(keys)))
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for path, tensor in model.named_parameters():
                tensor.copy_(value(path, tensor.shape))
        model.requires_grad_(False)
        for layer in model.model.layers:
            for block in (layer.self_attn, layer.mlp):
                for name in ON:
                    if hasattr(block, name):
                        setattr(block, name, Siva(getattr(block, name).weight.detach(), rounded))
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=RATE)
        curve = []
        for step in range(STEPS):
            at = step * BATCH % TEXTS
            optimizer.zero_grad()
            now = loss(model, rows[at : at + BATCH])
            now.backward()
            optimizer.step()
            curve.append(now.item())
        made.append(dict(tail=tail, curve=curve))
        print(tail, curve[0], curve[-1], sum(p.numel() for p in trained))
    out = dict(rank=RANK, rate=RATE, batch=BATCH, curves=made)
    (HERE / "qsiva.json").write_text(json.dumps(out, separators=(",", ":")).replace('{"tail"', '\n{"tail"') + "\n")


if __name__ == "__main__":
    main()
