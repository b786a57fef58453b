"""How long `peftc lsp` takes to answer after a keystroke in a recipe of 500 lines.

A client speaks to the server over pipes, as an editor does. Every round is one keystroke and one question, so nothing is known of
the text that is asked about. Between rounds it waits for up to 0.2 s, as who types does: some keystrokes meet a plan that is being made
in the background, most give one up.

    python3 benches/editor.py [--program target/release/peftc] [--rounds 200] [--goal 50]

Only Python's standard library is used. It ends with an error where a p99 is over the goal in milliseconds.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

STAGES = 45


def recipe(root):
    """About 500 lines: stages of ten lines each that train, an evaluation of each, names of two files."""
    base = (
        f'model m = local "{root}/tests/reference/bert-tiny"\n'
        f'data d = local "{root}/recipes/reviews" {{ text = sentence, label = label, labels = [negative, positive], take = 24 }}\n'
    )
    own = 'import "base.peft"\n\nlet rate = 1e-3\n\n'
    for i in range(STAGES):
        own += (
            f"stage learn{i} = train {{\n  model = m\n  data = d.train\n  adapter = lora {{ rank = 2, on = attention.* }}\n"
            f"  lr = rate\n  steps = 2\n  batch = 4\n  seed = {i}\n}}\nstage score{i} = eval {{ from = learn{i}, data = d.dev }}\n\n"
        )
    return base, own


class Editor:
    """A client of a server of its own."""

    def __init__(self, program, folder):
        command = [program, "lsp", "--stdio", "--offline"]
        self.server = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.asked = 0
        capabilities = {"workspace": {"inlayHint": {"refreshSupport": True}}}
        self.ask("initialize", {"processId": None, "rootUri": f"file://{folder}", "capabilities": capabilities})
        self.tell("initialized", {})

    def send(self, message):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.server.stdin.flush()

    def tell(self, method, params):
        self.send({"method": method, "params": params})

    def next(self):
        length = 0
        while line := self.server.stdout.readline().strip():
            if line.startswith(b"Content-Length: "):
                length = int(line.split()[1])
        if not length:
            raise SystemExit("the server is gone")
        return json.loads(self.server.stdout.read(length))

    def ask(self, method, params):
        self.asked += 1
        self.send({"id": self.asked, "method": method, "params": params})
        while True:
            message = self.next()
            if message.get("id") == self.asked and "method" not in message:
                if "error" in message:
                    raise SystemExit(f"{method}: {message['error']}")
                return message["result"]

    def told(self, version):
        """What is wrong with a version of the text."""
        while True:
            message = self.next()
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"].get("version") == version:
                return message["params"]["diagnostics"]

    def end(self):
        self.ask("shutdown", None)
        self.tell("exit", None)
        if self.server.wait() != 0:
            raise SystemExit("the server did not end well")


def kinds(uri, lines):
    """What is asked: a name, the method, its parameters, and what has to be true of the answer."""
    middle = STAGES // 2
    head = next(i for i, line in enumerate(lines) if line.startswith(f"stage learn{middle} "))
    score = next(i for i, line in enumerate(lines) if line.startswith(f"stage score{middle} "))
    place = lambda line, character: {"line": line, "character": character}
    document = {"textDocument": {"uri": uri}}
    at = lambda line, character: {**document, "position": place(line, character)}
    whole = {"start": place(0, 0), "end": place(len(lines), 0)}
    nothing = {"diagnostics": [], "includeDeclaration": True}
    name = at(score, lines[score].index("from = ") + 8)
    here = {"range": {"start": place(head + 3, 14), "end": place(head + 3, 14)}}
    text = "textDocument/"
    return [
        ("completion of a key", text + "completion", at(head + 6, 2), len),
        ("completion of a value", text + "completion", at(head + 3, 12), len),
        ("hover over a key", text + "hover", at(head + 3, 20), bool),
        ("hover over a stage", text + "hover", at(head, 8), bool),
        ("definition", text + "definition", name, bool),
        ("definition in an import", text + "definition", at(head + 1, 10), bool),
        ("references", text + "references", {**name, "context": nothing}, lambda r: len(r) == 2),
        ("references of a model", text + "references", {**at(head + 1, 10), "context": nothing}, lambda r: len(r) == STAGES + 1),
        ("rename", text + "rename", {**name, "newName": "other"}, bool),
        ("symbols", text + "documentSymbol", document, lambda r: len(r) == 2 * STAGES + 1),
        ("formatting", text + "formatting", {**document, "options": {"tabSize": 2, "insertSpaces": True}}, lambda r: r is not None),
        ("code action", text + "codeAction", {**document, **here, "context": nothing}, len),
        ("code lens", text + "codeLens", document, lambda r: r is not None),
        ("inlay hint", text + "inlayHint", {**document, "range": whole}, lambda r: r is not None),
    ]


class Typing:
    """Keystrokes in the recipe: the rank of a stage grows and shrinks, or its key loses its last letter and gets it back."""

    def __init__(self, editor, uri, text):
        self.editor, self.uri, self.version = editor, uri, 1
        lines = text.splitlines()
        self.line = next(i for i, line in enumerate(lines) if line.startswith(f"stage learn{STAGES // 2} ")) + 6
        assert lines[self.line] == "  batch = 4"
        document = {"uri": uri, "languageId": "peft", "version": 1, "text": text}
        editor.tell("textDocument/didOpen", {"textDocument": document})

    def key(self, start, end, text):
        self.version += 1
        place = lambda character: {"line": self.line, "character": character}
        change = {"range": {"start": place(start), "end": place(end)}, "text": text}
        document = {"uri": self.uri, "version": self.version}
        self.editor.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})

    def digit(self, i):
        self.key(11, 11, "8") if i % 2 == 0 else self.key(11, 12, "")

    def mistake(self, i):
        self.key(6, 7, "") if i % 2 == 0 else self.key(6, 6, "h")


def measured(own, editor, typing, lines):
    """The sorted times of each kind of question in milliseconds."""
    draw = random.Random(0)
    found = {}

    def rounds(name, press, question):
        times = []
        for i in range(own.rounds):
            time.sleep(draw.uniform(0, 0.2))
            begun = time.perf_counter()
            press(i)
            question(i)
            times.append((time.perf_counter() - begun) * 1e3)
        found[name] = sorted(times)

    def wrong(i):
        listed = editor.told(typing.version)
        if any(d["code"] == "peftc::resolve::unknown_key" for d in listed) != (i % 2 == 0):
            raise SystemExit(f"not what is wrong: {listed}")

    def fixed(i):
        place = {"line": typing.line, "character": 0}
        document = {"textDocument": {"uri": typing.uri}, "range": {"start": place, "end": place}, "context": {"diagnostics": []}}
        titles = [action["title"] for action in editor.ask("textDocument/codeAction", document)]
        if ("write `batch`" in titles) != (i % 2 == 0):
            raise SystemExit(f"not the way out of the mistake: {titles}")

    def asked(method, params, right):
        def question(_):
            answer = editor.ask(method, params)
            if not right(answer):
                raise SystemExit(f"{method}: {answer}")

        return question

    rounds("diagnostics", typing.digit, lambda _: editor.told(typing.version))
    rounds("diagnostics of a mistake", typing.mistake, wrong)
    rounds("quick fix", typing.mistake, fixed)
    for name, method, params, right in kinds(typing.uri, lines):
        rounds(name, typing.digit, asked(method, params, right))
    return found


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=os.path.join(root, "target", "release", "peftc"))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--goal", type=float, default=50.0)
    own = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, text = recipe(root)
        with open(os.path.join(folder, "base.peft"), "w") as out:
            out.write(base)
        editor = Editor(os.path.abspath(own.program), folder)
        typing = Typing(editor, f"file://{folder}/r.peft", text)
        lines = text.splitlines()
        found = measured(own, editor, typing, lines)
        editor.end()
    print(f"{len(lines)} lines, {own.rounds} keystrokes a row; {os.cpu_count()} processors")
    print(f"{'':28}{'p50 ms':>10}{'p99 ms':>10}{'most ms':>10}")
    share = lambda times, part: times[min(len(times) - 1, int(part * len(times)))]
    for name, times in found.items():
        print(f"{name:28}{share(times, 0.5):10.1f}{share(times, 0.99):10.1f}{times[-1]:10.1f}")
    late = [name for name, times in found.items() if share(times, 0.99) > own.goal]
    if late:
        raise SystemExit(f"over {own.goal:.0f} ms: {', '.join(late)}")


if __name__ == "__main__":
    sys.exit(main())
