"""Values of metrics of generated texts, by their reference implementations.

pip install sacrebleu==2.6.0 rouge-score==0.1.2 nltk==3.10.4 pycocoevalcap==1.2
python make_text_metrics.py > text_metrics.json
"""

import json
import random
import re
import string

import sacrebleu
from nltk.stem.snowball import SnowballStemmer
from nltk.translate.meteor_score import meteor_score
from nltk.translate.nist_score import corpus_nist
from pycocoevalcap.cider.cider_scorer import CiderScorer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

tokenize = Tokenizer13a()


def words(text):
    return tokenize(text.rstrip()).split()


class NoSynonyms:
    def synsets(self, _):
        return []


def squad(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_f1(text, reference):
    from collections import Counter

    a, b = squad(text), squad(reference)
    if not a or not b:
        return float(a == b)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b)) if same else 0.0


def cider_words(text):
    return " ".join(w.lower() for w in words(text) if any(c.isalnum() for c in w))


def nist(rows):
    """None where NLTK divides by zero: no text has as many words as the longest n-grams."""
    try:
        return corpus_nist([[words(r) for r in refs] for _, refs in rows], [words(t) for t, _ in rows])
    except ZeroDivisionError:
        return None


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def values(rows):
    texts = [text for text, _ in rows]
    most = max(len(refs) for _, refs in rows)
    streams = [[refs[i] if i < len(refs) else None for _, refs in rows] for i in range(most)]
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    stemmer = SnowballStemmer("english")
    scorer = CiderScorer(n=4, sigma=6.0)
    for text, refs in rows:
        scorer += (cider_words(text), [cider_words(r) for r in refs])
    best = lambda of: mean(max(of(text, r) for r in refs) for text, refs in rows)
    return {
        "exact_match": best(lambda t, r: float(t.strip() == r.strip())),
        "token_f1": best(squad_f1),
        "bleu": sacrebleu.corpus_bleu(texts, streams).score,
        "chrf": sacrebleu.corpus_chrf(texts, streams).score,
        "rouge_1": best(lambda t, r: rouge.score(r, t)["rouge1"].fmeasure),
        "rouge_2": best(lambda t, r: rouge.score(r, t)["rouge2"].fmeasure),
        "rouge_l": best(lambda t, r: rouge.score(r, t)["rougeL"].fmeasure),
        "nist": nist(rows),
        "meteor": mean(
            meteor_score([words(r) for r in refs], words(t), stemmer=stemmer, wordnet=NoSynonyms()) for t, refs in rows
        ),
        "cider": float(scorer.compute_score()[0]),
    }


PLACES = [
    ("The Green Goose is a bar in the old town that serves French food. Guests gave it only two stars.",
     ["The Green Goose is a bar in the old town that serves French food. Guests gave it four stars."]),
    ("The Old Barn: Chinese coffee shop, fair prices, near the library.",
     ["The Old Barn: Chinese coffee shop, fair prices, near the library."]),
    ("Do you like Japanese food? Come to The Happy Bell by the rivers!",
     ["Do you like Japanese food? Then come to The Happy Bell, by the river and near the cinema!"]),
    ("It serves dishes of 1,200 kinds at 3.5-4.0 pounds -- \"cheaply\", they say; isn't that nice?",
     ["It served a dish of 1,250 kinds for 3.50 pounds, they said: isn't this nicest?"]),
]
ODD = [
    ("", ["Nothing was written."]),
    ("  The cat,the dog.And A.I. & R&amp;D cost $5,000.00, 10-20%!\n", ["the cat, the dog. And A.I. & R&D cost $5,000.00, 10 - 20 %!"]),
    ("Ein schöner Tag – für Müller & Söhne…", ["Ein schönes Fest – für Müller & Söhne…", "Schöne Tage für alle"]),
    ("a an the", ["The."]),
    ("它们很好。我也很好", ["它们很好，我不好"]),
    ("run running runs runner ran", ["runner ran runs running run", "he ran", "running ran"]),
]
SHORT = [("yes", ["no"]), ("no", ["no"]), ("maybe so", ["maybe not"])]

rng = random.Random(7)
pool = "the a old town bar serves serving served food near river cinema library stars gave guests friendly plain, short. 4".split()
line = lambda: " ".join(rng.choice(pool) for _ in range(rng.randint(1, 14)))
MADE = [(line(), [line() for _ in range(rng.randint(1, 3))]) for _ in range(40)]

cases = {"places": PLACES, "odd": ODD, "short": SHORT, "made": MADE, "all": PLACES + ODD + MADE}
out = [
    {"name": name, "rows": [{"generated": t, "references": r} for t, r in rows], "values": values(rows)}
    for name, rows in cases.items()
]
print(json.dumps(out, ensure_ascii=False, indent=1))
