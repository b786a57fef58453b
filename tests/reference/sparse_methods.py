"""Numbers at places of frozen matrices, transcribed, and the choice of the places, made again in f64."""

from pathlib import Path

import make_traces as base
import torch
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
REVIEWS = HERE.parent.parent / "recipes" / "reviews" / "train.tsv"


class Sparse(nn.Module):
    """A linear map with an update of square blocks; of entries where `side` is 1."""

    def __init__(self, linear, places, side):
        super().__init__()
        self.linear, self.side = linear, side
        self.places = torch.tensor(places, dtype=torch.long)
        self.sparse_values = nn.Parameter(torch.zeros(len(places), side, side))

    def forward(self, x):
        rows, columns = self.linear.weight.shape
        s, wide = self.side, columns // self.side
        blocks = torch.zeros(rows // s * wide, s, s).index_add(0, self.places, self.sparse_values)
        delta = blocks.view(rows // s, wide, s, s).transpose(1, 2).reshape(rows, columns)
        return self.linear(x) + F.linear(x, delta)


def maps(model):
    """The linear maps of the blocks, in the order of the forward pass."""
    order = ("query", "q_lin", "key", "k_lin", "value", "v_lin", "attention.output", "out_lin", "intermediate", "lin1")

    def place(name):
        number = int(name.split("layer.")[1].split(".")[0])
        return number, next((i for i, part in enumerate(order) if part in name), len(order))

    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "layer." in n]
    return sorted(names, key=place)


def gradients(model, start, samples, batch, square):
    """Gradients of the first examples in f64: their squares, sizes or themselves, summed."""
    model.load_state_dict({k: v for k, v in start.items() if k in model.state_dict()}, strict=False)
    model = model.double()
    model.eval()
    name = model.config.model_type + "-tiny"
    tok = base.tokenizer_of(name)
    sums = {n: torch.zeros_like(model.get_submodule(n).weight) for n in maps(model)}
    rows = base.read_rows(REVIEWS)[:samples]
    for first in range(0, len(rows), batch):
        model.zero_grad()
        part = rows[first : first + batch]
        for text, label in part:
            ids = torch.tensor([tok(text, truncation=True, max_length=64)["input_ids"]])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            (F.cross_entropy(logits, torch.tensor([label])) / len(part)).backward()
        for n in sums:
            sums[n] += square(model.get_submodule(n).weight.grad)
    model.float()
    return sums


def put(model, start, scores, names, side=1):
    """Take the best places of all maps, compare them with those that were exported, and train them."""
    flat = []
    for name in names:
        rows, columns = scores[name].shape
        blocks = scores[name].reshape(rows // side, side, columns // side, side).sum((1, 3))
        flat.append(blocks.flatten())
    sizes, all_ = [len(f) for f in flat], torch.cat(flat)
    places, bounds = start["sparse.places"].long(), start["sparse.bounds"].long()
    kept = torch.zeros(len(all_), dtype=torch.bool)
    begin = 0
    for i, size in enumerate(sizes):
        kept[begin + places[bounds[i] : bounds[i + 1]]] = True
        begin += size
    assert int(kept.sum()) == len(places)
    # Rounding may swap places whose scores are all but equal.
    worst, best = all_[kept].min().item(), all_[~kept].max().item()
    assert worst >= best * (1 - 1e-4), (worst, best)
    for i, name in enumerate(names):
        parent, _, own = name.rpartition(".")
        own_places = places[bounds[i] : bounds[i + 1]].tolist()
        module = Sparse(model.get_submodule(name), own_places, side)
        setattr(model.get_submodule(parent), own, module)


def trained(case, key):
    """Whether a parameter of the model is trained beside the head."""
    return "sparse_values" in key
