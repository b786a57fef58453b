//! An adapter in peft's format: LoRA on the model's linear maps, and modules that were trained whole.
//!
//! **Invariant:** either everything that was trained is in it, or it is not written.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::machine::Runner;
use super::origin::Base;
use super::state::Initial;
use crate::files::RunError;
use crate::files::peft;
use crate::library::method::{Method, PeftAdapter};
use crate::library::params::{Owner, Param, ParamKind};
use crate::library::placement::Site;
use crate::library::schema::Values;
use crate::plan::Stage;

/// A tensor of the file: name, shape, elements.
type Named = (String, Vec<usize>, Vec<f32>);

/// A site with the method that is on it and what peft's LoRA has to be there.
struct Adapted<'a> {
    site: &'a Site,
    method: &'static dyn Method,
    values: &'a Values,
    lora: PeftAdapter,
}

/// Writes `dir` in peft's format, if the methods have an equal there and the base is one that can be named.
///
/// # Errors
/// What the file system says.
pub(super) fn write_peft(
    dir: &Path,
    stage: &Stage,
    base: &Base,
    runner: &mut Runner,
    initial: &Initial,
) -> Result<(), RunError> {
    // Random weights are in no file that peft could load.
    let (Some(leaves), Some(name)) = (&stage.leaves, &base.name) else {
        return Ok(());
    };
    let tuning = &leaves.tuning;
    if tuning.methods.iter().any(|(m, _)| m.ladders()) {
        return Ok(());
    }
    let mut adapted = Vec::new();
    for site in &stage.job.sites {
        let Some((method, values)) = tuning.at(site) else {
            continue;
        };
        let Some(lora) = method.peft_config(values) else {
            return Ok(());
        };
        adapted.push(Adapted {
            site,
            method,
            values,
            lora,
        });
    }
    let Some(whole) = whole_modules(stage, &adapted) else {
        return Ok(());
    };
    let mut tensors = Vec::new();
    for at in &adapted {
        tensors.extend(pair(at, runner, initial)?);
    }
    if adapted.is_empty() {
        tensors.extend(nothing(stage).into_iter().flatten());
    }
    let kept = |p: &&Param| p.owner == Owner::Head || whole.contains(&p.module());
    for param in stage.job.params.iter().filter(kept) {
        tensors.push(plain(param, runner)?);
    }
    let targets: Vec<String> = match adapted.as_slice() {
        [] => nothing(stage)
            .map(|t| module_of(&t[0].0))
            .into_iter()
            .collect(),
        list => list.iter().map(|a| a.site.path.clone()).collect(),
    };
    let mut keys = sizes(&adapted);
    let mut save: Vec<String> = whole.iter().map(|m| (*m).to_owned()).collect();
    if stage.start.objective.on_masked_lm() {
        keys.push(("task_type", Json::Null));
        // Without a task, this is how peft finds the class.
        let family = stage.model.family();
        keys.push((
            "auto_mapping",
            json!({
                "base_model_class": stage.model.masked_lm_class(),
                "parent_library": format!("transformers.models.{family}.modeling_{family}"),
            }),
        ));
    } else {
        save.extend(stage.model.head_modules().iter().map(|s| (*s).to_owned()));
    }
    keys.push(("revision", json!(base.revision)));
    peft::write(dir, name, &targets, &save, &keys, tensors)
}

fn module_of(tensor: &str) -> String {
    tensor
        .split_once(".lora_")
        .map_or("", |(module, _)| module)
        .to_owned()
}

/// The backbone's modules that were trained, in whole or in part, outside of adapters. `None` where one of them has an
/// adapter too: peft keeps no such pair. Nor does it tie a decoder to embeddings that it saves.
fn whole_modules<'a>(stage: &'a Stage, adapted: &[Adapted<'_>]) -> Option<Vec<&'a str>> {
    let mut modules: Vec<&str> = Vec::new();
    for param in &stage.job.params {
        if param.owner != Owner::Base || !param.goes_with_adapter() {
            continue;
        }
        let module = param.module();
        let decodes = stage.start.objective.on_masked_lm() && param.kind == ParamKind::Embedding;
        if decodes || adapted.iter().any(|a| a.site.path == module) {
            return None;
        }
        if !modules.contains(&module) {
            modules.push(module);
        }
    }
    Some(modules)
}

/// The keys of rank and scale: those of most sites, and patterns for the others.
fn sizes(adapted: &[Adapted<'_>]) -> Vec<(&'static str, Json)> {
    let first = adapted.first().map(|a| a.lora);
    let alike = |of: &dyn Fn(&PeftAdapter) -> Json| {
        let mut all = adapted.iter().map(|a| of(&a.lora));
        let one = all.next();
        one.filter(|one| all.all(|other| other == *one))
    };
    let rs_lora = alike(&|l| json!(l.rs_lora)) == Some(json!(true));
    // peft multiplies by alpha / rank, or alpha / √rank.
    let alpha = |lora: &PeftAdapter| {
        let rank = lora.rank as f64;
        number(lora.scale * if rs_lora { rank.sqrt() } else { rank })
    };
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for a in adapted {
        let name = regex::escape(&a.site.path);
        if first.is_some_and(|f| f.rank != a.lora.rank) {
            ranks.insert(name.clone(), json!(a.lora.rank));
        }
        if first.is_some_and(|f| alpha(&f) != alpha(&a.lora)) {
            alphas.insert(name, alpha(&a.lora));
        }
    }
    vec![
        ("r", json!(first.map_or(1, |f| f.rank))),
        ("lora_alpha", first.map_or_else(|| json!(1), |f| alpha(&f))),
        (
            "lora_dropout",
            alike(&|l| json!(l.dropout)).unwrap_or_else(|| json!(0.0)),
        ),
        ("use_rslora", json!(rs_lora)),
        ("rank_pattern", Json::Object(ranks)),
        ("alpha_pattern", Json::Object(alphas)),
    ]
}

/// A whole number where it is one but for rounding: peft declares `lora_alpha` as an integer.
fn number(x: f64) -> Json {
    let whole = x.round();
    if (x - whole).abs() <= 1e-12 * whole.abs() && whole.abs() < 1e15 {
        json!(whole as i64)
    } else {
        json!(x)
    }
}

/// A site's pair under peft's names.
fn pair(at: &Adapted<'_>, runner: &Runner, initial: &Initial) -> Result<Vec<Named>, RunError> {
    let path = &at.site.path;
    let get = |suffix: &str| -> Option<Vec<f32>> {
        let tensor = match suffix.strip_prefix("initial:") {
            Some(suffix) => initial.get(&format!("{path}.{suffix}")),
            None => runner.residents.get(&format!("{path}.{suffix}")),
        };
        Some(tensor?.slice::<f32>()?.to_vec())
    };
    let made = at.method.peft_tensors(at.values, at.site, &get);
    if made.len() != 2 {
        return Err(RunError::bug(format!(
            "the adapter on `{path}` has {} tensors for peft",
            made.len()
        )));
    }
    let named = |(suffix, dims, data)| (format!("{path}.{suffix}"), dims, data);
    Ok(made.into_iter().map(named).collect())
}

/// A pair that adds nothing, on the first linear map: peft's LoRA has to be somewhere, and here all that was learned is
/// in modules that are saved whole.
fn nothing(stage: &Stage) -> Option<[Named; 2]> {
    let mut sites = stage.job.sites.iter();
    let site = sites.find(|s| !s.role.is_head() && !s.role.is_lm())?;
    let (input, output) = (site.input as usize, site.output as usize);
    let name = |half: &str| format!("{}.lora_{half}.weight", site.path);
    Some([
        (name("A"), vec![1, input], vec![0.0; input]),
        (name("B"), vec![output, 1], vec![0.0; output]),
    ])
}

/// A parameter of a module that is saved whole.
fn plain(param: &Param, runner: &mut Runner) -> Result<Named, RunError> {
    if runner.residents.get(&param.name).is_none() {
        // The frozen part of such a module may be on the device alone.
        runner.come_home()?;
    }
    let tensor = runner.residents.get(&param.name);
    let data = tensor.map(|t| super::init::cast(t.clone(), crate::program::DType::F32));
    let data = data.as_ref().and_then(|t| t.slice::<f32>());
    let Some(data) = data else {
        return Err(RunError::bug(format!("`{}` is not in memory", param.name)));
    };
    let dims = param.shape.iter().map(|&n| n as usize).collect();
    Ok((param.name.clone(), dims, data.to_vec()))
}
