"""The commands as functions."""

import json
import os
import subprocess
import threading
from typing import IO, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union, cast

from ._errors import error
from ._program import find_program
from ._types import Diagnostic, Event, Plan, Report, Result

Path = Union[str, "os.PathLike[str]"]
#: A value of a ``let``: numbers and texts are written as a recipe has them, ``True`` as ``true``.
Value = Union[str, int, float, bool]


def _common(
    sets: Optional[Mapping[str, Value]], device: Optional[str], store: Optional[Path], offline: bool, threads: Optional[int]
) -> List[str]:
    flags: List[str] = []
    for name, value in (sets or {}).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        flags += ["--set", f"{name}={text}"]
    for flag, given in (("--device", device), ("--store", store), ("--threads", threads)):
        if given is not None:
            flags += [flag, os.fspath(given) if isinstance(given, os.PathLike) else str(given)]
    if offline:
        flags.append("--offline")
    return flags


def _size(budget: Union[str, int]) -> str:
    return f"{budget}B" if isinstance(budget, int) else budget


def _done(arguments: Sequence[str], given: Optional[str] = None) -> Tuple[int, str, str]:
    """Runs the program to its end; its exit code, results and what it said."""
    ended = subprocess.run(
        [find_program(), *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    return ended.returncode, ended.stdout, ended.stderr


def _report(recipe: Path, flags: Sequence[str]) -> Tuple[int, Optional[Report], str]:
    code, out, said = _done(["check", "--json", "--color", "never", *flags, "--", os.fspath(recipe)])
    if not out.strip():
        return code, None, said.strip()
    return code, cast(Report, json.loads(out)["recipes"][0]), said.strip()


def _wrong(diagnostics: Sequence[Diagnostic]) -> str:
    """The mistakes among diagnostics, a line each."""
    lines = []
    for own in diagnostics:
        if own["severity"] == "error":
            place = f"{own['file']}:{own['line']}:{own['column']}: " if own["file"] else ""
            advice = f" ({own['help']})" if own["help"] else ""
            lines.append(f"{place}{own['message']}{advice}")
    return "\n".join(lines)


def _refuse(recipe: Path, flags: Sequence[str], code: int, said: str) -> Exception:
    """The exception for a command that ended so, with the diagnostics of the recipe where that is what was wrong."""
    if code == 2:
        _, report, _ = _report(recipe, flags)
        diagnostics = report["diagnostics"] if report else []
        mistakes = _wrong(diagnostics)
        if mistakes:
            return error(code, mistakes, diagnostics)
    return error(code, _last(said))


def _last(said: str) -> str:
    """The message in what was said: what stands behind `error:`, or all of it."""
    _, found, message = ("\n" + said).rpartition("\nerror: ")
    return message.strip() if found else said.strip()


def check(
    recipe: Path,
    *,
    budget: Union[str, int, None] = None,
    sets: Optional[Mapping[str, Value]] = None,
    device: Optional[str] = None,
    store: Optional[Path] = None,
    offline: bool = False,
    threads: Optional[int] = None,
) -> Report:
    """What is wrong with a recipe and how much memory it takes; executes nothing.

    ``budget`` is a size (``"6GiB"``) or a number of bytes, ``device`` ``"cuda"`` or a card's name (``"rtx3070-8gb"``), ``sets`` are values for
    the recipe's ``let``s. That it does not fit is an answer: ``report["fits"]`` is ``False``. A recipe with mistakes is :class:`Rejected`,
    with all of them in ``diagnostics``; warnings are in the report's.
    """
    flags = _common(sets, device, store, offline, threads)
    if budget is not None:
        flags += ["--budget", _size(budget)]
    code, report, said = _report(recipe, flags)
    if report is None:
        raise error(code, _last(said))
    if code not in (0, 3):
        raise error(code, _wrong(report["diagnostics"]) or _last(said), report["diagnostics"])
    return report


def plan(
    recipe: Path,
    *,
    sets: Optional[Mapping[str, Value]] = None,
    device: Optional[str] = None,
    store: Optional[Path] = None,
    offline: bool = False,
    threads: Optional[int] = None,
) -> Plan:
    """The compiled plan: stages, edges, placement, fingerprints, memory."""
    flags = _common(sets, device, store, offline, threads)
    code, out, said = _done(["plan", "--json", "--color", "never", *flags, "--", os.fspath(recipe)])
    if code != 0:
        raise _refuse(recipe, flags, code, said)
    return cast(Plan, json.loads(out))


def _listen(stream: IO[str], tell: Callable[[Event], None], others: List[str], failure: List[str]) -> None:
    """Hears what a run says: events of progress, and lines of text."""
    for line in stream:
        event: Any = None
        if line.startswith("{"):
            try:
                event = json.loads(line)
            except ValueError:
                pass
        if isinstance(event, dict) and "event" in event:
            if event["event"] == "failed":
                failure.append(str(event.get("message", "")))
            tell(event)
        elif line.strip():
            others.append(line)


def run(
    recipe: Path,
    *,
    stage: Optional[str] = None,
    budget: Union[str, int, None] = None,
    sets: Optional[Mapping[str, Value]] = None,
    device: Optional[str] = None,
    store: Optional[Path] = None,
    out: Optional[Path] = None,
    fresh: bool = False,
    offline: bool = False,
    threads: Optional[int] = None,
    on_event: Optional[Callable[[Event], None]] = None,
) -> Result:
    """Executes a recipe; finished stages are taken from the store. Gives the document of ``result.json``.

    ``on_event`` is called with each line of progress, in a thread of its own; what it raises ends the run behind the current step, and is
    raised again. So does Ctrl-C. A checkpoint is kept, and the same call goes on from it.
    """
    common = _common(sets, device, store, offline, threads)
    flags = list(common)
    for flag, given in (("--stage", stage), ("--out", None if out is None else os.fspath(out))):
        if given is not None:
            flags += [flag, given]
    if budget is not None:
        flags += ["--budget", _size(budget)]
    if fresh:
        flags.append("--fresh")
    command = [find_program(), "run", "--json", "--log-format", "json", "--color", "never", *flags, "--", os.fspath(recipe)]
    others: List[str] = []
    failure: List[str] = []
    raised: List[BaseException] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None and process.stderr is not None

        def tell(event: Event) -> None:
            if on_event is None or raised:
                return
            try:
                on_event(event)
            except BaseException as why:  # noqa: B902 - it is raised again
                raised.append(why)
                process.terminate()

        ears = threading.Thread(target=_listen, args=(process.stderr, tell, others, failure), daemon=True)
        ears.start()
        try:
            printed = process.stdout.read()
        except KeyboardInterrupt as why:
            # The terminal tells the program too; where only Python was told, it is told here. Both count as one.
            raised.append(why)
            process.terminate()
            printed = process.stdout.read()
        code = process.wait()
        ears.join()
    if raised:
        raise raised[0]
    if code != 0:
        said = failure[-1] if failure else "".join(others)
        raise _refuse(recipe, common, code, said)
    return cast(Result, json.loads(printed))


def predict(
    model: Path,
    rows: Union[Sequence[str], Sequence[Mapping[str, Any]]],
    *,
    column: Optional[str] = None,
    stage: Optional[str] = None,
    best: Optional[str] = None,
    all: bool = False,
    batch: Optional[int] = None,
    device: Optional[str] = None,
    threads: Optional[int] = None,
    options: Sequence[str] = (),
) -> List[Dict[str, Any]]:
    """The rows with what the model says of each: ``prediction`` and ``probability`` of classes, ``generated`` for language models.

    ``model`` is a stage's folder in a run's output, the output itself with ``stage``, a recipe that was run, an entry of the store, or a
    Hugging Face folder. Rows are dicts with the columns of the training, or texts, which ``column`` gives the column's name of. ``options``
    are more flags of ``peftc predict``, such as ``["--max-new-tokens", "64"]``.
    """
    name = column or "text"
    given: List[Mapping[str, Any]] = [{name: row} if isinstance(row, str) else row for row in rows]
    if not given:
        return []
    flags: List[str] = []
    texts = [isinstance(row, str) for row in rows]
    if column is not None or any(texts):
        flags += ["--text", name]
    for flag, value in (("--stage", stage), ("--best", best), ("--batch", batch), ("--device", device), ("--threads", threads)):
        if value is not None:
            flags += [flag, str(value)]
    if all:
        flags.append("--all")
    formats = ["--input", "-", "--input-format", "jsonl", "--format", "jsonl"]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given)
    command = ["predict", "--quiet", "--color", "never", *formats, *flags, *options, "--", os.fspath(model)]
    code, printed, said = _done(command, lines)
    if code != 0:
        raise error(code, _last(said))
    return [json.loads(line) for line in printed.split("\n") if line]
