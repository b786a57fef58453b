"""The Python package at work: it calls the program that PEFTC names, or the one it was installed with.

    PYTHONPATH=python PEFTC=target/debug/peftc python3 tests/python/test_package.py

`tests/python/wheel.sh` builds a wheel, installs it into a fresh environment and runs this there.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import peftc
from peftc import _types

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RECIPE = f"""let rank = 2
let steps = 3
model m = local "{ROOT}/tests/reference/bert-tiny"
data d = local "{ROOT}/recipes/reviews" {{ text = sentence, label = label, labels = [negative, positive], take = 24 }}
stage learn = train {{ model = m, data = d.train, adapter = lora {{ rank = rank }}, lr = 1e-3, steps = steps, batch = 4 }}
stage score = eval {{ from = learn, data = d.dev }}
"""


class Package(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.recipe = os.path.join(folder.name, "r.peft")
        self.write(RECIPE)

    def write(self, text):
        with open(self.recipe, "w", encoding="utf-8") as out:
            out.write(text)

    def test_a_recipe_is_checked_run_and_asked(self):
        report = peftc.check(self.recipe, budget="6GiB", offline=True)
        self.assertIs(report["fits"], True)
        self.assertEqual([stage["name"] for stage in report["stages"]], ["learn", "score"])
        wide = peftc.check(self.recipe, sets={"rank": 4})
        trained = lambda r: r["stages"][0]["parameters"]["trainable"]
        self.assertEqual(trained(wide), trained(report) + (trained(report) - trained(peftc.check(self.recipe, sets={"rank": 1}))) * 2)
        self.assertIs(peftc.check(self.recipe, budget=1 << 20)["fits"], False)
        self.assertEqual(peftc.plan(self.recipe)["stages"][1]["depends_on"], ["learn"])

        events = []
        result = peftc.run(self.recipe, threads=1, on_event=events.append)
        learn, score = result["stages"]
        self.assertFalse(learn["cached"])
        self.assertIn("accuracy", score["metrics"])
        self.assertEqual([e["step"] for e in events if e["event"] == "step"], [1, 2, 3])
        self.assertTrue(all(stage["cached"] for stage in peftc.run(self.recipe)["stages"]))
        again = peftc.run(self.recipe, stage="learn", fresh=True, out=os.path.join(self.folder, "out"))
        self.assertEqual(again["stages"][0]["loss_last"], learn["loss_last"])

        # A line separator in a text is no end of a line.
        texts = ["a warm and funny film", "a dull \u2028 plot"]
        labelled = peftc.predict(os.path.join(self.folder, ".peftc", "runs", "r", "learn"), texts, all=True)
        self.assertEqual([row["text"] for row in labelled], texts)
        self.assertIn(labelled[0]["prediction"], ["negative", "positive"])
        rows = [{"sentence": text, "id": i} for i, text in enumerate(texts)]
        by_recipe = peftc.predict(self.recipe, rows, stage="learn")
        self.assertEqual([row["prediction"] for row in by_recipe], [row["prediction"] for row in labelled])
        self.assertEqual(by_recipe[1]["id"], 1)
        self.assertEqual(peftc.predict(self.recipe, []), [])

    def test_the_example_runs(self):
        example = os.path.join(ROOT, "examples", "embed.py")
        ended = subprocess.run([sys.executable, example, self.recipe, "learn"], stdout=subprocess.PIPE, encoding="utf-8", check=True)
        lines = ended.stdout.splitlines()
        self.assertRegex(lines[0], r"^learn \(train\) takes \d+ MiB$")
        self.assertRegex(lines[-1], r"^a dull plot and a worse cast: (positive|negative)$")
        self.write(RECIPE.replace("lr", "lrr"))
        ended = subprocess.run([sys.executable, example, self.recipe, "learn"], stderr=subprocess.PIPE, encoding="utf-8")
        self.assertEqual(ended.returncode, 2)
        self.assertIn("5: `train` has no key `lrr`", ended.stderr)

    def test_the_types_are_those_of_the_program(self):
        report = peftc.check(self.recipe, offline=True)
        plan = peftc.plan(self.recipe, offline=True)
        result = peftc.run(self.recipe, offline=True)
        self.write(RECIPE.replace("lr", "lrr"))
        with self.assertRaises(peftc.Rejected) as caught:
            peftc.check(self.recipe)
        for kind, given in (
            (_types.Report, report),
            (_types.Plan, plan),
            (_types.Result, result),
            (_types.Stage, report["stages"][0]),
            (_types.Stage, plan["stages"][0]),
            (_types.Diagnostic, caught.exception.diagnostics[0]),
            (_types.StageResult, result["stages"][0]),
        ):
            self.assertLessEqual(set(kind.__annotations__), set(given), kind)

    def test_mistakes_are_exceptions(self):
        self.write(RECIPE.replace("steps = steps", "stepps = steps"))
        for command in (peftc.check, peftc.plan, peftc.run):
            with self.assertRaises(peftc.Rejected) as caught:
                command(self.recipe, offline=True)
            why = caught.exception
            self.assertEqual(why.exit_code, 2)
            self.assertIn("peftc::resolve::unknown_key", [d["code"] for d in why.diagnostics])
            self.assertIn("did you mean `steps`", str(why))
            self.assertIn("r.peft:5:", str(why))
        self.write(RECIPE)
        with self.assertRaises(peftc.TooLarge):
            peftc.run(self.recipe, budget=1 << 20)
        with self.assertRaises(peftc.Rejected) as caught:
            peftc.run(self.recipe, device="h1000")
        self.assertIn("there is no device `h1000`", str(caught.exception))
        with self.assertRaises(peftc.Failed) as caught:
            peftc.predict(os.path.join(self.folder, "nothing"), ["a"])
        self.assertIn("there is no such file", str(caught.exception))
        with self.assertRaises(peftc.PeftcError):
            peftc.predict(self.recipe, [{"other": "a"}], stage="learn")

    def test_what_an_observer_raises_ends_the_run_with_a_checkpoint(self):
        class Enough(Exception):
            pass

        def stop(event):
            if event["event"] == "step" and event["step"] == 5:
                raise Enough

        with self.assertRaises(Enough):
            peftc.run(self.recipe, sets={"steps": 20000}, on_event=stop)
        report = peftc.check(self.recipe, sets={"steps": 20000})
        self.assertGreaterEqual(report["stages"][0]["resumes_at"], 5)

    @unittest.skipIf(os.name == "nt", "signals")
    def test_an_interrupt_of_python_ends_the_run_with_a_checkpoint(self):
        script = (
            "import os, peftc, signal, sys\n"
            "def once(event):\n"
            "    if event['event'] == 'step' and event['step'] == 3: os.kill(os.getpid(), signal.SIGINT)\n"
            "peftc.run(sys.argv[1], sets={'steps': 20000}, on_event=once)\n"
        )
        ended = subprocess.run([sys.executable, "-c", script, self.recipe], stderr=subprocess.PIPE, encoding="utf-8")
        self.assertEqual(ended.returncode, -signal.SIGINT, ended.stderr)
        report = peftc.check(self.recipe, sets={"steps": 20000})
        self.assertGreaterEqual(report["stages"][0]["resumes_at"], 3)

    def test_the_module_is_the_program(self):
        module = [sys.executable, "-m", "peftc"]
        said = subprocess.run([*module, "--version"], stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
        self.assertIn(peftc.version(), said)
        ended = subprocess.run([*module, "check", "--json", self.recipe], stdout=subprocess.PIPE)
        self.assertEqual(json.loads(ended.stdout)["recipes"][0]["diagnostics"], [])
        self.assertEqual(subprocess.run([*module, "chek"], stderr=subprocess.DEVNULL).returncode, 2)
        self.assertTrue(os.path.isfile(os.path.join(os.path.dirname(peftc.__file__), "py.typed")))

    def test_a_program_that_is_not_there_is_named(self):
        before = os.environ.get("PEFTC")
        os.environ["PEFTC"] = "/nowhere/peftc"
        try:
            with self.assertRaisesRegex(FileNotFoundError, "/nowhere/peftc"):
                peftc.find_program()
        finally:
            del os.environ["PEFTC"]
            if before is not None:
                os.environ["PEFTC"] = before
        self.assertTrue(shutil.which(peftc.find_program()))


if __name__ == "__main__":
    unittest.main()
