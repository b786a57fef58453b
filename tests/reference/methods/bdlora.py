"""BD-LoRA, by peft's own layers: names of modules must tell the factors apart, which those of DistilBERT do."""

CASES = [
    ("bdlora", "bdlora { rank = 4, alpha = 8, on = attention.{query, key, value, output} }", 2e-3),
]
