"""PyTorch's side of `compare.py`: rows and their cells, one after the other.

    python peer.py SPEC     # JSON: device, shape, steps, …; cells on standard input

A cell is a line of JSON: a row, a precision, a batch and how frozen weights are stored. Prints one line of JSON a cell.
"""

import contextlib
import functools
import gc
import itertools
import json
import os
import random
import resource
import statistics
import sys
import time

from rows import REPO, ROWS, TEXTS, TOKENIZER, WHOLE, shape

SHIFT = 10  # ids are shifted so that none is the model's padding id
MEGABATCH = 50  # batches within which texts are sorted by length
EPSILON = 1e-3


class Machine:
    """All that differs between the processor and a GPU."""

    def __init__(self, torch, device):
        kind, _, number = device.partition(":")
        self.torch, self.gpu = torch, kind == "cuda"
        self.device = torch.device(kind, int(number or 0)) if self.gpu else torch.device(kind)
        if self.gpu:
            torch.cuda.set_device(self.device)
            torch.cuda.init()

    def name(self):
        return self.torch.cuda.get_device_name(self.device) if self.gpu else "cpu"

    def wait(self):
        """Until all that was started has ended."""
        if self.gpu:
            self.torch.cuda.synchronize(self.device)

    def settle(self):
        """Gives back what earlier cells left; bytes that are still held."""
        gc.collect()
        if not self.gpu:
            return 0
        self.wait()
        clear = getattr(self.torch._C, "_cuda_clearCublasWorkspaces", None)
        if clear:
            clear()
        self.torch.cuda.empty_cache()
        return self.torch.cuda.memory_allocated(self.device)

    def count_anew(self):
        """Peaks from here on: what making a model took, singular vectors say, is not training."""
        if self.gpu:
            self.wait()
            self.torch.cuda.empty_cache()
            self.torch.cuda.reset_peak_memory_stats(self.device)

    def peaks(self):
        """Bytes of tensors at the peak, and what was taken from the driver for them; on the processor the process."""
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if not self.gpu:
            return {"peak": resident, "reserved": resident, "process": resident}
        cuda = self.torch.cuda
        return {"peak": cuda.max_memory_allocated(self.device), "reserved": cuda.max_memory_reserved(self.device),
                "process": resident}

    def numbers(self, precision):
        """Sets how f32 products are taken; the context in which a loss is computed."""
        allowed = precision == "tf32"
        self.torch.backends.cuda.matmul.allow_tf32 = allowed
        self.torch.backends.cudnn.allow_tf32 = allowed
        if precision == "bf16":
            return lambda: self.torch.autocast(self.device.type, dtype=self.torch.bfloat16)
        return contextlib.nullcontext

    def generator(self, seed):
        return self.torch.Generator(device=self.device).manual_seed(seed)

    def adamw(self, trained, lr):
        # On a GPU the fused kernel, which is transformers' default there.
        fused = {"fused": True} if self.gpu else {}
        return self.torch.optim.AdamW(trained, lr=lr, weight_decay=0.01, **fused)


@functools.cache
def texts(max_length, vocabulary):
    """Token ids and labels of all texts."""
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(str(TOKENIZER))
    tok.no_padding()
    tok.enable_truncation(max_length)
    if tok.get_vocab_size() + SHIFT > vocabulary:
        raise ValueError(f"{tok.get_vocab_size()} ids do not fit a vocabulary of {vocabulary}")
    rows = [line.split("\t") for line in TEXTS.read_text(encoding="utf-8").split("\n")[1:] if line]
    return [[i + SHIFT for i in e.ids] for e in tok.encode_batch([r[0] for r in rows])], [int(r[1]) for r in rows]


def batches(spec, cell, torch, config, device, grouped):
    encoded, labels = texts(spec["max_length"], config.vocab_size)
    pad, size = config.pad_token_id, cell["batch"]
    rng = random.Random(spec["seed"])
    order = list(range(len(encoded)))
    rng.shuffle(order)
    if grouped:
        parts = [order[i : i + MEGABATCH * size] for i in range(0, len(order), MEGABATCH * size)]
        order = [i for part in parts for i in sorted(part, key=lambda i: -len(encoded[i]))]
    chunks = [order[i : i + size] for i in range(0, len(order), size)]
    if grouped:
        rng.shuffle(chunks)
    for step in range(spec["warmup"] + spec["steps"]):
        chunk = chunks[step % len(chunks)]
        width = max(len(encoded[i]) for i in chunk)
        batch = {
            "input_ids": [encoded[i] + [pad] * (width - len(encoded[i])) for i in chunk],
            "attention_mask": [[1] * len(encoded[i]) + [0] * (width - len(encoded[i])) for i in chunk],
            "labels": [labels[i] for i in chunk],
        }
        yield {key: torch.tensor(value, device=device) for key, value in batch.items()}


def side_parameters(torch, config, k):
    """The tensors of a side network of r = 8, named as in make_side_traces.py."""
    hidden, layers, width = config.hidden_size, config.num_hidden_layers, config.hidden_size // 8
    ffn, p = config.intermediate_size // 8, {}

    def linear(name, out, inputs):
        p[f"{name}.weight"], p[f"{name}.bias"] = 0.02 * torch.randn(out, inputs), torch.zeros(out)

    def norm(name):
        p[f"{name}.weight"], p[f"{name}.bias"] = torch.ones(width), torch.zeros(width)

    for i in range(layers + 1):
        linear(f"side.down.{i}", width, hidden)
    for i in range(layers):
        block = f"side.block.{i}"
        for role in ("query", "key", "value", "output"):
            linear(f"{block}.attention.{role}", width, width)
            if k:
                linear(f"side.cross.{i}.{role}", width, width)
        linear(f"{block}.ffn.up", ffn, width)
        linear(f"{block}.ffn.down", width, ffn)
        norm(f"{block}.attention.norm")
        norm(f"{block}.ffn.norm")
        if not k:
            p[f"side.gate.{i}"] = torch.zeros(1)
    if k:
        p["side.position"] = 0.02 * torch.randn(k, width)
    else:
        norm("side.norm")
    linear("side.up", hidden, width)
    return {name: torch.nn.Parameter(value) for name, value in p.items()}


def side_networks(gpu):
    """make_side_traces.py; importing it must not hide the GPU, whose absence its traces want."""
    sys.path.insert(0, str(REPO / "tests" / "reference"))
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    import make_side_traces as side

    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if seen is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = seen
    if gpu:
        side.attend = lambda q, k, v, mask, n: fused_attention(side, q, k, v, mask, n)
    return side


def fused_attention(side, q, k, v, mask, n):
    """What `attend` computes, as one kernel: nobody writes scores out on a GPU."""
    q, k, v = (side.heads(x, n) for x in (q, k, v))
    out = side.F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :].bool())
    return out.transpose(1, 2).flatten(2)


EVERY = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


def tuner(name, steps):
    """peft's configuration of a row."""
    import peft

    own = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    maps = own | {"target_modules": EVERY}
    low_rank = maps | {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
    some = {"siva": EVERY, "siva_key_query": ["query", "key"], "siva_key_value": ["key", "value"]}
    if name in some:
        # Triplets as they are: the factor is 1.
        return peft.LoraConfig(**low_rank | {"lora_alpha": 4, "target_modules": some[name]}, init_lora_weights="pissa_niter_4")
    return {
        "lora": lambda: peft.LoraConfig(**low_rank),
        "dora": lambda: peft.LoraConfig(**low_rank, use_dora=True),
        "ia3": lambda: peft.IA3Config(**own, target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
        "adalora": lambda: peft.AdaLoraConfig(**maps, init_r=12, target_r=8, lora_alpha=8, total_step=steps),
        "oft": lambda: peft.OFTConfig(**maps, oft_block_size=32),
        "vera": lambda: peft.VeraConfig(**own, target_modules=["query", "value"], r=256),
        "prompt_tuning": lambda: peft.PromptTuningConfig(**own, num_virtual_tokens=20),
    }[name]()


def behind_prefixes(model, torch, tokens):
    """Prefixes before all attentions, as peft would have them: it refuses encoders, which take no past keys and values."""
    state, F = {}, torch.nn.functional
    heads = model.config.num_attention_heads
    split = lambda y: y.view(*y.shape[:2], heads, -1).transpose(1, 2)

    def attend(own):
        def forward(x, *_args, **_kwargs):
            one = x.shape[0]
            k, v = (torch.cat([p.expand(one, -1, -1), y(x)], 1) for p, y in zip(own.prefix, (own.key, own.value)))
            made = F.scaled_dot_product_attention(
                split(own.query(x)), split(k), split(v), attn_mask=state["mask"], dropout_p=own.dropout.p if own.training else 0.0
            )
            return made.transpose(1, 2).reshape(x.shape), None

        return forward

    def note(_, args, kwargs):
        mask = kwargs["attention_mask"]
        state["mask"] = torch.cat([torch.ones_like(mask[:, :1]).expand(-1, tokens), mask], 1)[:, None, None, :].bool()

    for value in model.parameters():
        value.requires_grad_(False)
    for layer in model.roberta.encoder.layer:
        own = layer.attention.self
        rows = lambda: torch.nn.Parameter(torch.randn(tokens, model.config.hidden_size))
        own.prefix = torch.nn.ParameterList([rows(), rows()])
        own.forward = attend(own)
    model.classifier.requires_grad_(True)
    model.register_forward_pre_hook(note, with_kwargs=True)


def prepare(name, model, torch, gpu, steps):
    """(the model, its loss of a batch, what is trained)."""
    config = model.config
    head = lambda key: key.startswith("classifier")
    loss = lambda m: lambda b: m(**b).loss
    if name in WHOLE:
        pass
    elif name == "prefix_tuning":
        behind_prefixes(model, torch, 20)
    elif name == "last_3":
        first = config.num_hidden_layers - 3
        blocks = tuple(f"roberta.encoder.layer.{i}." for i in range(first, config.num_hidden_layers))
        for key, value in model.named_parameters():
            value.requires_grad_(head(key) or key.startswith(blocks))
    elif name == "bitfit":
        for key, value in model.named_parameters():
            value.requires_grad_(head(key) or key.endswith("bias"))
    elif name.endswith("lst"):
        side = side_networks(gpu)
        k = {"5_lst": 5, "9_lst": 9}.get(name)
        p = side_parameters(torch, config, k)
        for key, value in model.named_parameters():
            value.requires_grad_(head(key))
        heads, eps = config.num_attention_heads, config.layer_norm_eps
        every = list(range(config.num_hidden_layers))

        def of_side(b):
            mask = b["attention_mask"]
            with torch.no_grad():
                out = model.roberta(input_ids=b["input_ids"], attention_mask=mask, output_hidden_states=True)
            states = list(out.hidden_states)
            if k:
                hidden = side.k_lst(p, states, mask, heads, eps, k)
            else:
                hidden = side.lst(p, states, mask, heads, eps, every)
            return torch.nn.functional.cross_entropy(model.classifier(hidden), b["labels"])

        model.roberta.eval()
        model.classifier.train()
        return model, of_side, list(p.values()) + list(model.classifier.parameters())
    else:
        import peft

        model = peft.get_peft_model(model, tuner(name, steps))
    model.train()
    return model, loss(model), [q for q in model.parameters() if q.requires_grad]


def descent(torch, machine, loss_of, trained, lr, after):
    """A step of AdamW, and what follows it: `after` takes the number of the step."""
    optimizer, steps = machine.adamw(trained, lr), itertools.count(1)

    def step(batch):
        optimizer.zero_grad()  # before the forward: the last gradients need not lie beside its results
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        after(next(steps))
        return loss.item()

    return step


def mezo(torch, machine, loss_of, trained, lr, seed):
    draws = random.Random(seed)

    def move(direction, scale):
        generator = machine.generator(direction)
        for value in trained:
            value.data.add_(torch.randn(value.shape, generator=generator, device=machine.device), alpha=scale)

    @torch.no_grad()
    def step(batch):
        direction = draws.getrandbits(62)
        move(direction, EPSILON)
        above = loss_of(batch).item()
        move(direction, -2 * EPSILON)
        below = loss_of(batch).item()
        move(direction, EPSILON)
        move(direction, -lr * (above - below) / (2 * EPSILON))
        return (above + below) / 2

    return step


def narrow(torch, model, trained):
    """Stores frozen matrices in bf16, as peftc's `dtype = bf16` does; vectors are nothing beside them."""
    kept = {id(q) for q in trained}
    for value in model.parameters():
        if id(value) not in kept and value.dim() > 1:
            value.data = value.data.to(torch.bfloat16)


def stored(model, trained):
    """Bytes of all weights as they are stored, those of adapters and side networks too."""
    every = {id(q): q for q in [*model.parameters(), *trained]}
    return sum(q.numel() * q.element_size() for q in every.values())


def measure(torch, machine, spec, cell):
    """Figures of one cell of a row."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    left = machine.settle()
    torch.manual_seed(spec["seed"])
    config = AutoConfig.from_pretrained(str(shape(spec["shape"])))
    config.num_labels = 2
    row = ROWS[cell["row"]]
    autocast = machine.numbers(cell["precision"])
    with machine.device:
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).to(machine.device)
        model, plain, trained = prepare(cell["row"], model, torch, machine.gpu, spec["warmup"] + 2 * spec["steps"])
    if cell["weights"] == "bf16" and cell["row"] not in WHOLE:
        narrow(torch, model, trained)
    torch.set_num_threads(spec["threads"])  # what the side networks' file says of threads is for its traces

    def loss_of(batch):
        with autocast():
            return plain(batch)

    if row.kind == "mezo":
        model.eval()  # both measurements of a step see the same function
        step = mezo(torch, machine, loss_of, trained, row.lr, spec["seed"])
    else:
        # AdaLoRA prunes by what the step's gradients say.
        after = model.base_model.update_and_allocate if cell["row"] == "adalora" else lambda number: None
        step = descent(torch, machine, loss_of, trained, row.lr, after)
    figures = {"weights_bytes": stored(model, trained), "left": left}
    machine.count_anew()
    for grouped in (False, True):
        times = []
        for batch in list(batches(spec, cell, torch, config, machine.device, grouped)):
            machine.wait()
            begun = time.perf_counter()
            loss = step(batch)
            machine.wait()
            times.append(time.perf_counter() - begun)
        rate = cell["batch"] / statistics.median(times[spec["warmup"] :])
        figures["grouped" if grouped else "rate"] = rate
        if not grouped:
            figures.update(machine.peaks(), loss=loss)
    return figures


def main():
    spec = json.loads(sys.argv[1])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(spec["threads"])
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    if spec["device"] == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    machine = Machine(torch, spec["device"])
    about = {"device": machine.name(), "torch": torch.__version__, "transformers": transformers.__version__}
    for line in sys.stdin:
        try:
            figures = measure(torch, machine, spec, json.loads(line))
        except Exception as error:  # the other cells are worth having
            figures = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({**figures, **about}), flush=True)
        machine.settle()


if __name__ == "__main__":
    main()
