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
# What is said of the tokens of some.
RULES = {
    "bart": dict(forced_bos_token_id=4, forced_eos_token_id=1),
    "mbart": dict(decoder_start_token_id=12, forced_bos_token_id=6, begin_suppress_tokens=[46, 3, 17]),
    "marian": dict(bad_words_ids=[[0], [30], [24], [44, 12], [8, 44]], forced_eos_token_id=[1, 9]),
    "plbart": dict(bos_token_id=5, suppress_tokens=[11, 40]),
}


def made(model, source, search, rules):
    beams, penalty, early = search
    # The caches of transformers have as many layers as the encoder.
    config = model.config
    depths = config.num_hidden_layers, getattr(config, "num_decoder_layers", getattr(config, "decoder_layers", None))
    more = dict(length_penalty=penalty, early_stopping=early) if beams > 1 else {}
    start = {} if config.decoder_start_token_id is None else dict(decoder_start_token_id=config.decoder_start_token_id)
    with torch.no_grad():
        out = model.generate(
            torch.tensor([source]), attention_mask=torch.ones(1, len(source), dtype=torch.long), do_sample=False,
            max_new_tokens=NEW, num_beams=beams, eos_token_id=ENDS, pad_token_id=0, use_cache=depths[0] == depths[1],
            **{**start, **rules}, **more,
        )
    row = out[0, 1:].tolist()
    ends = [i for i, token in enumerate(row) if token in ENDS]
    return row[: ends[0]] if ends else row


if __name__ == "__main__":
    torch.set_num_threads(1)
    sources = [source for source, _ in pairs.pairs()[:SOURCES]]
    cases = []
    for case in pairs.CASES:
        model, rules = pairs.build(case), RULES.get(case[0], {})
        rows = [[made(model, source, search, rules) for source in sources] for search in SEARCHES]
        cases.append(dict(name=case[0], **{"class": type(model).__name__}, rules=rules, made=rows))
        print(case[0], [len(x) for x in cases[-1]["made"][1]], cases[-1]["made"][0][0])
    out = dict(new=NEW, ends=ENDS, sources=sources, searches=SEARCHES, cases=cases)
    (HERE / "seq2seq_generation.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
