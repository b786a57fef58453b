"""The tables of `compare.py`, from the list of all runs."""

import statistics

# What is to be reached on a GPU.
SPEED = 1.2  # times PyTorch's samples/s, at least
ABOVE = 0.7  # of PyTorch's bytes above the weights, at most
SHORT = 0.02  # median by which the estimate exceeds what is measured, at most; never below it
REPORT_BATCH = 16  # the batch of the report's figures


def middle(runs, key):
    values = [run[key] for run in runs if "error" not in run]
    return statistics.median(values) if values else None


def groups(runs):
    """Runs of peftc, and PyTorch's by how it stores frozen weights, of each (row, precision, batch)."""
    found = {}
    for run in runs:
        sides = found.setdefault((run["row"], run["precision"], run["batch"]), {})
        sides.setdefault(run["weights"] if run["who"] == "pytorch" else "peftc", []).append(run)
    return found


def plain(runs):
    """Speed and the memory of processes, a table for each precision and batch."""
    found, lines = groups(runs), []
    for precision, batch in dict.fromkeys((p, b) for _, p, b in found):
        lines += ["", f"precision {precision}, batch {batch}", "",
                  "| method | peftc, samples/s | PyTorch | ratio | PyTorch, grouped by length | ratio "
                  "| peftc, MiB | PyTorch, MiB | ratio |",
                  "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for (name, p, b), sides in found.items():
            if (p, b) != (precision, batch):
                continue
            for who in sides:
                if who != "peftc":
                    lines.append(plain_line(label(name, sides, who), sides.get("peftc", []), sides[who]))
    return "\n".join(lines[1:])


def label(name, sides, who):
    return name if len(sides) == 2 else f"{name}, PyTorch's frozen weights {who}"


def plain_line(name, ours, theirs):
    own, random, grouped = middle(ours, "rate"), middle(theirs, "rate"), middle(theirs, "grouped")
    if own is None or random is None:
        return f"| {name} | failed |"
    mib = [middle(side, "process") / 2**20 for side in (ours, theirs)]
    return (f"| {name} | {own:.1f} | {random:.1f} | {own / random:.2f} | {grouped:.1f} | {own / grouped:.2f} "
            f"| {mib[0]:,.0f} | {mib[1]:,.0f} | {mib[1] / mib[0]:.2f} |")


class Tally:
    """How many lines meet each target."""

    def __init__(self):
        self.met = {}

    def note(self, what, good):
        met, of = self.met.get(what, (0, 0))
        self.met[what] = (met + good, of + 1)
        return good


def targets(runs, large):
    """The table with targets; whether all are met. The report's figures count for its shape alone."""
    tally, errors = Tally(), []
    lines = ["| row | precision | batch | PyTorch's frozen weights | peftc, samples/s | PyTorch | ratio | grouped by length | ratio "
             "| peftc, MB | PyTorch, MB | report, MB | above the weights: peftc, MB | PyTorch, MB | ratio "
             "| estimated, MB | measured / estimated | missed |",
             "| --- | --- | ---: | --- |" + " ---: |" * 13 + " --- |"]
    for (name, precision, batch), sides in groups(runs).items():
        ours = sides.pop("peftc", [])
        for weights, theirs in sides.items():
            line = compared(tally, ours, theirs, ours and ours[0]["report"] if large and batch == REPORT_BATCH else None)
            lines.append(f"| {name} | {precision} | {batch} | {weights} | {line} |")
        if middle(ours, "peak") is not None:
            errors.append(1 - middle(ours, "peak") / middle(ours, "estimated"))
    lines.append("")
    if errors:
        middle_error = statistics.median(errors)
        tally.note("estimate", middle_error <= SHORT and min(errors) >= 0)
        lines.append(f"Estimate: median error {100 * middle_error:.2f} %, largest {100 * max(errors):.2f} %, "
                     f"largest shortfall {100 * max(0, -min(errors)):.2f} %.")
    names = {"runs": "both sides ran", "speed": f"samples/s at least {SPEED} times PyTorch's",
             "memory": f"above the weights at most {ABOVE} of PyTorch's", "report": "below the report's MB",
             "estimate": f"estimate within {100 * SHORT:.0f} % in the median and never short"}
    for what, said in names.items():
        if what in tally.met:
            met, of = tally.met[what]
            lines.append(f"- {said}: {'met' if met == of else 'missed'} ({met} of {of})")
    return "\n".join(lines), all(met == of for met, of in tally.met.values()) and bool(tally.met)


def compared(tally, ours, theirs, report):
    """The cells of a line from samples/s on."""
    own, random, grouped = middle(ours, "rate"), middle(theirs, "rate"), middle(theirs, "grouped")
    if not tally.note("runs", own is not None and random is not None):
        return ("– | " * 13) + "failed"
    mb = lambda x: f"{x / 1e6:,.0f}"
    peaks = [middle(side, "peak") for side in (ours, theirs)]
    above = [peak - middle(side, "weights_bytes") for peak, side in zip(peaks, (ours, theirs))]
    estimated = middle(ours, "estimated")
    missed = []
    if not tally.note("speed", own >= SPEED * random):
        missed.append("speed")
    if not tally.note("memory", above[0] <= ABOVE * above[1]):
        missed.append("memory")
    if report and not tally.note("report", peaks[0] < report * 1e6):
        missed.append("report")
    if peaks[0] > estimated:
        missed.append("estimate")
    return (f"{own:.1f} | {random:.1f} | {own / random:.2f} | {grouped:.1f} | {own / grouped:.2f} "
            f"| {mb(peaks[0])} | {mb(peaks[1])} | {f'{report:,}' if report else '–'} | {mb(above[0])} | {mb(above[1])} "
            f"| {above[0] / above[1]:.2f} | {mb(estimated)} | {peaks[0] / estimated:.4f} | {', '.join(missed) or 'nothing'}")
