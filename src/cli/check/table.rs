//! What `check` prints of a plan: whether it fits, the table, where the peak is.

use std::fmt::Write as _;

use super::needed;
use crate::base::units::{About, Bytes, Count};
use crate::cli::screen::{BAD, GOOD, Screen, wrap};
use crate::cli::table::{Cell, Side, Table};
use crate::library::stage::job::Routine;
use crate::library::stage::keys;
use crate::plan::disk::Disk;
use crate::plan::estimate::Residence;
use crate::plan::render::{batches, recomputed};
use crate::plan::time::RateSource;
use crate::plan::{Plan, Stage, render as plan_render};
use crate::program::DType;
use crate::program::device;
use crate::program::format::Storing;
use crate::program::op::Machine;

/// The table of `check`, with all stages as its last row, and where the peak is.
pub(in crate::cli) fn table(
    plan: &Plan,
    limit: Option<u64>,
    (cached, mark, time): (
        &dyn Fn(&Stage) -> bool,
        &dyn Fn(&Stage) -> String,
        &dyn Fn(&Stage) -> Option<f64>,
    ),
    screen: Screen,
) -> String {
    let all: Vec<&Stage> = plan.stages.iter().collect();
    let on_device = plan
        .stages
        .iter()
        .any(|s| s.estimate.residence != Residence::Cpu);
    let right = |title: &'static str| (title, Side::Right);

    let mut table = Table::new([
        ("stage", Side::Left),
        ("method", Side::Left),
        right("trained"),
        right("steps"),
        right("tensors"),
        right(bounded(on_device)),
        right("time"),
        right("disk"),
        ("", Side::Left),
    ]);
    for stage in &plan.stages {
        table.row(row(stage, limit, time(stage), mark(stage)));
    }
    let left: Vec<&Stage> = plan.stages.iter().filter(|s| !cached(s)).collect();
    let finished = left.len() < plan.stages.len();
    if plan.stages.len() > 1 {
        let peak = plan.stages.iter().map(|s| s.estimate.peak()).max();
        let timed = |s: &&&Stage| !matches!(s.job.routine, Routine::Fold(_));
        let whole: Option<f64> = left.iter().filter(timed).map(|s| time(s)).sum();
        let needs = Cell::from(Bytes(needed(&all)).to_string());
        let over = limit.is_some_and(|limit| needed(&all) > limit);
        table.row(vec![
            "all".into(),
            "".into(),
            "".into(),
            "".into(),
            Bytes(peak.unwrap_or(0)).to_string().into(),
            if over { needs.styled(BAD) } else { needs },
            about(whole).into(),
            Bytes(plan.disk(left.iter().copied()).most())
                .to_string()
                .into(),
            if finished { "left" } else { "" }.into(),
        ]);
    }
    let mut text = table.without_empty().render(screen);
    let legend = legend(on_device, finished);
    let _ = write!(text, "\n{}", wrap(&legend, screen.prose(), "  "));
    for stage in &plan.stages {
        if let Some(prompt) = plan_render::prompt(stage) {
            let line = format!("  The prompt of `{}` is {prompt}\n", stage.name.value);
            let _ = write!(text, "\n{}", screen.fold(&line, 4));
        }
    }
    text.push_str(&peak(plan, on_device, screen));
    text
}

/// The row of a stage. What is over the limit is marked.
fn row(stage: &Stage, limit: Option<u64>, time: Option<f64>, mark: String) -> Vec<Cell> {
    let (_, trained) = stage.job.parameters();
    let steps = match &stage.job.routine {
        // A number of epochs says nothing without the data.
        Routine::Fit(_) if stage.steps_unknown() => "?".to_owned(),
        Routine::Fit(fit) => Count(fit.steps).to_string(),
        _ => "–".to_owned(),
    };
    let e = &stage.estimate;
    let needs = match e.residence {
        Residence::Host => Cell::from("on host"),
        _ => Bytes(e.needs()).to_string().into(),
    };
    let over = limit.is_some_and(|limit| e.needs() > limit);
    vec![
        stage.name.value.as_str().into(),
        does(stage).into(),
        some(trained).into(),
        steps.into(),
        Bytes(e.peak()).to_string().into(),
        if over { needs.styled(BAD) } else { needs },
        match stage.job.routine {
            // Reading and writing, whose time is not estimated.
            Routine::Fold(_) => "–".to_owned(),
            _ => about(time),
        }
        .into(),
        Bytes(Disk::of(stage).most()).to_string().into(),
        mark.into(),
    ]
}

/// What bounds a stage's memory.
const fn bounded(on_device: bool) -> &'static str {
    if on_device { "device" } else { "process" }
}

/// What the columns mean.
fn legend(on_device: bool, finished: bool) -> String {
    format!(
        "trained: parameters. tensors: their bytes at the peak. {}: {}. time: of the arithmetic. disk: what \
         a run writes to it at most{}.",
        bounded(on_device),
        if on_device {
            "all that the card holds for the stage, which its memory or a `--budget` bounds"
        } else {
            "the tensors and all else in the process, which a `--budget` bounds"
        },
        if finished {
            ". all: what is left, without the stages that are finished"
        } else {
            ""
        }
    )
}

/// What a stage does: its methods; `mezo` where they are trained so; else its kind.
fn does(stage: &Stage) -> String {
    let kind = &stage.filled.name;
    let methods = stage.methods();
    if methods.is_empty() || !stage.kind.trains() {
        return kind.clone();
    }
    let methods = methods.join("+");
    match kind.as_str() {
        "train" => methods,
        // What it trains if nothing is said.
        "mezo" if methods == "full" => kind.clone(),
        "mezo" => format!("{kind} {methods}"),
        _ => methods,
    }
}

fn some(n: u64) -> String {
    if n == 0 {
        "–".to_owned()
    } else {
        Count(n).to_string()
    }
}

fn about(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "?".to_owned(), |s| About(s).to_string())
}

/// What is held at the peak of the largest stage.
fn peak(plan: &Plan, on_device: bool, screen: Screen) -> String {
    let mut text = String::new();
    // What runs on the host does not count among what is held on a device.
    let counted = |s: &&Stage| !on_device || s.estimate.residence != Residence::Host;
    let stages = plan.stages.iter().filter(counted);
    let own_bytes = |s: &&Stage| match s.estimate.residence {
        Residence::Device(_) => s.estimate.needs(),
        Residence::Cpu | Residence::Host => s.estimate.peak(),
    };
    if let Some(top) = stages.max_by_key(own_bytes) {
        let e = &top.estimate;
        let line = format!("  The peak is in `{}`, at {}:\n", top.name.value, e.peak_op);
        let _ = write!(text, "\n{}", screen.fold(&line, 4));
        let lines = plan_render::lines(e);
        let all: u64 = lines.iter().map(|(_, bytes)| bytes).sum();
        for (name, bytes) in lines.into_iter().filter(|(_, bytes)| *bytes > 0) {
            let share = 100.0 * bytes as f64 / all.max(1) as f64;
            let _ = writeln!(
                text,
                "    {name:<36} {:>10} {share:>5.1} %",
                Bytes(bytes).to_string()
            );
        }
        if let Some((what, bytes)) = e.largest.first() {
            let line = format!("  largest tensor there: {} {what}\n", Bytes(*bytes));
            text.push_str(&screen.fold(&line, 4));
        }
    }
    text.push('\n');
    text
}

/// The card, and what the times are computed from.
pub(in crate::cli) fn source_of_times(
    machine: &Machine,
    source: Option<RateSource>,
    rated: &[usize],
    screen: Screen,
) -> String {
    let mut text = String::new();
    if let Some(card) = machine.device.card() {
        let _ = write!(
            text,
            "{} has {}, of which its driver leaves about {}. ",
            card.name,
            Bytes(card.memory()),
            Bytes(card.available())
        );
    }
    match source {
        Some(RateSource::DataSheet) => {
            let _ = write!(
                text,
                "Times are computed from its data sheet, at {:.0} % of the arithmetic and {:.0} % of the bandwidth there; \
                 nothing was measured.",
                100.0 * device::ARITHMETIC_EFFICIENCY,
                100.0 * device::BANDWIDTH_EFFICIENCY
            );
        }
        Some(RateSource::Usual) if !rated.is_empty() => {
            let rated: Vec<String> = rated.iter().map(usize::to_string).collect();
            let _ = write!(
                text,
                "Times are those of a usual processor: the store knows what this machine does with `--threads {}`, and \
                 this is for {}.",
                rated.join("`, `"),
                machine.threads
            );
        }
        Some(RateSource::Usual) => text.push_str(
            "Times are those of a usual processor; runs with this store will tell this machine's.",
        ),
        Some(RateSource::Measured) => {}
        None => text.push_str(
            "No card is known here, so that there are no times and nothing to fit; name one (`--device rtx3070-8gb`, \
             `peftc list devices`).",
        ),
    }
    if text.is_empty() {
        return text;
    }
    wrap(&text, screen.prose(), "  ")
}

/// What `fit = auto` chose, a line a stage.
pub(in crate::cli) fn fitted(plan: &Plan) -> String {
    let stages = plan.stages.iter().filter(|s| s.fitted);
    stages
        .map(|stage| {
            let (batch, micro) = batches(stage);
            let blocks = recomputed(stage);
            let micro = (micro < batch).then(|| format!("micro-batches of {micro}"));
            let again = (blocks > 0).then(|| {
                let all = stage.model.facts().layers;
                format!("the inner values of {blocks} of {all} blocks recomputed")
            });
            let ways: Vec<String> = micro.into_iter().chain(again).collect();
            format!(
                "    `{}` fits by {}\n",
                stage.name.value,
                ways.join(" and ")
            )
        })
        .collect()
}

/// Whether a plan fits a budget, and what would.
pub(in crate::cli) fn verdict(stages: &[&Stage], budget: u64, screen: Screen) -> String {
    let needs = needed(stages);
    if needs <= budget {
        let yes = screen.paint(GOOD, "fits");
        return format!("  {yes}: {} of {}\n", Bytes(needs), Bytes(budget));
    }
    let no = screen.paint(BAD, "does not fit");
    let mut text = format!(
        "  {no}: {} is needed, {} may be used\n",
        Bytes(needs),
        Bytes(budget)
    );
    let over = || {
        stages
            .iter()
            .copied()
            .filter(|s| s.estimate.needs() > budget)
    };
    for stage in over() {
        let _ = writeln!(
            text,
            "    `{}` needs {}",
            stage.name.value,
            Bytes(stage.estimate.needs())
        );
    }
    for line in advice(&over().collect::<Vec<_>>()) {
        let _ = writeln!(text, "  {line}");
    }
    screen.fold(&text, 4)
}

/// What makes stages smaller that do not fit, each way once.
fn advice(over: &[&Stage]) -> Vec<String> {
    let mut lines = Vec::new();
    let fit = |s: &Stage| keys::FIT.find(&s.filled.values).map(str::to_owned);
    let trains = |s: &&&Stage| s.kind.trains();
    if over
        .iter()
        .any(|s| s.kind.trains() && fit(s).as_deref() != Some("auto"))
    {
        lines.push(
            "`fit = auto` in a training stage lets the compiler choose micro-batch and recompute; `peftc check --solve \
             micro_batch` (or batch, max_length, rank) prints the largest that fits"
                .to_owned(),
        );
    }
    let tried: Vec<&&Stage> = over
        .iter()
        .filter(trains)
        .filter(|s| fit(s).as_deref() == Some("auto"))
        .collect();
    if let Some(first) = tried.first() {
        let names: Vec<String> = tried
            .iter()
            .take(4)
            .map(|s| format!("`{}`", s.name.value))
            .collect();
        let mut ways = vec!["a lower `max_length`".to_owned()];
        if first.start.model.storage == Storing::default() {
            ways.push("`dtype = q8_0` or `bf16` in the model, for its frozen weights".to_owned());
        }
        if first.start.model.numbers.activations == DType::F32 {
            ways.push("`activations = bf16` there".to_owned());
        }
        ways.push("a method that holds less (`lst`, `side_lora`, or a `mezo` stage)".to_owned());
        lines.push(format!(
            "`fit = auto` of {} has tried every micro-batch and recompute; smaller it is with {}; `peftc check --solve \
             max_length` prints the largest that fits",
            names.join(", "),
            ways.join(", ")
        ));
    }
    let (folds, reads): (Vec<&Stage>, Vec<&Stage>) = over
        .iter()
        .copied()
        .filter(|s| !s.kind.trains())
        .partition(|s| matches!(s.job.routine, Routine::Fold(_)));
    if !reads.is_empty() {
        lines.push(
            "an evaluation takes less with a lower `batch` or `max_length`; `peftc check --solve batch` prints the largest that fits"
                .to_owned(),
        );
    }
    if !folds.is_empty() {
        lines.push(
            "a merge holds one matrix at a time and cannot be made smaller; `predict` and `eval` take an adapter unmerged".to_owned(),
        );
    }
    lines
}
