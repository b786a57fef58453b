//! The plan for people, in 80 columns.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use indexmap::IndexMap;

use super::super::estimate::Residence;
use super::super::{Plan, Stage};
use super::{adapted, batches, generation, recomputed, supervised};
use crate::base::units::{Bytes, Count};
use crate::base::visible;
use crate::library::data::form::Supervision;
use crate::library::method::keys::RANK;
use crate::library::stage::job::{Fit, Routine, Update};
use crate::library::stage::keys;
use crate::program::DType;
use crate::program::op::Precision;

/// The plan as text, in 80 columns.
#[must_use]
pub fn text(plan: &Plan, recipe: &str) -> String {
    let mut out = format!(
        "{}: {} stage{}\n",
        visible::line(recipe),
        plan.stages.len(),
        if plan.stages.len() == 1 { "" } else { "s" }
    );
    if let Some(sweep) = sweep(plan) {
        let _ = writeln!(out, "  {sweep}");
    }
    for stage in &plan.stages {
        stage_text(&mut out, stage);
    }
    out
}

/// The block of a stage.
fn stage_text(out: &mut String, stage: &Stage) {
    let from = stage.parent.as_ref().map_or_else(
        || format!("model {}", stage.start.model.name),
        |p| format!("stage {p}"),
    );
    let _ = writeln!(
        out,
        "\n{} = {} from {}",
        visible::line(&stage.name.value),
        stage.filled.name,
        visible::line(&from)
    );
    model(out, stage);
    adapters(out, stage);
    routine(out, stage);
    for (key, learned) in supervised(stage) {
        let _ = writeln!(out, "  {key:<11} {}", supervision(learned));
    }
    if let Some(prompt) = prompt(stage) {
        let _ = writeln!(out, "  prompt      {prompt}");
    }
    if let Some(line) = demonstrations(stage) {
        let _ = writeln!(out, "  shown       {line}");
    }
    if let Some(line) = taught(stage) {
        let _ = writeln!(out, "  learns      {line}");
    }
    if let Some(line) = features_text(stage) {
        let _ = writeln!(out, "  features    {line}");
    }
    if let Some(generate) = generation(stage) {
        let _ = writeln!(
            out,
            "  generates   {} at once, each of at most {} tokens with its prompt, {} of them new; {} of caches",
            texts(generate.places),
            Count(generate.capacity),
            Count(generate.settings.max_new_tokens),
            Bytes(generate.cache_bytes())
        );
    }
    memory(out, stage);
    let _ = writeln!(
        out,
        "  fingerprint {}",
        stage
            .fingerprint
            .as_deref()
            .map_or("unknown", |f| f.get(..16).unwrap_or(f))
    );
}

/// The model, and the numbers that it computes with.
fn model(out: &mut String, stage: &Stage) {
    let facts = stage.model.facts();
    let _ = writeln!(
        out,
        "  model       {} {} blocks × {} wide, {} held{}{}",
        stage.model.family(),
        facts.layers,
        facts.hidden,
        stage.start.storage(),
        match stage.start.model.numbers.products {
            Precision::F32 => "",
            Precision::Tf32 => ", products in TF32",
            Precision::Bf16 => ", products in bf16",
        },
        match stage.start.model.numbers.activations {
            DType::F16 => ", activations in f16",
            DType::BF16 => ", activations in bf16",
            _ => "",
        }
    );
}

/// The methods, where they are, and what they train.
fn adapters(out: &mut String, stage: &Stage) {
    let (total, trainable) = stage.job.parameters();
    let methods = stage.methods();
    if !methods.is_empty() {
        let _ = writeln!(out, "  methods     {}", methods.join(", "));
    }
    for (kind, sites) in placements(stage) {
        let _ = writeln!(
            out,
            "  placement   {} {kind}: {}",
            sites.len(),
            fold(&sites)
        );
    }
    if let Some(ranks) = ranks(stage) {
        let _ = writeln!(out, "  ranks       {ranks}");
    }
    let _ = writeln!(
        out,
        "  parameters  {} of which {} trained",
        Count(total),
        Count(trainable)
    );
    for (factor, parameters) in stage.job.rates() {
        let _ = writeln!(
            out,
            "  rates       {} of them at {factor} times the learning rate",
            Count(parameters)
        );
    }
}

/// What the stage does.
fn routine(out: &mut String, stage: &Stage) {
    match &stage.job.routine {
        Routine::Fit(fit) => training(out, stage, fit),
        Routine::Score(score) => {
            let metrics: Vec<&str> = score.metrics.iter().map(|m| m.schema().name).collect();
            let _ = writeln!(
                out,
                "  scoring     {}in batches of {}",
                match metrics.as_slice() {
                    [] => "each class, ".to_owned(),
                    all => all.join(", ") + " ",
                },
                batches(stage).0
            );
        }
        Routine::Choose(choose) => {
            let candidates = stage.candidates.as_ref();
            let _ = writeln!(
                out,
                "  choosing    among {} prompts ({} templates) by {}, in batches of {}",
                Count(candidates.map_or(0, |c| c.count())),
                candidates.map_or(0, |c| c.templates.len()),
                choose.metric.schema().name,
                choose.batch
            );
        }
        Routine::Fold(fold) => {
            let _ = writeln!(
                out,
                "  merging     {} matrices into {}",
                fold.sites.len(),
                fold.target
            );
        }
    }
}

/// Steps, batches and programs of a training.
fn training(out: &mut String, stage: &Stage, fit: &Fit) {
    let (rows, micro) = batches(stage);
    let micro = if micro < rows {
        format!(" in micro-batches of {micro}")
    } else {
        String::new()
    };
    let batch = match &fit.packing {
        Some(packing) => format!(
            "up to {} tokens, about {} examples",
            Count(packing.budget),
            rows
        ),
        None => format!("{rows} examples"),
    };
    let _ = writeln!(
        out,
        "  training    {} steps of {batch}{micro}, at most {} tokens at once",
        fit.steps, stage.estimate.max_tokens
    );
    if recomputed(stage) > 0 {
        let _ = writeln!(
            out,
            "  recompute   the inner values of {} of {} blocks",
            recomputed(stage),
            stage.model.facts().layers
        );
    }
    let programs = match &fit.update {
        Update::Whole(_) => "step",
        Update::Split { .. } => "accumulate, apply",
        Update::Zeroth { .. } => "loss, perturb",
    };
    if !fit.phases.is_empty() {
        let begins = fit.phases.iter().map(|(step, _)| *step);
        let begins = begins.chain([fit.last_phase]);
        let list: Vec<String> = begins.map(|step| step.to_string()).collect();
        let _ = writeln!(
            out,
            "  phases      {}: more is trained from steps {} on",
            list.len(),
            list.join(", ")
        );
    }
    let _ = writeln!(
        out,
        "  programs    {programs}{}",
        if fit.evaluate.is_some() {
            ", evaluate"
        } else {
            ""
        }
    );
}

/// What of a split is learned, for people: `learned: 41,200 of 98,000 tokens (42.0 %), …`.
#[must_use]
pub fn supervision(s: &Supervision) -> String {
    let mut text = format!(
        "learned: {} of {} tokens ({:.1} %)",
        Count(s.learned),
        Count(s.tokens),
        100.0 * s.share()
    );
    if s.rejected > 0 {
        let _ = write!(
            text,
            ": {} of chosen answers, {} of rejected ones",
            Count(s.learned - s.rejected),
            Count(s.rejected)
        );
    }
    if s.cut > 0 {
        let _ = write!(
            text,
            "; {} rows are cut and lose {} more",
            Count(s.cut),
            Count(s.lost)
        );
    }
    let _ = match s.ended {
        all if all == s.rows => write!(text, "; the end is learned in all rows"),
        0 => write!(text, "; the end is learned in no row"),
        some => write!(
            text,
            "; the end is learned in {} of {} rows",
            Count(some),
            Count(s.rows)
        ),
    };
    if s.skipped > 0 {
        let _ = write!(
            text,
            "; {} rows with nothing to learn are left out",
            Count(s.skipped)
        );
    }
    text
}

/// Kept results of the frozen part, or the reason why there are none; nothing where the question does not arise.
fn features_text(stage: &Stage) -> Option<String> {
    match (stage.job.features(), &stage.not_kept) {
        (Some(f), _) => Some(format!(
            "{} state{} of {}{} examples kept in {} on disk{}; saves {:.0} % of a step",
            f.kept.len(),
            if f.kept.len() == 1 { "" } else { "s" },
            if f.everything { "all " } else { "the first " },
            Count(f.examples.iter().sum()),
            Bytes(f.bytes),
            match f.types() {
                own if own == "f32" => String::new(),
                own => format!(" as {own}"),
            },
            100.0 * f.share,
        )),
        (None, Some(why)) => Some(format!("not kept: {why}")),
        (None, None) => None,
    }
}

/// `6 points: seed × 2, method+lr × 3`; nothing for a recipe without sweeps.
fn sweep(plan: &Plan) -> Option<String> {
    if plan.axes.is_empty() {
        return None;
    }
    let axes: Vec<String> = plan
        .axes
        .chunk_by(|a, b| a.group == b.group)
        .map(|group| {
            let names: Vec<&str> = group.iter().map(|a| a.name.as_str()).collect();
            let size = group.first().map_or(0, |a| a.size);
            format!("{} × {size}", names.join("+"))
        })
        .collect();
    let plural = if plan.points == 1 { "" } else { "s" };
    let points = Count(plan.points as u64);
    Some(format!("{points} point{plural}: {}", axes.join(", ")))
}

/// The sites that methods are at, by what they are: "18 linear maps", with their paths.
fn placements(stage: &Stage) -> IndexMap<&'static str, Vec<String>> {
    let mut kinds: IndexMap<&str, Vec<String>> = IndexMap::new();
    for site in adapted(stage) {
        let own = kinds.entry(site.part.kind()).or_default();
        own.push(site.path.clone());
    }
    kinds
}

/// How many places have which rank, where they differ.
fn ranks(stage: &Stage) -> Option<String> {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for site in adapted(stage) {
        for (_, values) in stage.trained_with.stack(site) {
            if let Some(rank) = RANK.find(values) {
                *counts.entry(rank).or_default() += 1;
            }
        }
    }
    let list = counts.iter().rev();
    let list: Vec<String> = list.map(|(rank, n)| format!("{rank} at {n}")).collect();
    (list.len() > 1).then(|| list.join(", "))
}

/// Where a stage's prompt comes from, if another stage chooses it.
#[must_use]
pub fn prompt(stage: &Stage) -> Option<String> {
    let chooser = stage.start.chooser.as_ref()?;
    let template = stage.start.prompt.as_ref().map(|p| &p.template.source)?;
    Some(match &stage.open {
        Some(open) => format!(
            "chosen by `{}`; until then the largest of {}: {template:?}",
            chooser.stage,
            open.sets.len()
        ),
        None => format!("chosen by `{}`: {template:?}", chooser.stage),
    })
}

/// Whose scores a stage learns.
fn taught(stage: &Stage) -> Option<String> {
    let teachers = stage.start.teachers.as_slice();
    let first = visible::line(&teachers.first()?.stage);
    let weighed = teachers.iter().any(|own| own.judge.is_some());
    if let Some(drawing) = &stage.start.drawing {
        let by = if weighed { ", by their accuracy" } else { "" };
        let whom = match teachers.len() {
            1 => format!("`{first}` labels"),
            n => format!("{n} stages label{by}, `{first}` first"),
        };
        return Some(match stage.labelled_rows() {
            Some(own) => format!(
                "{} labelled rows and {} that {whom}; each of those counts as the longest there is",
                Count(own),
                Count(drawing.beside(own))
            ),
            None => format!("labelled rows and others that {whom}"),
        });
    }
    Some(match (teachers.len(), weighed) {
        (1, _) => format!("the scores of `{first}`"),
        (n, false) => format!("the mean scores of {n} stages, `{first}` first"),
        (n, true) => {
            format!("the mean scores of {n} stages by their accuracy, `{first}` first")
        }
    })
}

/// What stands behind a stage's texts.
fn demonstrations(stage: &Stage) -> Option<String> {
    let shown = stage.start.prompt.as_ref()?.demonstrations.as_ref()?;
    let draws = keys::DRAWS.find(&stage.filled.values).unwrap_or(1);
    let averaged = if draws > 1 {
        format!(", mean of {draws} draws")
    } else {
        String::new()
    };
    Some(format!(
        "{} of each class from `{}`, of {} tokens at most, seed {}{averaged}",
        shown.each, shown.from, shown.length, shown.seed
    ))
}

/// A number of texts.
fn texts(count: u64) -> String {
    format!("{} text{}", Count(count), if count == 1 { "" } else { "s" })
}

/// The estimate by class.
fn memory(out: &mut String, stage: &Stage) {
    let e = &stage.estimate;
    let _ = writeln!(
        out,
        "  memory      {} peak, at {}",
        Bytes(e.peak()),
        e.peak_op
    );
    let classes = [
        ("frozen", e.frozen_weights),
        ("trained", e.trainable_weights),
        ("gradients", e.gradients),
        ("optimizer", e.optimizer),
        ("cache", e.cache),
        ("activations", e.activations),
        ("transient", e.transient),
        ("workspace", e.workspace),
    ];
    let mut line = String::from("             ");
    for (name, bytes) in classes.into_iter().filter(|(_, b)| *b > 0) {
        let item = format!(" {name} {}", Bytes(bytes));
        if line.chars().count() + item.chars().count() > 79 {
            let _ = writeln!(out, "{line}");
            line = String::from("             ");
        }
        line.push_str(&item);
        line.push(',');
    }
    let _ = writeln!(out, "{}", line.trim_end_matches(','));
    match e.residence {
        Residence::Cpu => {
            let _ = writeln!(out, "  host        {} beside tensors", Bytes(e.host));
        }
        Residence::Host => {
            let _ = writeln!(
                out,
                "  host        {} beside tensors; the stage runs on the host",
                Bytes(e.host)
            );
        }
        Residence::Device(o) => {
            let _ = writeln!(
                out,
                "  device      {}: tensors {}, pool {}, cuBLAS {},\n              context {}, code {}",
                Bytes(e.needs()),
                Bytes(e.peak()),
                Bytes(o.pool_granularity),
                Bytes(o.cublas_workspace),
                Bytes(o.context),
                Bytes(o.modules)
            );
            let _ = writeln!(out, "  host        {}", Bytes(e.host));
        }
    }
}

/// Site paths with block numbers folded: `bert.encoder.layer.*.attention.self.query ×3`.
fn fold(sites: &[String]) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for site in sites {
        let folded: Vec<&str> = site
            .split('.')
            .map(|p| if p.parse::<u64>().is_ok() { "*" } else { p })
            .collect();
        let folded = folded.join(".");
        match kinds.iter_mut().find(|(k, _)| *k == folded) {
            Some((_, n)) => *n += 1,
            None => kinds.push((folded, 1)),
        }
    }
    let list: Vec<String> = kinds
        .into_iter()
        .map(|(k, n)| format!("\n                {k} ×{n}"))
        .collect();
    list.concat()
}
