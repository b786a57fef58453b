"""The compiler inside a Python program: a recipe is checked, run and asked.

    python3 examples/embed.py recipes/quickstart.peft learn
"""

import sys
from typing import List

import peftc


def embed(recipe: str, stage: str, texts: List[str]) -> List[str]:
    """Says what a recipe takes, runs it, and labels some texts with what one of its stages has trained."""
    said = []
    for planned in peftc.check(recipe)["stages"]:
        memory = planned["memory"]["peak"] + planned["memory"]["host"]
        said.append(f"{planned['name']} ({planned['kind']}) takes {memory >> 20} MiB")

    def tell(event: peftc.Event) -> None:
        if event["event"] == "step" and event["step"] % 100 == 0:
            said.append(f"step {event['step']}: loss {event['loss']:.3f}")

    result = peftc.run(recipe, on_event=tell)
    for done in result["stages"]:
        said.append(f"{done['name']}: {done.get('metrics')}")
    for row in peftc.predict(recipe, texts, stage=stage):
        said.append(f"{row['text']}: {row['prediction']}")
    return said


if __name__ == "__main__":
    try:
        for line in embed(sys.argv[1], sys.argv[2], ["a warm and funny film", "a dull plot and a worse cast"]):
            print(line)
    except peftc.Rejected as why:
        for diagnostic in why.diagnostics:
            print(f"{diagnostic['line']}: {diagnostic['message']}", file=sys.stderr)
        sys.exit(why.exit_code)
