"""Cartridges on encoders: peft's own encoder of keys and values, put before attentions as prefixes are."""

import sys
from pathlib import Path

import torch
from peft.tuners.cartridge.config import CartridgeConfig
from peft.tuners.cartridge.model import CartridgeEncoder

sys.path.insert(0, str(Path(__file__).resolve().parent))
import prefix_tuning

CASES = [
    ("cartridge", "cartridge { tokens = 5, frozen = 2 }", 2e-2),
    ("cartridge_free", "cartridge { tokens = 3, frozen = 0 }", 2e-2),
]


def adapt(model, start, case, method):
    tokens, frozen = (5, 2) if case == "cartridge" else (3, 0)
    config = model.config
    made = CartridgeEncoder(
        CartridgeConfig(
            num_virtual_tokens=tokens, num_frozen_tokens=frozen, num_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads, token_dim=config.hidden_size,
        )
    )
    sites = sorted({k.split(".cartridge.")[0] for k in start if ".cartridge." in k})
    rows = lambda site, part: torch.cat(
        [start[key] for kind in ("frozen", "trained") if (key := f"{site}.cartridge.{part}.{kind}") in start], 0
    )
    made.load_prompt_embeddings(torch.cat([rows(s, part) for s in sites for part in ("key", "value")], 1))
    prefix_tuning.put(model, made, sites, (tokens, True))


def trained(case, key):
    return "trainable_embedding" in key
