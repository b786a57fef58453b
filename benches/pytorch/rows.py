"""What is compared: the rows, the shapes and the texts; shared by both sides."""

from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
TEXTS = REPO / "recipes" / "reviews" / "train.tsv"
TOKENIZER = REPO / "recipes" / "reviews-mini" / "tokenizer.json"
SHAPES = {"base": HERE / "roberta-base" / "config.json", "large": REPO / "recipes" / "report" / "roberta-large.json"}
PRECISIONS = ("f32", "tf32", "bf16")

ALL = "{attention.{query, key, value, output}, ffn.{up, down}}"


class Row(NamedTuple):
    kind: str  # of peftc's stage
    adapter: str
    lr: float
    report: int | None  # MB of the report's Table 2 (MeZO: Table 1), RoBERTa-large, batch 16


ROWS = {
    "full": Row("train", "full", 2e-5, 8188),
    "lora": Row("train", f"lora {{ rank = 4, alpha = 8, on = {ALL} }}", 1e-3, 4526),
    "siva": Row("train", f"siva {{ rank = 4, on = {ALL} }}", 1e-4, 4529),
    "siva_key_query": Row("train", "siva { rank = 4, on = attention.{query, key} }", 1e-4, None),
    "siva_key_value": Row("train", "siva { rank = 4, on = attention.{key, value} }", 1e-4, 2920),
    "last_3": Row("train", "last_n { n = 3 }", 2e-5, 2117),
    "bitfit": Row("train", "bitfit", 1e-3, None),
    "lst": Row("train", "lst { r = 8 }", 1e-3, 1779),
    "5_lst": Row("train", "k_lst { k = 5, r = 8 }", 1e-3, 2209),
    "9_lst": Row("train", "k_lst { k = 9, r = 8 }", 1e-3, 2381),
    "mezo": Row("mezo", "full", 1e-6, 1805),
    "dora": Row("train", f"dora {{ rank = 4, alpha = 8, on = {ALL} }}", 1e-3, None),
    "ia3": Row("train", "ia3", 3e-3, None),
    "adalora": Row("train", f"adalora {{ init_rank = 12, target_rank = 8, on = {ALL} }}", 1e-3, None),
    "oft": Row("train", f"oft {{ block_size = 32, on = {ALL} }}", 1e-3, None),
    "vera": Row("train", "vera { rank = 256, on = attention.{query, value} }", 1e-2, None),
    "prefix_tuning": Row("train", "prefix_tuning { tokens = 20 }", 1e-2, None),
    "prompt_tuning": Row("train", "prompt_tuning { tokens = 20 }", 1e-1, None),
}
# The rows of the report, and BitFit.
REPORT = ("full", "lora", "siva", "siva_key_query", "siva_key_value", "last_3", "bitfit", "lst", "5_lst", "9_lst", "mezo")
# Rows without frozen weights: they have no narrower storage.
WHOLE = ("full", "mezo")


def shape(name):
    """The config.json of a named shape, or the file itself."""
    return SHAPES[name] if name in SHAPES else Path(name)
