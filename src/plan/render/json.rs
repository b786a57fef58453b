//! The plan for programs.

use serde_json::{Value as Json, json};

use super::super::estimate::{Estimate, Residence};
use super::super::{Plan, Stage};
use super::{adapted, batches, generation, recomputed, supervised};
use crate::library::data::form::Supervision;
use crate::library::stage::job::Routine;
use crate::library::stage::keys;
use crate::program::device::{self, Device};

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
            let teachers = s.start.teachers.iter().flat_map(|own| {
                let judge = own.judge.as_ref().map(|judge| edge(judge, "weight"));
                let port = if s.start.drawing.is_some() { "labels" } else { "scores" };
                std::iter::once(edge(&own.stage, port)).chain(judge).collect::<Vec<_>>()
            });
            let prompt = chooser.map(|c| edge(&c.stage, "prompt"));
            model.into_iter().chain(prompt).chain(teachers).collect::<Vec<_>>()
        })
        .collect();
    let axes: Vec<Json> = plan
        .axes
        .iter()
        .map(|a| json!({ "name": a.name, "values": a.values, "repeats": a.repeats }))
        .collect();
    json!({ "schema": 1, "recipe": recipe, "stages": stages, "edges": edges, "axes": axes, "points": plan.points })
}

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
        "device": match e.residence {
            Residence::Device(_) => device,
            Residence::Cpu | Residence::Host => "cpu",
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
            "max_new_tokens": generate.settings.max_new_tokens, "texts": generate.places, "tokens": generate.capacity,
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

/// Adds the keys and values that a generation keeps to the classes of memory; other stages have no such class.
pub(in super::super) fn with_cache(memory: &mut Json, e: &Estimate) {
    if let Some(memory) = memory.as_object_mut().filter(|_| e.cache > 0) {
        memory.insert("cache".to_owned(), json!(e.cache));
    }
}

/// What a device takes beside tensors and workspace, and all it has; null on the host.
fn overhead_json(e: &Estimate) -> Json {
    match e.residence {
        Residence::Device(o) => json!({
            "pool_granularity": o.pool_granularity, "cublas_workspace": o.cublas_workspace,
            "context": o.context, "modules": o.modules, "total": e.needs(),
        }),
        Residence::Cpu | Residence::Host => Json::Null,
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

/// Sites each method acts on.
fn placement(stage: &Stage) -> Vec<String> {
    adapted(stage).map(|s| s.path.clone()).collect()
}

fn steps(stage: &Stage) -> u64 {
    match &stage.job.routine {
        Routine::Fit(fit) => fit.steps,
        Routine::Score(_) | Routine::Choose(_) | Routine::Fold(_) => 0,
    }
}

/// Data sheets count in these.
const GIGA: u64 = 1_000_000_000;
