//! The plan for people and programs: text, JSON, DOT, Mermaid.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use indexmap::IndexMap;

use super::estimate::{Estimate, Home};
use super::{Plan, Stage};
use crate::base::units::{Bytes, Count};
use crate::base::visible;
use crate::library::data::form::Supervision;
use crate::library::net::Site;
use crate::library::stage::job::{Generate, Routine, Update};
use crate::library::stage::keys;
use crate::program::DType;
use crate::program::device::{self, Device};
use crate::program::op::Precision;

/// Data sheets count in these.
const GIGA: u64 = 1_000_000_000;

/// One stage as in `check --json`.
#[must_use]
pub fn stage_json(stage: &Stage, cached: bool, device: &str) -> Json {
    let e = &stage.estimate;
    let (total, trainable) = stage.job.parameters();
    let (batch, micro) = batches(stage);
    let mut memory = json!({
        "frozen_weights": e.frozen_weights, "trainable_weights": e.trainable_weights, "gradients": e.gradients,
        "optimizer": e.optimizer, "activations": e.activations, "transient": e.transient, "workspace": e.workspace,
        "peak": e.peak(), "peak_op": e.peak_op, "host": e.host, "device": overhead_json(e),
        "largest": e.largest.iter().map(|(what, bytes)| json!({ "what": what, "bytes": bytes })).collect::<Vec<_>>(),
    });
    with_cache(&mut memory, e);
    let mut own = json!({
        "name": stage.name.value,
        "kind": stage.filled.name,
        "methods": stage.methods(),
        "device": match e.home {
            Home::Device(_) => device,
            Home::Cpu | Home::Host => "cpu",
        },
        "fingerprint": stage.fingerprint,
        "cached": cached,
        "depends_on": stage.needs().collect::<Vec<_>>(),
        "prompt": stage.start.chooser.as_ref().map(|c| json!({
            "chosen_by": c.stage, "decided": stage.open.is_none(),
            "template": stage.start.prompt.as_ref().map(|p| &p.template.source),
        })),
        "demonstrations": stage.start.prompt.as_ref().and_then(|p| p.demonstrations.as_ref()).map(|d| json!({
            "each": d.each, "from": d.from, "length": d.length, "seed": d.seed,
        })),
        "batch": batch,
        "micro_batch": micro,
        "max_tokens": e.max_tokens,
        "recompute": keys::RECOMPUTE.get(&stage.filled.values),
        "recompute_blocks": recomputed(stage),
        "parameters": { "total": total, "trainable": trainable },
        "memory": memory,
        "flops_per_step": e.flops_per_step,
        "features": features_json(stage),
    });
    let rates = stage.job.rates();
    if let (Some(own), false) = (own.as_object_mut(), rates.is_empty()) {
        let group = |(factor, parameters)| json!({ "factor": factor, "parameters": parameters });
        own.insert("rates".to_owned(), rates.into_iter().map(group).collect());
    }
    if let (Some(own), Some(generate)) = (own.as_object_mut(), generation(stage)) {
        let said = json!({
            "max_new_tokens": generate.settings.max_new_tokens, "texts": generate.places, "tokens": generate.room,
            "cache_bytes": generate.cache_bytes(),
        });
        own.insert("generate".to_owned(), said);
    }
    let learned = supervised(stage).map(|(key, s)| (key.to_owned(), supervision_json(s)));
    let learned: serde_json::Map<String, Json> = learned.collect();
    if let (Some(own), Routine::Fit(fit)) = (own.as_object_mut(), &stage.job.routine)
        && let Some(packing) = &fit.packing
    {
        own.insert("batch_tokens".to_owned(), json!(packing.budget));
    }
    if let Some(own) = own.as_object_mut().filter(|_| !learned.is_empty()) {
        own.insert("supervision".to_owned(), Json::Object(learned));
    }
    own
}

/// What of a split is learned, for programs.
#[must_use]
pub fn supervision_json(s: &Supervision) -> Json {
    let mut own = json!({
        "rows": s.rows, "tokens": s.tokens, "learned_tokens": s.learned, "learned_share": s.share(),
        "cut_rows": s.cut, "lost_tokens": s.lost, "ended_rows": s.ended, "skipped_rows": s.skipped,
    });
    if let Some(own) = own.as_object_mut().filter(|_| s.rejected > 0) {
        own.insert("rejected_tokens".to_owned(), json!(s.rejected));
    }
    own
}

/// The same for people: `learned: 41,200 of 98,000 tokens (42.0 %), …`.
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

/// What a stage learns of its splits, by the key that names each; none where it learns labels.
fn supervised(stage: &Stage) -> impl Iterator<Item = (&'static str, &Supervision)> {
    let splits = stage.kind.splits().iter().zip(&stage.splits);
    splits.filter_map(|(key, split)| Some((*key, split.as_ref()?.supervision.as_ref()?)))
}

/// Adds the keys and values that a generation keeps to the classes of memory; other stages have no such class.
pub(super) fn with_cache(memory: &mut Json, e: &Estimate) {
    if let Some(memory) = memory.as_object_mut().filter(|_| e.cache > 0) {
        memory.insert("cache".to_owned(), json!(e.cache));
    }
}

/// What a device takes beside tensors and workspace, and all it holds; null on the host.
fn overhead_json(e: &Estimate) -> Json {
    match e.home {
        Home::Device(o) => json!({
            "pool_granularity": o.pool_granularity, "cublas_workspace": o.cublas_workspace,
            "context": o.context, "modules": o.modules, "total": e.needs(),
        }),
        Home::Cpu | Home::Host => Json::Null,
    }
}

/// The card that is planned for; null where there is none or it is not known.
#[must_use]
pub fn card_json(device: Device) -> Json {
    let Some(card) = device.card() else {
        return Json::Null;
    };
    let (major, minor) = card.capability;
    json!({
        "name": card.name, "product": card.product, "capability": format!("{major}.{minor}"),
        "multiprocessors": card.multiprocessors,
        "memory_bytes": card.memory(), "available_bytes": card.available(),
        "bytes_per_s": card.bandwidth * GIGA, "f32_flops": card.f32 * GIGA,
        "tf32_flops": card.tf32 * GIGA, "half_flops": card.half * GIGA,
        "assumed": {
            "arithmetic": device::ARITHMETIC_EFFICIENCY, "bandwidth": device::BANDWIDTH_EFFICIENCY,
            "launch_s": device::LAUNCH_SECONDS,
        },
    })
}

/// The lines of an estimate, with what they are called.
#[must_use]
pub fn lines(e: &Estimate) -> Vec<(&'static str, u64)> {
    let mut lines = vec![
        ("frozen weights", e.frozen_weights),
        ("trained weights", e.trainable_weights),
        ("gradients", e.gradients),
        ("optimizer state", e.optimizer),
        ("key-value cache", e.cache),
        ("activations kept for the backward", e.activations),
        ("transient", e.transient),
        ("workspace of the kernels", e.workspace),
    ];
    if e.cache == 0 {
        lines.retain(|(name, _)| *name != "key-value cache");
    }
    if let Home::Device(o) = e.home {
        lines.extend([
            ("granularity of the pool", o.pool_granularity),
            ("cuBLAS workspace", o.cublas_workspace),
            ("CUDA context", o.context),
            ("module code", o.modules),
        ]);
    }
    lines
}

/// Blocks whose inner values are made again in the backward.
#[must_use]
pub fn recomputed(stage: &Stage) -> u64 {
    let layers = stage.model.facts().layers;
    match keys::RECOMPUTE.get(&stage.filled.values) {
        true => keys::RECOMPUTE_BLOCKS
            .get(&stage.filled.values)
            .unwrap_or(layers)
            .min(layers),
        false => 0,
    }
}

/// Kept results of the frozen part, or the reason why there are none.
fn features_json(stage: &Stage) -> Json {
    match (stage.job.features(), &stage.not_kept) {
        (Some(f), _) => json!({
            "values": f.kept.len(), "dtype": f.types(), "bytes": f.bytes, "examples": f.examples.iter().sum::<u64>(),
            "everything": f.everything, "share_saved": f.share,
        }),
        (None, Some(why)) => json!({ "values": 0, "why": why }),
        (None, None) => Json::Null,
    }
}

/// The same as a line; nothing where the question does not arise.
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

/// Examples of a step and of a program run.
#[must_use]
pub fn batches(stage: &Stage) -> (u64, u64) {
    match &stage.job.routine {
        Routine::Fit(fit) => (
            fit.batch / fit.group.max(1),
            fit.micro_batch / fit.group.max(1),
        ),
        Routine::Score(score) => {
            let rows = score.batch / score.group.max(1);
            (rows, rows)
        }
        Routine::Choose(choose) => (choose.batch, choose.batch),
        Routine::Fold(_) => (0, 0),
    }
}

/// The plan as JSON.
#[must_use]
pub fn json(plan: &Plan, recipe: &str, cached: &dyn Fn(&Stage) -> bool, device: &str) -> Json {
    let stages: Vec<Json> = plan
        .stages
        .iter()
        .map(|s| {
            let mut json = stage_json(s, cached(s), device);
            if let Some(map) = json.as_object_mut() {
                map.insert("placement".into(), json!(placement(s)));
                map.insert("steps".into(), json!(steps(s)));
                map.insert("parts".into(), json!(s.parts));
                map.insert("stage".into(), json!(s.declared));
                let at: serde_json::Map<String, Json> =
                    s.at.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
                map.insert("at".into(), Json::Object(at));
            }
            json
        })
        .collect();
    let edges: Vec<Json> = plan
        .stages
        .iter()
        .flat_map(|s| {
            let edge = |from: &String, port: &str| json!({ "from": from, "to": s.name.value, "port": port });
            let model = s.parent.as_ref().map(|p| edge(p, "model"));
            let chooser = s.start.chooser.as_ref();
            model.into_iter().chain(chooser.map(|c| edge(&c.stage, "prompt")))
        })
        .collect();
    let axes: Vec<Json> = plan
        .axes
        .iter()
        .map(|a| json!({ "name": a.name, "values": a.values, "repeats": a.repeats }))
        .collect();
    json!({ "schema": 1, "recipe": recipe, "stages": stages, "edges": edges, "axes": axes, "points": plan.points })
}

/// The length of the longest stage name, but at least so much: the width of its column.
#[must_use]
pub fn name_width<'a>(names: impl Iterator<Item = &'a str>, least: usize) -> usize {
    names.map(str::len).max().unwrap_or(0).max(least)
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

/// Sites each method acts on.
fn placement(stage: &Stage) -> Vec<String> {
    adapted(stage).map(|s| s.path.clone()).collect()
}

/// The sites that methods are at.
fn adapted(stage: &Stage) -> impl Iterator<Item = &Site> {
    let sites = stage.job.sites.iter();
    sites.filter(|s| !stage.trained_with.stack(s).is_empty())
}

/// The same by what they are: "18 linear maps", with their paths.
fn placements(stage: &Stage) -> IndexMap<&'static str, Vec<String>> {
    let mut kinds: IndexMap<&str, Vec<String>> = IndexMap::new();
    for site in adapted(stage) {
        let own = kinds.entry(site.part.kind()).or_default();
        own.push(site.path.clone());
    }
    kinds
}

fn steps(stage: &Stage) -> u64 {
    match &stage.job.routine {
        Routine::Fit(fit) => fit.steps,
        Routine::Score(_) | Routine::Choose(_) | Routine::Fold(_) => 0,
    }
}

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
        let e = &stage.estimate;
        let (total, trainable) = stage.job.parameters();
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
        match &stage.job.routine {
            Routine::Fit(fit) => {
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
                    fit.steps, e.max_tokens
                );
                if recomputed(stage) > 0 {
                    let _ = writeln!(
                        out,
                        "  recompute   the inner values of {} of {} blocks",
                        recomputed(stage),
                        facts.layers
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
            Routine::Score(score) => {
                let metrics: Vec<&str> = score.metrics.iter().map(|m| m.schema().name).collect();
                let _ = writeln!(
                    out,
                    "  scoring     {} in batches of {}",
                    metrics.join(", "),
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
        for (key, learned) in supervised(stage) {
            let _ = writeln!(out, "  {key:<11} {}", supervision(learned));
        }
        if let Some(prompt) = prompt(stage) {
            let _ = writeln!(out, "  prompt      {prompt}");
        }
        if let Some(line) = demonstrations(stage) {
            let _ = writeln!(out, "  shown       {line}");
        }
        if let Some(line) = features_text(stage) {
            let _ = writeln!(out, "  features    {line}");
        }
        if let Some(generate) = generation(stage) {
            let _ = writeln!(
                out,
                "  generates   {} at once, each of at most {} tokens with its prompt, {} of them new; {} of caches",
                texts(generate.places),
                Count(generate.room),
                Count(generate.settings.max_new_tokens),
                Bytes(generate.cache_bytes())
            );
        }
        memory(&mut out, stage);
        let _ = writeln!(
            out,
            "  fingerprint {}",
            stage
                .fingerprint
                .as_deref()
                .map_or("unknown", |f| f.get(..16).unwrap_or(f))
        );
    }
    out
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

/// What is generated behind the prompts of a stage's split.
fn generation(stage: &Stage) -> Option<&Generate> {
    match &stage.job.routine {
        Routine::Score(score) => score.generate.as_ref(),
        _ => None,
    }
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
    match e.home {
        Home::Cpu => {
            let _ = writeln!(out, "  host        {} beside tensors", Bytes(e.host));
        }
        Home::Host => {
            let _ = writeln!(
                out,
                "  host        {} beside tensors; the stage runs on the host",
                Bytes(e.host)
            );
        }
        Home::Device(o) => {
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

/// The stage graph for Graphviz.
#[must_use]
pub fn dot(plan: &Plan) -> String {
    let mut out = String::from("digraph recipe {\n  rankdir = LR;\n  node [shape = box];\n");
    for stage in &plan.stages {
        let own = quoted(&[&stage.name.value]);
        let lines = label(stage);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let _ = writeln!(out, "  {own} [label = {}];", quoted(&lines));
        // No stage has a blank in its name in front of any `@`.
        let from = match &stage.parent {
            Some(parent) => quoted(&[parent]),
            None => quoted(&[&format!("model {}", stage.start.model.name)]),
        };
        let _ = writeln!(out, "  {from} -> {own} [label = \"model\"];");
        if let Some(chooser) = &stage.start.chooser {
            let from = quoted(&[&chooser.stage]);
            let _ = writeln!(out, "  {from} -> {own} [label = \"prompt\"];");
        }
    }
    out.push_str("}\n");
    out
}

/// Lines as a string of DOT.
fn quoted(lines: &[&str]) -> String {
    let escaped = lines
        .iter()
        .map(|l| visible::line(l).replace('\\', "\\\\").replace('"', "\\\""));
    format!("\"{}\"", escaped.collect::<Vec<_>>().join("\\n"))
}

/// The stage graph for Mermaid. Its identifiers are counted: words such as `end` have a meaning there, and
/// a name may hold anything.
#[must_use]
pub fn mermaid(plan: &Plan) -> String {
    let mut out = String::from("flowchart LR\n");
    let names: Vec<&str> = plan.stages.iter().map(|s| s.name.value.as_str()).collect();
    let id = |name: &str| match names.iter().position(|n| *n == name) {
        Some(i) => format!("stage{i}"),
        None => "unknown".to_owned(),
    };
    let mut models: Vec<&str> = Vec::new();
    for (i, stage) in plan.stages.iter().enumerate() {
        let lines: Vec<String> = label(stage).iter().map(|l| entities(l)).collect();
        let _ = writeln!(out, "  stage{i}[\"{}\"]", lines.join("<br/>"));
        let from = match &stage.parent {
            Some(parent) => id(parent),
            None => {
                let name = stage.start.model.name.as_str();
                let known = models.iter().position(|m| *m == name);
                let at = known.unwrap_or_else(|| {
                    let at = models.len();
                    let _ = writeln!(out, "  model{at}([\"model {}\"])", entities(name));
                    models.push(name);
                    at
                });
                format!("model{at}")
            }
        };
        let _ = writeln!(out, "  {from} -->|model| stage{i}");
        if let Some(chooser) = &stage.start.chooser {
            let _ = writeln!(out, "  {} -->|prompt| stage{i}", id(&chooser.stage));
        }
    }
    out
}

/// A text within a quoted label of Mermaid, where `#` begins an entity and markup is HTML.
fn entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible::line(text).chars() {
        match c {
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// What stands in a stage's box.
fn label(stage: &Stage) -> Vec<String> {
    let mut lines = vec![format!("{} = {}", stage.name.value, stage.filled.name)];
    let methods = stage.methods().join(", ");
    if !methods.is_empty() && stage.leaves.is_some() {
        lines.push(methods);
    }
    lines.push(Bytes(stage.estimate.peak()).to_string());
    lines
}
