#!/usr/bin/env python3
"""Write seq2seq_generation.json: what transformers makes of sources with the models of seq2seq.json, greedily and by beam search.

How to run (from the repository root; the environment of make_traces.py):

    .venv/bin/python tests/reference/make_seq2seq_generation_traces.py
"""

import json

import make_seq2seq_traces as pairs
import torch
from make_decoder_traces import HERE

NEW, SOURCES = 12, 5
# Tokens that end a text: more than one, or these models come to no end.
ENDS = [1, 9, 15, 24, 47, 48]
# The numbers of beams with the length penalty and early stopping of `generate`.
SEARCHES = [(1, 1.0, False), (4, 1.0, False), (4, 2.0, "never"), (3, 0.0, True), (2, -1.0, "never")]


def made(model, source, search):
    beams, penalty, early = search
    # The caches of transformers have as many layers as the encoder.
    cached = model.config.num_layers == model.config.num_decoder_layers
    more = dict(length_penalty=penalty, early_stopping=early) if beams > 1 else {}
    with torch.no_grad():
        out = model.generate(
            torch.tensor([source]), attention_mask=torch.ones(1, len(source), dtype=torch.long), do_sample=False,
            max_new_tokens=NEW, num_beams=beams, eos_token_id=ENDS, pad_token_id=0,
            decoder_start_token_id=model.config.decoder_start_token_id, use_cache=cached, **more,
        )
    row = out[0, 1:].tolist()
    ends = [i for i, token in enumerate(row) if token in ENDS]
    return row[: ends[0]] if ends else row


if __name__ == "__main__":
    torch.set_num_threads(1)
    sources = [source for source, _ in pairs.pairs()[:SOURCES]]
    cases = []
    for case in pairs.CASES:
        model = pairs.build(case)
        cases.append(dict(name=case[0], made=[[made(model, source, search) for source in sources] for search in SEARCHES]))
        print(case[0], [len(x) for x in cases[-1]["made"][1]], cases[-1]["made"][0][0])
    out = dict(new=NEW, ends=ENDS, sources=sources, searches=SEARCHES, cases=cases)
    (HERE / "seq2seq_generation.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
