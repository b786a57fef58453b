"""SpIEL, transcribed: places are dropped and grown between steps, each number with a state of its own."""

import sparse_methods
import torch

DENSITY, PERIOD, ACCUMULATE, RATE, STEPS = 0.02, 6, 2, 0.2, 20
KEYS = f"density = {DENSITY}, period = {PERIOD}, accumulate = {ACCUMULATE}"
LR, DECAY = 1e-2, 0.01
CASES = [
    ("spiel_ag", f"spiel {{ {KEYS} }}", LR),
    ("spiel_ma", f"spiel {{ {KEYS}, grow = sm3, policy = cosine }}", LR),
]


class Sparse(sparse_methods.Sparse):
    """Keeps the gradient of the whole matrix."""

    def forward(self, x):
        rows, columns = self.linear.weight.shape
        values = torch.zeros(rows * columns).index_add(0, self.places, self.sparse_values.flatten())
        self.delta = values.view(rows, columns)
        if self.delta.requires_grad:
            self.delta.retain_grad()
        return self.linear(x) + torch.nn.functional.linear(x, self.delta)


def adapt(model, start, case, method):
    model.case = case
    for key in [k for k in start if k.endswith(".shira_indices")]:
        name = key.removesuffix(".shira_indices")
        parent, _, own = name.rpartition(".")
        module = Sparse(model.get_submodule(name), start[key].long().tolist(), 1)
        k, (rows, columns) = len(module.places), module.linear.weight.shape
        module.m, module.v, module.age = torch.zeros(k), torch.zeros(k), torch.zeros(k)
        module.r, module.c = torch.zeros(rows), torch.zeros(columns)
        setattr(model.get_submodule(parent), own, module)


def trained(case, key):
    return "sparse_values" in key


def group(key):
    """AdamW leaves these numbers alone: they are updated below."""
    return 0.0 if "sparse_values" in key else 1.0


def after(model, step):
    for module in model.modules():
        if isinstance(module, Sparse):
            with torch.no_grad():
                (ma if model.case == "spiel_ma" else ag)(module, step)


def changed(step):
    return step % PERIOD == ACCUMULATE and step < STEPS


def ag(module, step):
    dense = module.delta.grad.flatten()
    k, p = len(module.places), module.sparse_values.view(-1)
    if step == 1 or step % PERIOD == 0:
        module.candidates = torch.sort(torch.topk(dense.abs(), k).indices).values
        module.sums, module.squares, module.count = torch.zeros(k), torch.zeros(k), 0
    g = dense[module.candidates]
    module.sums += g
    module.squares += g**2
    module.count += 1
    grad = dense[module.places]
    module.age += 1
    module.m += (grad - module.m) * 0.1
    module.v.mul_(0.999).add_(grad**2 * 0.001)
    first, second = module.m / (1 - 0.9**module.age), module.v / (1 - 0.999**module.age)
    p.mul_(1 - LR * DECAY).sub_(LR * first / (second.sqrt() + 1e-8))
    if not changed(step):
        return
    n = int(k * (1.0 if step == ACCUMULATE else RATE * (1 - step / STEPS)))
    out = torch.argsort(p.abs(), stable=True)[:n].sort().values
    left = set(range(k)) - set(out.tolist())
    remaining = {module.places[i].item() for i in left}
    free = [i for i, c in enumerate(module.candidates.tolist()) if c not in remaining]
    free = sorted(free, key=lambda i: -module.sums[i].abs().item())[:n]
    grown = {module.candidates[i].item(): i for i in sorted(free)}
    gone = [i for i in out.tolist() if module.places[i].item() not in grown]
    held = {module.places[i].item() for i in out.tolist()}
    new = [c for c in sorted(grown) if c not in held]
    for at, place in zip(gone, new):
        i = grown[place]
        module.places[at], p[at] = place, 0.0
        module.m[at] = module.sums[i] / module.count * (1 - 0.9**module.count)
        module.v[at] = module.squares[i] / module.count * (1 - 0.999**module.count)
        module.age[at] = module.count


def ma(module, step):
    dense, p = module.delta.grad.flatten(), module.sparse_values.view(-1)
    columns = len(module.c)
    row, column = module.places // columns, module.places % columns
    g = dense[module.places]
    v = torch.minimum(module.r[row], module.c[column]) + g**2
    p.sub_(LR * g / (v + 1e-8).sqrt()).mul_(1 - LR * DECAY)
    module.r.scatter_reduce_(0, row, v, "amax")
    module.c.scatter_reduce_(0, column, v, "amax")
    if not changed(step):
        return
    k = len(module.places)
    n = int(k * RATE * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / STEPS)).item()))
    out = torch.argsort(p.abs(), stable=True)[:n].sort().values
    scores = torch.outer(module.r, module.c).flatten()
    scores[module.places] = -1
    best = torch.argsort(-scores, stable=True)[:n].sort().values
    module.places[out] = best
    p[out] = 0.0
