//! Adapters of the Python library `peft` against a model: the methods that they stand for, and their tensors against those
//! of the stage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::error::{BAD_ADAPTER, IDLE_ADAPTER, UNREAD_TENSORS};
use super::{Handed, Plan};
use crate::base::world::World;
use crate::base::{Diag, Diags, Span};
use crate::files::peft::PeftAdapter;
use crate::files::{near, peft};
use crate::library::combine::Rule;
use crate::library::method::{Tuning, import, keys, method};
use crate::library::model::{Model, is_lm};
use crate::library::net::{Param, ParamKind, Role};
use crate::library::peft::{Fitted, Group, MERGE_INSTEAD, Stored};
use crate::library::placement::{Pattern, Placement};
use crate::library::schema::{Checked, Default, Fallback, Filled, Schema, Values};
use crate::library::stage::convert::ADAPTERS;
use crate::library::stage::job::{Job, Mix};
use crate::library::stage::network::{Anatomy, anatomy};
use crate::library::task;
use crate::library::task::Task;
use crate::resolve::Declared;

/// The adapters of peft's that methods start from, each once, and where they are named.
fn started(tuning: &Tuning) -> impl Iterator<Item = (&str, Span)> {
    let mut seen = BTreeSet::new();
    let starts = tuning.methods.iter().filter_map(|(_, filled)| {
        let dir = keys::START.get(&filled.values)?;
        Some((dir, keys::START.span(&filled.values)))
    });
    starts.filter(move |(dir, _)| seen.insert(*dir))
}

/// The tensors of peft adapters that methods start from against those of the stage: heads have its classes, and
/// what belongs to another head is said to be left out.
pub(super) fn check_shapes(
    tuning: &Tuning,
    model: &dyn Model,
    of: (&dyn Task, &Job),
    diags: &mut Diags,
) -> bool {
    let parts = anatomy(model);
    for (dir, at) in started(tuning) {
        let read = peft::read(Path::new(dir)).map_err(|why| why.to_string());
        let fitted = read.and_then(|read| {
            let fitted = read.fit(model, &parts);
            fitted.map(|f| (read, f)).map_err(|misfit| misfit.message)
        });
        let fine = fitted.and_then(|(read, fitted)| {
            decoder_is_tied(&fitted, &parts, of.0)?;
            shapes((&read, &fitted), (of.1, &parts), at, diags)?;
            if read.is_idle(&fitted)? {
                let message = "the adapter changes nothing: all its updates are zero";
                let diag = Diag::warning(&IDLE_ADAPTER, at, message).label("this adapter");
                diags.push(diag.help("it was saved before it was trained; a training that goes on from it begins anew"));
            }
            Ok(())
        });
        if let Err(why) = fine {
            let (why, help) = match why.split_once('\n') {
                Some((why, help)) => (why.to_owned(), Some(help.to_owned())),
                None => (why, None),
            };
            let mut diag = Diag::error(&BAD_ADAPTER, at, why).label("this adapter");
            diag.help = help;
            diags.push(diag);
            return false;
        }
    }
    true
}

/// The adapters that a stage makes one.
pub(super) fn mixed(declared: &Declared) -> Vec<PathBuf> {
    if declared.filled.name != "convert" {
        return Vec::new();
    }
    let list = ADAPTERS.get(&declared.filled.values).unwrap_or_default();
    let folders = list.iter().filter_map(import::folder);
    folders.map(|dir| declared.base.join(dir)).collect()
}

/// The parameters that the adapters of peft's hold which methods start from.
pub(super) fn held(tuning: &Tuning, declared: &Declared, model: &dyn Model) -> BTreeSet<String> {
    let parts = anatomy(model);
    let own = started(tuning).map(|(dir, _)| PathBuf::from(dir));
    let fitted = own.chain(mixed(declared)).filter_map(|dir| {
        let read = peft::read(&dir).ok()?;
        read.fit(model, &parts).ok()
    });
    let tensors = fitted.flat_map(|f| f.tensors);
    tensors.map(|taken| taken.own).collect()
}

/// What a stage that applies an adapter to a model scores with: the adapter's head, where it has one, with as many classes;
/// else the head that it was trained with.
pub(super) fn headed(start: &mut Handed, dir: &Path, model: &dyn Model) {
    let own = (start.task.clone(), std::mem::take(&mut start.classes));
    (start.task, start.classes) = head_of(&start.model.config, dir, model, own);
}

/// The task and the classes of an adapter on a model, which without it has those given.
fn head_of(config: &Json, dir: &Path, model: &dyn Model, (mut task, mut classes): Head) -> Head {
    let parts = anatomy(model);
    // What is wrong with it is said where its methods are read.
    let Some((read, fitted)) = peft::read(dir).ok().and_then(|read| {
        let fitted = read.fit(model, &parts).ok()?;
        Some((read, fitted))
    }) else {
        return (task, classes);
    };
    let rows = fitted.tensors.iter().find_map(|taken| {
        let mut own = parts.params.iter().filter(|p| p.name == taken.own);
        own.find(|p| p.role == Role::HeadOutput && p.kind == ParamKind::Weight)?;
        taken.shape.first().copied()
    });
    if let Some(rows) = rows {
        if rows != classes.len() as u64 {
            classes = (0..rows).map(|i| format!("LABEL_{i}")).collect();
        }
        task = task::of_config(config, rows as usize).unwrap_or(task);
        return (task, classes);
    }
    let class = config.get("architectures");
    let class = class
        .and_then(|list| list.get(0)?.as_str())
        .unwrap_or_default();
    let continues = match read.config.task.as_deref() {
        Some(task) => task == "CAUSAL_LM",
        None => is_lm(class),
    };
    let name = if continues && model.causal_lm().is_some() {
        task::NEXT_TOKEN
    } else if class.ends_with("ForMaskedLM") && model.masked_lm().is_some() {
        task::MASKED
    } else {
        return (task, classes);
    };
    match task::with_options(name, &[]) {
        Some(task) => (task, Vec::new()),
        None => (task, classes),
    }
}

/// A task and its classes.
type Head = (Arc<dyn Task>, Vec<String>);

impl Plan {
    /// An adapter of peft's on a model with this config: its methods, what it predicts, and its classes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn applied(
        dir: &Path,
        config: &Json,
        model: &dyn Model,
    ) -> Result<(Tuning, Arc<dyn Task>, Vec<String>), String> {
        let mut values = Values::default();
        let folder = Checked::Str(dir.display().to_string());
        values.insert(import::FOLDER.name(), folder, Span::default(), true);
        let filled = Filled {
            name: import::NAME.to_owned(),
            values,
            span: Span::default(),
        };
        let mut diags = Diags::default();
        let made = start_from_peft(Path::new(""), (filled, false), model, &mut diags);
        let said = |d: &Diag| match &d.help {
            Some(help) => format!("{}; {help}", d.message),
            None => d.message.clone(),
        };
        let why = diags.iter().map(said).next();
        let made = made.ok_or_else(|| why.unwrap_or_default())?;
        let methods = made.into_iter().filter_map(|f| Some((method(&f.name)?, f)));
        let tuning = Tuning {
            methods: methods.collect(),
            n_layers: model.facts().layers,
            frozen: true,
        };
        let (task, classes) = head_of(config, dir, model, (task::usual(), Vec::new()));
        let parts = anatomy(model);
        let fitted = peft::read(dir)
            .ok()
            .and_then(|read| read.fit(model, &parts).ok());
        if let Some(fitted) = &fitted {
            decoder_is_tied(fitted, &parts, task.as_ref())
                .map_err(|why| why.replace('\n', "; "))?;
        }
        Ok((tuning, task, classes))
    }
}

/// Refuses saved embeddings that a decoder is tied to.
fn decoder_is_tied(fitted: &Fitted, parts: &Anatomy, task: &dyn Task) -> Result<(), String> {
    let table = |p: &&Param| p.kind == ParamKind::Embedding;
    // A decoder of its own is tied to nothing.
    if parts.params.iter().any(|p| table(&p) && p.role.is_lm()) {
        return Ok(());
    }
    let changed = |p: &Param| fitted.whole.iter().any(|module| p.module() == module);
    let mut words = parts.params.iter();
    let found = words.find(|p| table(p) && p.role == Role::WordEmbedding && changed(p));
    match found.filter(|_| task.needs().is_lm()) {
        None => Ok(()),
        Some(param) => Err(format!(
            "the adapter changes `{}`, and peft leaves the decoder that is tied to it as it was; that is not built yet\ntake an \
             adapter without it, or a sequence head",
            param.module()
        )),
    }
}

/// The shapes of an adapter's tensors against those of the stage.
fn shapes(
    (read, fitted): (&PeftAdapter, &Fitted),
    (job, parts): (&Job, &Anatomy),
    at: Span,
    diags: &mut Diags,
) -> Result<(), String> {
    let wrong = |name: &str, own: &[u64], wanted: &[u64]| {
        format!(
            "`{name}` has the shape {own:?} in this adapter; here it has {wanted:?}\nit was made for another model, or other classes"
        )
    };
    let of_a_head = |own: &str| {
        let mut heads = parts
            .params
            .iter()
            .filter(|p| p.role.is_head() || p.role.is_lm());
        let inside = |module: &str| {
            own.strip_prefix(module)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        heads.any(|p| p.name == own || inside(p.module()))
    };
    let mut left_out = Vec::new();
    for taken in &fitted.tensors {
        let name = taken.from.first().unwrap_or(&taken.own);
        match job.params.iter().find(|p| p.name == taken.own) {
            Some(param) if param.shape != taken.shape => {
                return Err(wrong(name, &taken.shape, &param.shape));
            }
            Some(_) => {}
            None if of_a_head(&taken.own) => left_out.push(format!("`{name}`")),
            None => {
                return Err(format!(
                    "nothing in this stage reads `{name}`\n{MERGE_INSTEAD}"
                ));
            }
        }
    }
    for edited in &fitted.edits {
        if !job.params.iter().any(|p| p.name == edited.own) {
            let name = &edited.own;
            match of_a_head(name) {
                true => left_out.push(format!("those of `{name}`")),
                false => {
                    return Err(format!(
                        "nothing in this stage reads `{name}`\n{MERGE_INSTEAD}"
                    ));
                }
            }
        }
    }
    for update in &fitted.head {
        match job.sites.iter().find(|s| s.path == update.module) {
            Some(site) => {
                let own = read.tensors.shape(&update.b).unwrap_or_default();
                let rank = read
                    .tensors
                    .shape(&update.a)
                    .and_then(|s| s.first().copied());
                let wanted = [site.output(), rank.unwrap_or_default()];
                if own != wanted {
                    return Err(wrong(&update.b, own, &wanted));
                }
            }
            None => left_out.push(format!("`{}`", update.a)),
        }
    }
    if let Some(first) = left_out.first() {
        diags.push(
            Diag::warning(
                &UNREAD_TENSORS,
                at,
                format!(
                    "{} of the adapter's tensors belong to another head than this stage's and are left out: {first}{}",
                    left_out.len(),
                    if left_out.len() > 1 { ", …" } else { "" }
                ),
            )
            .label("this adapter"),
        );
    }
    Ok(())
}

/// What a method that is an adapter of peft's, or starts from one, is: the methods of the adapter, once for all sites with
/// the same values. Others stay as they are. What changes the model itself is applied, and not trained on.
pub(super) fn start_from_peft(
    base: &Path,
    (filled, trains): (Filled, bool),
    model: &dyn Model,
    diags: &mut Diags,
) -> Option<Vec<Filled>> {
    let imported = filled.name == import::NAME;
    let key = if imported {
        &import::FOLDER
    } else {
        &keys::START
    };
    let Some(start) = key.get(&filled.values).map(|s| base.join(s)) else {
        return Some(vec![filled]);
    };
    let at = key.span(&filled.values);
    if imported && import::WEIGHT.is_written(&filled.values) {
        let message = "`weight` is for adapters that a `convert` stage makes one";
        let at = import::WEIGHT.span(&filled.values);
        diags.push(Diag::error(&crate::resolve::error::CONFLICT, at, message).help("remove it"));
        return None;
    }
    for key in [
        "rank",
        "alpha",
        "ranks",
        "alphas",
        "rs_lora",
        "init",
        "on",
        "modules_to_save",
    ] {
        if filled.values.written(key) {
            diags.push(
                Diag::error(
                    &crate::resolve::error::CONFLICT,
                    filled.values.span(key),
                    format!("`{key}` is the adapter's that this method starts from"),
                )
                .label("written here too")
                .help("remove it, or remove `start`"),
            );
            return None;
        }
    }
    let (read, fitted) = opened(&start, model, at, diags)?;
    if let Some(edited) = fitted.edits.first().filter(|_| trains) {
        let message = format!(
            "the adapter changes `{}` of the model itself, which `eval` and `merge` apply and a training does not go on from yet",
            edited.own
        );
        let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
        diags.push(diag.help(
            "fold it in first, `stage fused = merge { model = …, adapter = peft \"DIR\" }`, and go on from `fused`",
        ));
        return None;
    }
    let own = read.config.method.schema().name;
    if !imported && own != filled.name {
        let message = format!(
            "the adapter is of the method `{own}`, and this is `{}`",
            filled.name
        );
        let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
        diags.push(diag.help("write `adapter = peft \"DIR\"`, which takes any"));
        return None;
    }
    let holds = |group: &Group| {
        group
            .method
            .schema()
            .key(keys::MODULES_TO_SAVE.name())
            .is_some()
    };
    let some = fitted.groups.is_empty() || fitted.groups.iter().any(holds);
    if let Some(module) = fitted.whole.first().filter(|_| trains && !some) {
        let message = format!(
            "the adapter saves `{module}` whole, and `{own}` does not train modules beside itself yet"
        );
        let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
        diags.push(
            diag.help("`eval` and `merge` take it as it is; merge it first, and train from that"),
        );
        return None;
    }
    let mut groups = fitted.groups;
    if groups.is_empty() {
        // All of it goes into the head.
        groups.push(Group {
            method: read.config.method,
            values: Vec::new(),
            modules: Vec::new(),
        });
    }
    let task = import::TASK.get(&filled.values).filter(|_| imported);
    if let Some(diag) = wrong_task(&groups, task, at) {
        diags.push(*diag);
        return None;
    }
    let mut whole = Some(fitted.whole).filter(|modules| !modules.is_empty());
    let dir = start.display().to_string();
    let made = groups.into_iter().map(|group| {
        let (fits, method) = (holds(&group), group.method);
        let mut own = as_filled(group, (filled.span, at));
        if let (Some((key, _)), Some(task)) = (method.tasks(&own.values), task) {
            own.values.insert(key, Checked::Int(task), at, true);
        }
        let mut put =
            |key: &str, value: Checked, written| own.values.insert(key, value, at, written);
        put(keys::START.name(), Checked::Str(dir.clone()), true);
        if let Some(whole) = whole.take_if(|_| fits || !some) {
            put(keys::MODULES_TO_SAVE.name(), Checked::Names(whole), false);
        }
        if !imported
            && let (true, Some(rate)) = (
                keys::DROPOUT.is_written(&filled.values),
                filled.values.get(keys::DROPOUT.name()),
            )
        {
            put(keys::DROPOUT.name(), rate.clone(), true);
        }
        own
    });
    Some(made.collect())
}

/// What is wrong with the task of an adapter that is meant.
fn wrong_task(groups: &[Group], task: Option<u64>, at: Span) -> Option<Box<Diag>> {
    let tasks = groups.iter().find_map(|group| {
        let mut values = Values::default();
        for (key, value) in &group.values {
            values.insert(key, value.clone(), at, false);
        }
        Some(group.method.tasks(&values)?.1)
    });
    let (message, help) = match (tasks, task) {
        (None, Some(_)) => (
            "the adapter is not one of several tasks, so that `task` has no effect".to_owned(),
            "remove `task`".to_owned(),
        ),
        (Some(tasks), Some(task)) if task >= tasks => (
            format!("the adapter has {tasks} tasks, counted from 0, and none is {task}"),
            format!("write at most `task = {}`", tasks - 1),
        ),
        (Some(tasks), None) if tasks > 1 => (
            format!("the adapter has {tasks} tasks, and none of them is named"),
            "write `adapter = peft \"DIR\" { task = 0 }`".to_owned(),
        ),
        _ => return None,
    };
    let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
    Some(Box::new(diag.help(help)))
}

/// A method of an adapter as a recipe could write it.
fn as_filled(group: Group, (span, at): (Span, Span)) -> Filled {
    let schema = group.method.schema();
    let mut values = defaults(schema, at);
    for (key, value) in group.values {
        values.insert(key, value, at, false);
    }
    let raw = |path| Pattern {
        layers: None,
        path,
        raw: true,
    };
    let any = group.modules.into_iter().map(raw).collect();
    let placed = Checked::Placement(Placement { any });
    values.insert(keys::ON.name(), placed, at, false);
    Filled {
        name: schema.name.to_owned(),
        values,
        span,
    }
}

/// The defaults of a block's keys that are numbers, truth values or names.
fn defaults(schema: &Schema, at: Span) -> Values {
    let mut values = Values::default();
    for key in schema.keys {
        let value = match key.fallback {
            Some(Fallback::Int(n)) => Checked::Int(n),
            Some(Fallback::Float(x)) => Checked::Float(x),
            Some(Fallback::Bool(truth)) => Checked::Bool(truth),
            Some(Fallback::Str(name)) => Checked::Str(name.to_owned()),
            None => continue,
        };
        if !matches!(key.default, Default::Tacit(_)) {
            values.insert(key.name, value, at, false);
        }
    }
    values
}

/// An adapter that was read and fits a model.
fn opened(
    start: &Path,
    model: &dyn Model,
    at: Span,
    diags: &mut Diags,
) -> Option<(PeftAdapter, Fitted)> {
    let mut refuse = |message: String, help: Option<String>| {
        let mut diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
        diag.help = help;
        diags.push(diag);
    };
    let read = match peft::read(start) {
        Ok(read) => read,
        // The message names the key and what to do about it.
        Err(why) if peft::FILES.iter().any(|file| start.join(file).exists()) => {
            refuse(why.to_string(), None);
            return None;
        }
        Err(_) if !start.exists() => {
            let help = near::did_you_mean(start).unwrap_or_else(|| {
                "check the path; in a recipe it is relative to the recipe's folder".to_owned()
            });
            refuse(
                format!("there is no directory `{}`", start.display()),
                Some(help),
            );
            return None;
        }
        Err(why) => {
            let help = "name the directory that peft's `save_pretrained` wrote; it is relative to the recipe";
            refuse(why.to_string(), Some(help.to_owned()));
            return None;
        }
    };
    match read.fit(model, &anatomy(model)) {
        Ok(fitted) => Some((read, fitted)),
        Err(misfit) => {
            refuse(misfit.message, Some(misfit.help));
            None
        }
    }
}

/// Adapters that are to be made one: each a LoRA that fits the model, of one rank where the rule wants that, and at most one of
/// them with modules of its own.
pub(super) fn check_mix(mix: &Mix, model: &dyn Model, at: Span) -> Result<(), Box<Diag>> {
    let parts = anatomy(model);
    let mut ranks: BTreeMap<String, u64> = BTreeMap::new();
    let mut saves: Option<&Path> = None;
    for folder in &mix.folders {
        let wrong = |why: String| {
            let message = format!("{}: {why}", folder.display());
            Box::new(Diag::error(&BAD_ADAPTER, at, message).label("these adapters"))
        };
        let read = peft::read(folder).map_err(|why| wrong(why.to_string()))?;
        let fitted = read.fit(model, &parts);
        let fitted =
            fitted.map_err(|misfit| wrong(format!("{}; {}", misfit.message, misfit.help)))?;
        for pair in read.pairs(&fitted).map_err(wrong)? {
            let rank = pair.product.rank;
            let other = ranks.entry(pair.module.clone()).or_insert(rank);
            let alike = mix.how.updates || mix.how.rule == Rule::Cat;
            if !alike && *other != rank {
                return Err(wrong(format!(
                    "`{}` has rank {rank} here and {other} in another adapter, and this rule wants them equal; take `cat` or a rule that \
                     ends with `svd`",
                    pair.module
                )));
            }
        }
        let own = |name: &str| parts.params.iter().any(|p| p.name == name);
        if fitted.tensors.iter().any(|t| own(&t.own))
            && let Some(other) = saves.replace(folder)
        {
            return Err(wrong(format!(
                "it saves modules whole, and so does {}; such modules are not made one",
                other.display()
            )));
        }
    }
    Ok(())
}

/// What of the files of adapters a stage starts from its result depends on; `None` where they cannot be read.
pub(super) fn identity(tuning: &Tuning, declared: &Declared, world: &dyn World) -> Option<String> {
    let mut parts = Vec::new();
    let own = started(tuning).map(|(dir, _)| PathBuf::from(dir));
    for dir in own.chain(mixed(declared)) {
        for file in peft::FILES {
            parts.push(world.fingerprint(&dir.join(file)).ok()?);
        }
    }
    Some(parts.join(" "))
}
