"""peftc from Python: recipes are checked, planned and run, and models asked, by the program that comes with this package.

    import peftc

    report = peftc.check("recipe.peft", budget="6GiB")
    print(report["fits"], report["peak_bytes"])
    result = peftc.run("recipe.peft", on_event=print)
    print(result["stages"][-1]["metrics"])
    print(peftc.predict(".peftc/runs/recipe/learn", ["a warm and funny film"], column="sentence"))

The functions give what the commands print with ``--json``, as dicts; ``docs/cli.md`` describes every key. Where a command ends with an
error there is an exception, which has the diagnostics of the recipe.
"""

from ._commands import check, plan, predict, run
from ._errors import Bug, Diverged, Failed, Interrupted, PeftcError, Rejected, TooLarge
from ._program import find_program, version
from ._types import Diagnostic, Event, Plan, Report, Result, Stage, StageResult

__all__ = [
    "Bug",
    "Diagnostic",
    "Diverged",
    "Event",
    "Failed",
    "Interrupted",
    "PeftcError",
    "Plan",
    "Rejected",
    "Report",
    "Result",
    "Stage",
    "StageResult",
    "TooLarge",
    "check",
    "find_program",
    "plan",
    "predict",
    "run",
    "version",
]
