//! An adapter in peft's format: LoRA on the model's linear maps, and modules that were trained whole.
//!
//! **Invariant:** either everything that was trained is in it, or it is not written.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::bare;
use super::base::Base;
use super::patterns::{by_place, shared, sizes, without_idle};
use super::prompt;
use crate::exec::interpreter::Runner;
use crate::exec::load::Initial;
use crate::files::RunError;
use crate::files::peft;
use crate::library::method::{Method, PeftForm, PeftKeys, PeftTensor, Product, Tuning};
use crate::library::net::Site;
use crate::library::net::{Owner, Param, ParamKind};
use crate::library::schema::Values;
use crate::plan::Stage;
use crate::program::op::Tensor;

/// The model's name inside the file's names, which are given below the outermost module's.
const MODEL: &str = "model";
/// The same before a name.
const INNER: &str = "model.";

/// The key of trained rows of tables, by which adapters that are such are known.
const ROWS: &str = "token_indices";

/// A type of adapter that peft knows for few models.
const GATED: &str = "ADAPTION_PROMPT";
const GATED_MODELS: &[&str] = &["llama", "mistral"];

/// The type whose class in peft (0.21) passes no `token_type_ids` on, so that a BERT would read pairs as one text; an adapter without a
/// type is not wrapped in such a class.
const WITHOUT_SEGMENTS: &str = "QUESTION_ANS";

/// A site with the method that is on it and what it is to peft.
struct Adapted<'a> {
    site: &'a Site,
    method: &'static dyn Method,
    values: &'a Values,
    form: PeftForm,
}

/// Keys of which some of the adapted places have other values than the first, in peft's patterns.
fn keys_by_place(keys: &PeftKeys, adapted: &[Adapted<'_>]) -> PeftKeys {
    let places: Vec<(&str, &[(&'static str, Json)])> = adapted
        .iter()
        .map(|a| (a.site.path.as_str(), a.form.keys.as_slice()))
        .collect();
    by_place(keys, &places)
}

/// Writes `dir` in peft's format, if the methods have an equal there and the base is one that can be named.
///
/// # Errors
/// What the file system says.
pub(in crate::exec) fn write_peft(
    dir: &Path,
    stage: &Stage,
    base: &Base,
    runner: &mut Runner,
    initial: &Initial,
) -> Result<(), RunError> {
    // Random weights are in no file that peft could load.
    let (Some(hands_on), Some(name)) = (&stage.hands_on, &base.name) else {
        return Ok(());
    };
    let tuning = &hands_on.tuning;
    let Some(adapted) = adapted(stage, tuning) else {
        return Ok(());
    };
    let (rows, mut adapted) = rows_beside(stage, adapted);
    let Some((form, whole)) = form_of(stage, &adapted).zip(whole_modules(stage, &adapted)) else {
        return Ok(());
    };
    if !rows.is_empty() && form.kind != "LORA" {
        return Ok(());
    }
    let sites: Vec<&Site> = adapted.iter().map(|a| a.site).collect();
    let is_prompt = prompt::KINDS.contains(&form.kind);
    let mut tensors = Vec::new();
    let mut sizes_of = Vec::new();
    if let Some(first) = adapted.first() {
        let facts = stage.model.facts();
        sizes_of = first.method.prompt_keys(first.values, facts, &sites);
        if form.kind == GATED
            && (sizes_of.is_empty() || !GATED_MODELS.contains(&stage.model.family()))
        {
            return Ok(());
        }
        if is_prompt {
            if sizes_of.is_empty() {
                return Ok(());
            }
            let of = (first.method, first.values);
            let Some((dims, data)) = prompt::matrix(of, &sites, tuning, runner)? else {
                return Ok(());
            };
            tensors.push((peft::PROMPT.to_owned(), dims, data));
        }
    }
    for at in adapted.iter_mut().filter(|_| !is_prompt) {
        tensors.extend(of_site(at, runner, initial)?);
    }
    let form = adapted.first().map_or(form, |a| a.form.clone());
    let mut keys = form.keys;
    keys.extend(keys_by_place(&keys, &adapted));
    for at in &rows {
        let inside = |(name, dims, data): PeftTensor| (beside(&name), dims, data);
        tensors.extend(own_tensors(at, runner, initial)?.into_iter().map(inside));
    }
    keys.extend(indices_beside(&rows));
    let of = (tuning, adapted.as_slice(), is_prompt);
    let Some((own, made)) = of_methods(of, runner)? else {
        return Ok(());
    };
    keys.extend(own);
    tensors.extend(made);
    let mut targets: Vec<String> = adapted.iter().map(|a| a.site.path.clone()).collect();
    if adapted.is_empty()
        && let Some(site) = idle_site(stage)
    {
        tensors.extend(nothing(site));
        targets.push(site.path.clone());
    }
    tensors.extend(whole_tensors((stage, &whole, is_prompt), runner)?);
    keys.extend(sizes_of);
    if let Some(first) = adapted.first() {
        keys.extend(first.method.peft_targets(first.values, &sites));
    }
    keys.push(("peft_type", json!(form.kind)));
    if let Some(product) = form.product {
        let own = |a: &Adapted<'_>| Some((a.site.path.clone(), a.form.product?));
        let products: Vec<(String, Product)> = adapted.iter().filter_map(own).collect();
        keys.extend(sizes(product, &products));
    }
    let whole = whole.iter().map(|m| (*m).to_owned()).collect();
    finish(
        dir,
        (stage, base, name),
        (keys, targets, whole),
        (tensors, None),
    )
}

/// Trained rows of tables that are written beside a LoRA, and what else there is: peft's own type for them knows no other
/// adapter and saves no head.
fn rows_beside<'a>(
    stage: &Stage,
    adapted: Vec<Adapted<'a>>,
) -> (Vec<Adapted<'a>>, Vec<Adapted<'a>>) {
    let own = |a: &Adapted<'_>| a.form.keys.iter().any(|(key, _)| *key == ROWS);
    let more = |p: &Param| p.in_adapter() && p.owner != Owner::Adapter;
    let alone = adapted.iter().all(own) && !stage.job.params.iter().any(more);
    // One list is of all tables there.
    let first = adapted.first().map(|a| a.form.clone());
    if alone && adapted.iter().all(|a| Some(&a.form) == first.as_ref()) {
        return (Vec::new(), adapted);
    }
    adapted.into_iter().partition(own)
}

/// The name of trained rows beside a LoRA.
fn beside(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((module, own)) => format!("{module}.token_adapter.{own}"),
        None => name.to_owned(),
    }
}

/// Which rows of which tables were trained beside a LoRA.
fn indices_beside(rows: &[Adapted<'_>]) -> PeftKeys {
    let mut of_tables = Map::new();
    for at in rows {
        if let Some((_, list)) = at.form.keys.iter().find(|(key, _)| *key == ROWS) {
            of_tables.insert(at.site.path.clone(), list.clone());
        }
    }
    match of_tables.is_empty() {
        true => PeftKeys::new(),
        false => vec![("trainable_token_indices", Json::Object(of_tables))],
    }
}

/// What the file says of all sites: a file has one kind of adapter, which says one thing of all of them but for ranks
/// and factors. `None` where they differ, or where peft has no equal on a transposed weight.
fn form_of(stage: &Stage, adapted: &[Adapted<'_>]) -> Option<PeftForm> {
    let form = adapted.first().map_or_else(idle, |a| a.form.clone());
    let alike =
        |a: &Adapted<'_>| (a.form.kind, shared(&a.form.keys)) == (form.kind, shared(&form.keys));
    let fits = |a: &Adapted<'_>| {
        let transposed = stage.model.transposed(&format!("{}.weight", a.site.path));
        !transposed || (a.method.peft_turned() && a.method.peft_takes_transposed())
    };
    adapted.iter().all(|a| alike(a) && fits(a)).then_some(form)
}

/// What methods write of all their sites together, and of the tensors that sites share; `None` where peft has no equal.
fn of_methods(
    (tuning, adapted, is_prompt): (&Tuning, &[Adapted<'_>], bool),
    runner: &Runner,
) -> Result<Option<(PeftKeys, Vec<PeftTensor>)>, RunError> {
    let (mut keys, mut tensors) = (PeftKeys::new(), Vec::new());
    for (method, filled) in &tuning.methods {
        let sites = adapted
            .iter()
            .filter(|a| a.method.schema().name == method.schema().name);
        let sites: Vec<&Site> = sites.map(|a| a.site).collect();
        let get = |name: &str| numbers(runner.residents.get(name)?);
        let Some((own, made)) = method.peft_together(&filled.values, &sites, &get) else {
            return Ok(None);
        };
        keys.extend(own);
        tensors.extend(
            made.into_iter()
                .map(|(name, dims, data)| (format!("{MODEL}.{name}"), dims, data)),
        );
    }
    let shares = |(m, _): &&(&'static dyn Method, _)| m.shares() && !is_prompt;
    for (method, filled) in tuning.methods.iter().filter(shares) {
        let get = |name: &str| Some(runner.residents.get(name)?.slice::<f32>()?.to_vec());
        let Some(shared) = method.peft_shared(&filled.values, &get) else {
            return Err(RunError::bug("a shared tensor is not in memory"));
        };
        tensors.extend(shared);
    }
    Ok(Some((keys, tensors)))
}

/// The tensors of the head, and of the modules that are saved whole.
fn whole_tensors(
    (stage, whole, is_prompt): (&Stage, &[&str], bool),
    runner: &mut Runner,
) -> Result<Vec<PeftTensor>, RunError> {
    let mut tensors = Vec::new();
    let kept = |p: &&Param| p.owner == Owner::Head || whole.contains(&p.module());
    for param in stage.job.params.iter().filter(kept) {
        let turned = stage.model.transposed(&param.name);
        let (name, dims, data) = plain(param, turned, runner)?;
        // A prompt is no module around the model's.
        let inner = name.strip_prefix(INNER).filter(|_| is_prompt);
        let name = inner.map_or_else(|| name.clone(), str::to_owned);
        tensors.push((name, dims, data));
    }
    Ok(tensors)
}

/// A LoRA in parts.
pub(in crate::exec) struct Parts {
    /// The linear maps that it is on, with ranks and factors.
    pub(in crate::exec) products: Vec<(String, Product)>,
    /// Modules of the backbone that are saved whole.
    pub(in crate::exec) whole: Vec<String>,
    /// All tensors, by names below the outermost module; matrices as the model has them.
    pub(in crate::exec) tensors: Vec<PeftTensor>,
    /// Its `task_type`, where it has no head and that is not the stage's.
    pub(in crate::exec) task: Option<Option<String>>,
}

/// Writes a LoRA.
///
/// # Errors
/// What the file system says.
pub(in crate::exec) fn write_parts(
    dir: &Path,
    stage: &Stage,
    base: &Base,
    parts: Parts,
) -> Result<(), RunError> {
    let (Some(name), Some((_, first))) = (&base.name, parts.products.first()) else {
        return Err(RunError::bug("a LoRA without a base or without pairs"));
    };
    let mut keys = PeftForm::lora(*first, false).keys;
    keys.push(("peft_type", json!("LORA")));
    keys.extend(sizes(*first, &parts.products));
    let targets = parts.products.iter().map(|(path, _)| path.clone());
    let targets: Vec<String> = targets.collect();
    let mut tensors = parts.tensors;
    for (name, dims, data) in &mut tensors {
        let own = name.strip_prefix(&format!("{MODEL}.")).unwrap_or(name);
        if let (true, &[_, width]) = (stage.model.transposed(own), dims.as_slice()) {
            *data = super::columns(data, width).flatten().collect();
            dims.reverse();
        }
    }
    finish(
        dir,
        (stage, base, name),
        (keys, targets, parts.whole),
        (tensors, parts.task),
    )
}

/// Adds what every adapter of a stage says, and writes it.
fn finish(
    dir: &Path,
    (stage, base, name): (&Stage, &Base, &str),
    (mut keys, mut targets, mut save): (Vec<(&'static str, Json)>, Vec<String>, Vec<String>),
    (mut tensors, task): (Vec<PeftTensor>, Option<Option<String>>),
) -> Result<(), RunError> {
    let weight = |target: &String| stage.model.transposed(&format!("{target}.weight"));
    if targets.iter().any(weight) {
        // Such maps are peft's `Conv1D`, which only the kinds with this key have a layer for.
        if !keys.iter().any(|(key, _)| *key == "fan_in_fan_out") {
            return Ok(());
        }
        keys.retain(|(key, _)| *key != "fan_in_fan_out");
        keys.push(("fan_in_fan_out", json!(true)));
    }
    if let Some(task) = task {
        keys.push(("task_type", json!(task)));
        keys.push(("revision", json!(base.revision)));
        return peft::write(dir, name, &targets, &save, &keys, tensors);
    }
    let task = stage.start.task.as_ref();
    let kind = task.peft_type().filter(|kind| *kind != WITHOUT_SEGMENTS);
    keys.push(("task_type", json!(kind)));
    if !task.needs().is_lm() {
        let own = task.head_modules(stage.model.as_ref());
        save.extend(own.iter().map(|s| (*s).to_owned()));
    }
    if let Some(outer) = bare::outer(stage) {
        bare::names(&outer, &mut keys, [&mut targets, &mut save], &mut tensors);
    }
    if task.peft_type().is_none() {
        // This is how peft finds the class then.
        let family = stage.model.family();
        keys.push((
            "auto_mapping",
            json!({
                "base_model_class": task.exported_class(stage.model.as_ref()),
                "parent_library": format!("transformers.models.{family}.modeling_{family}"),
            }),
        ));
    }
    keys.push(("revision", json!(base.revision)));
    peft::write(dir, name, &targets, &save, &keys, tensors)
}

/// The sites with a method each; `None` where peft has no equal of them. It has one tuner a module.
fn adapted<'a>(stage: &'a Stage, tuning: &'a Tuning) -> Option<Vec<Adapted<'a>>> {
    if tuning.methods.iter().any(|(m, _)| m.ladders()) {
        return None;
    }
    let mut adapted = Vec::new();
    for site in &stage.job.sites {
        match tuning.stack(site)[..] {
            [] => {}
            [(method, values)] => adapted.push(Adapted {
                site,
                method,
                values,
                form: method.peft_at(values, site)?,
            }),
            _ => return None,
        }
    }
    Some(adapted)
}

/// The backbone's modules that were trained, in whole or in part, outside of adapters. `None` where one of them has an
/// adapter too: peft keeps no such pair. Nor does it tie a decoder to embeddings that it saves.
fn whole_modules<'a>(stage: &'a Stage, adapted: &[Adapted<'_>]) -> Option<Vec<&'a str>> {
    let mut modules: Vec<&str> = Vec::new();
    for param in &stage.job.params {
        if param.owner != Owner::Base || !param.in_adapter() {
            continue;
        }
        let module = param.module();
        let at = adapted.iter().find(|a| a.site.path == module);
        if at.is_some_and(|a| a.method.trains_site()) {
            continue;
        }
        let decodes = stage.start.task.needs().is_lm() && param.kind == ParamKind::Embedding;
        if decodes || at.is_some() {
            return None;
        }
        if !modules.contains(&module) {
            modules.push(module);
        }
    }
    Some(modules)
}

/// A LoRA that stands for no adapter at all.
fn idle() -> PeftForm {
    let product = Product {
        rank: 1,
        scale: 1.0,
        dropout: 0.0,
        rs_lora: false,
    };
    PeftForm::lora(product, false)
}

/// A site's tensors; a pair's rank becomes that of the rows that it needs.
fn of_site(
    at: &mut Adapted<'_>,
    runner: &Runner,
    initial: &Initial,
) -> Result<Vec<PeftTensor>, RunError> {
    let made = own_tensors(at, runner, initial)?;
    let Some(product) = &mut at.form.product else {
        return Ok(made);
    };
    let prefix = format!("{MODEL}.{}.", at.site.path);
    let own = |name: String| {
        name.strip_prefix(&prefix)
            .map(str::to_owned)
            .unwrap_or(name)
    };
    let made = made
        .into_iter()
        .map(|(name, dims, data)| (own(name), dims, data));
    let (made, rank) = without_idle(made.collect());
    product.rank = rank.unwrap_or(product.rank);
    let named = |(name, dims, data)| (format!("{prefix}{name}"), dims, data);
    Ok(made.into_iter().map(named).collect())
}

/// A site's tensors under peft's names.
fn own_tensors(
    at: &Adapted<'_>,
    runner: &Runner,
    initial: &Initial,
) -> Result<Vec<PeftTensor>, RunError> {
    let path = &at.site.path;
    let get = |suffix: &str| -> Option<Vec<f32>> {
        let tensor = match suffix.strip_prefix("initial:") {
            Some(suffix) => initial.get(&format!("{path}.{suffix}")),
            None => runner.residents.get(&format!("{path}.{suffix}")),
        };
        numbers(tensor?)
    };
    let Some(made) = at.method.peft_tensors(at.values, at.site, &get) else {
        return Err(RunError::bug(format!(
            "the adapter on `{path}` lacks a tensor for peft"
        )));
    };
    let named = |(suffix, dims, data)| (format!("{MODEL}.{path}.{suffix}"), dims, data);
    Ok(made.into_iter().map(named).collect())
}

/// A tensor's numbers; of places, numbers with their bits.
fn numbers(tensor: &Tensor) -> Option<Vec<f32>> {
    match tensor.slice::<u32>() {
        Some(places) => Some(places.iter().map(|&p| f32::from_bits(p)).collect()),
        None => Some(tensor.slice::<f32>()?.to_vec()),
    }
}

/// The first linear map: peft's LoRA has to be somewhere, and here all that was learned is in modules that are saved
/// whole.
fn idle_site(stage: &Stage) -> Option<&Site> {
    let mut sites = stage.job.sites.iter();
    sites.find(|s| s.is_linear() && !s.role.is_head() && !s.role.is_lm())
}

/// A pair that adds nothing to a linear map.
fn nothing(site: &Site) -> [PeftTensor; 2] {
    let (input, output) = (site.input() as usize, site.output() as usize);
    let name = |half: &str| format!("{MODEL}.{}.lora_{half}.weight", site.path);
    [
        (name("A"), vec![1, input], vec![0.0; input]),
        (name("B"), vec![output, 1], vec![0.0; output]),
    ]
}

/// A parameter of a module that is saved whole.
fn plain(param: &Param, turned: bool, runner: &mut Runner) -> Result<PeftTensor, RunError> {
    if runner.residents.get(&param.name).is_none() {
        // The frozen part of such a module may be on the device alone.
        runner.fetch_all()?;
    }
    let tensor = runner.residents.get(&param.name);
    let data = tensor.map(|t| crate::exec::load::init::cast(t.clone(), crate::program::DType::F32));
    let data = data.as_ref().and_then(|t| t.slice::<f32>());
    let Some(data) = data else {
        return Err(RunError::bug(format!("`{}` is not in memory", param.name)));
    };
    let mut dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
    let name = format!("{MODEL}.{}", param.name);
    if let (true, &[_, width]) = (turned, dims.as_slice()) {
        let data = super::columns(data, width).flatten().collect();
        dims.reverse();
        return Ok((name, dims, data));
    }
    Ok((name, dims, data.to_vec()))
}
