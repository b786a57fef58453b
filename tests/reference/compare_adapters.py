"""Adapters of every kind that peft writes, on tiny models of every family, scored by peftc and by peft: logits within 1e-4, or
refused by a name and with a remedy.

    python tests/reference/compare_adapters.py --peftc target/debug/peftc [--family bert] [--only NAME]

Run by hand (transformers 5.24.0, peft 0.21.2). An adapter is the start of a training whose steps change nothing; an `eval` of
that stage gives the logits.
"""

import argparse
import pathlib
import tempfile

import compare_models as models
import peft
import torch
from compare_models import SMALL, SMALL_DISTIL, TEXTS
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

LORA = peft.LoraConfig
# By family: query, value, the dense map behind the attention, the head's modules, a norm, the table of words.
NAMES = {
    "bert": ("query", "value", "output.dense", ["classifier"], "LayerNorm", "word_embeddings"),
    "roberta": ("query", "value", "output.dense", ["classifier"], "LayerNorm", "word_embeddings"),
    "distilbert": ("q_lin", "v_lin", "out_lin", ["pre_classifier", "classifier"], "sa_layer_norm", "word_embeddings"),
}


def kinds(family):
    """Name, config, and whether peftc reads it."""
    query, value, dense, head, norm, words = NAMES[family]
    both = [query, value]

    def lora(**keys):
        return LORA(**({"r": 4, "lora_alpha": 6, "target_modules": both, "task_type": "SEQ_CLS", "init_lora_weights": False} | keys))

    def other(name, **keys):
        return lambda: getattr(peft, name)(**({"task_type": "SEQ_CLS"} | keys))

    tuned = {"target_modules": both}
    yield "plain", lora(), True
    yield "one", lora(target_modules=[value]), True
    yield "all_linear", lora(target_modules="all-linear"), True
    yield "regex", lora(target_modules=rf".*\.1\..*({query}|{value})"), True
    yield "look_around", lora(target_modules=rf"^(?!.*\.0\.).*{query}"), True
    yield "dense", lora(target_modules=[dense]), True
    yield "rslora", lora(use_rslora=True), True
    yield "rank_pattern", lora(rank_pattern={query: 2}, alpha_pattern={value: 11}), True
    yield "rank_pattern_path", lora(rank_pattern={rf"1\..*{query}": 3}, use_rslora=True), True
    yield "layers", lora(layers_to_transform=[1]), True
    yield "exclude", lora(target_modules="all-linear", exclude_modules=[query]), True
    yield "dropout", lora(lora_dropout=0.3), True
    yield "save_head", lora(modules_to_save=head), True
    yield "save_norm", lora(modules_to_save=[*head, norm]), True
    yield "save_words", lora(modules_to_save=[*head, words]), True
    yield "save_position", lora(modules_to_save=[*head, "position_embeddings"]), True
    if family == "bert":
        yield "save_pooler", lora(modules_to_save=["classifier", "pooler"]), True
        yield "on_pooler", lora(target_modules=["query", "pooler.dense"]), True
    yield "on_head", lora(target_modules=[query, head[-1] if family != "roberta" else "classifier.out_proj"]), True
    yield "no_task", lora(task_type=None), True
    yield "no_task_save", lora(task_type=None, modules_to_save=[norm]), True
    yield "half", lora(), True
    yield "backbone", lora(task_type="FEATURE_EXTRACTION"), True
    yield "fan_in", lora(fan_in_fan_out=True), True
    # What is not built yet, or is none of this.
    yield "bias_all", lora(bias="all"), False
    yield "bias_lora", lora(bias="lora_only"), False
    yield "lora_bias", lora(lora_bias=True), False
    yield "dora", lora(use_dora=True), False
    yield "on_words", lora(target_modules=[query, words]), False
    yield "tokens", lora(trainable_token_indices=[1, 5]), False
    yield "pissa", lora(init_lora_weights="pissa"), False
    yield "olora", lora(init_lora_weights="olora"), False
    yield "parameters", lora(target_modules=[query], target_parameters=[f"{value}.weight"]), False
    for name, make in [
        ("loha", other("LoHaConfig", r=4, **tuned)), ("lokr", other("LoKrConfig", r=4, **tuned)),
        ("ia3", other("IA3Config", feedforward_modules=[], **tuned)), ("vera", other("VeraConfig", r=4, **tuned)),
        ("adalora", other("AdaLoraConfig", init_r=4, total_step=10, **tuned)), ("oft", other("OFTConfig", r=0, oft_block_size=4, **tuned)),
        ("boft", other("BOFTConfig", boft_block_size=4, **tuned)), ("hra", other("HRAConfig", r=4, **tuned)),
        ("fourier", other("FourierFTConfig", n_frequency=8, **tuned)), ("norms", other("LNTuningConfig", target_modules=[norm])),
        ("miss", other("MissConfig", r=4, **tuned)), ("vblora", other("VBLoRAConfig", r=4, num_vectors=8, vector_length=4, **tuned)),
        ("shira", other("ShiraConfig", r=2, **tuned)), ("c3a", other("C3AConfig", block_size=4, **tuned)),
        ("randlora", other("RandLoraConfig", r=4, **tuned)), ("own_tokens", other("TrainableTokensConfig", target_modules=[words], token_indices=[1])),
        ("prompt_tuning", other("PromptTuningConfig", num_virtual_tokens=3)), ("prefix", other("PrefixTuningConfig", num_virtual_tokens=3)),
        ("p_tuning", other("PromptEncoderConfig", num_virtual_tokens=3, encoder_hidden_size=8)),
    ]:
        yield name, make, False


def recipe(classes):
    labels = ", ".join(classes)
    return 'model m = local "m"\ndata d = local "data" { text = text, label = label, labels = [' + labels + "] }\n" \
           'stage t = train { model = m, data = d.train, adapter = lora { start = "a" }, lr = 1e-30, steps = 1, batch = 1 }\n' \
           "stage s = eval { from = t, data = d.test }\n"


def one(bench, family, name, config, reads, folder):
    torch.manual_seed(7)
    base = SMALL_DISTIL if family == "distilbert" else SMALL
    whole = AutoModelForSequenceClassification.from_config(models.KINDS[family](**base, num_labels=2))
    models.save(whole, folder)
    models.own_tokenizer(folder, models.tok.NATURAL[family], family)
    path = pathlib.Path(folder, "m")
    trunk = name == "backbone"
    kind = AutoModel if trunk else AutoModelForSequenceClassification
    made = peft.get_peft_model(kind.from_pretrained(path), config() if callable(config) else config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    (made.half() if name == "half" else made).save_pretrained(pathlib.Path(folder, "a"))
    texts = [[t, ""] for t in TEXTS]
    models.data(folder, texts, ["LABEL_0", "LABEL_1"])
    done = bench.run(folder, recipe(["LABEL_0", "LABEL_1"]))
    if not reads:
        bench.refused += 1
        said = done.stderr
        if done.returncode != 2:
            return bench.say(name, f"ends with {done.returncode}: {said}")
        if not any(word in said for word in ("help:", "fold the adapter", "convert the adapter", "train a `lora` instead")):
            return bench.say(f"{family} {name}", "no remedy: " + " ".join(said.replace("│", " ").split())[:600])
        print(f"  {family} {name}: " + " ".join(said.replace("│", " ").split())[:200], flush=True)
        return
    if done.returncode != 0:
        return bench.say(f"{family} {name}", " ".join(done.stderr.split())[:400])
    if trunk:
        scored = AutoModelForSequenceClassification.from_pretrained(path)
        peft.PeftModel.from_pretrained(scored.base_model, pathlib.Path(folder, "a"))
    else:
        scored = peft.PeftModel.from_pretrained(kind.from_pretrained(path), pathlib.Path(folder, "a"))
    scored = scored.float().eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        theirs = [scored(**models.encode(tokenizer, whole, t[0])).logits[0].tolist() for t in texts]
        plain = [whole.eval()(**models.encode(tokenizer, whole, t[0])).logits[0].tolist() for t in texts]
    apart = max(abs(a - b) for x, y in zip(plain, theirs) for a, b in zip(x, y))
    if apart < 1e-3:
        bench.say(f"{family} {name}", "the adapter changes nothing, so this compares nothing")
    ours = [[row["LABEL_0"], row["LABEL_1"]] for row in bench.scores(folder, "s")]
    bench.compare(f"{family} {name}", ours, theirs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peftc", required=True)
    parser.add_argument("--family")
    parser.add_argument("--only")
    own = parser.parse_args()
    for family in [own.family] if own.family else list(NAMES):
        bench = models.Bench(own.peftc)
        for name, config, reads in kinds(family):
            if own.only in (None, name):
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        one(bench, family, name, config, reads, folder)
                    except Exception as error:  # peft cannot make it on this family
                        bench.say(f"{family} {name}", f"not made: {type(error).__name__} {error}")
        print(f"{family}: {bench.done} compared, {bench.refused} to be refused, {len(bench.wrong)} wrong, at most {bench.worst:.2g} apart",
              flush=True)
        print("\n".join(bench.wrong), flush=True)


if __name__ == "__main__":
    main()
