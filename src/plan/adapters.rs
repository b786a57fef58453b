//! Adapters of the Python library `peft` against a model: the methods that they stand for, and their tensors against those
//! of the stage.

mod shapes;
mod start;

pub(super) use start::start_from_peft;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::error::{BAD_ADAPTER, IDLE_ADAPTER};
use super::{Handed, Plan};
use crate::base::world::World;
use crate::base::{Diag, Diags, Span};
use crate::files::peft;
use crate::library::combine::Rule;
use crate::library::method::{Tuning, import, keys, method};
use crate::library::model::{Model, is_lm};
use crate::library::net::{ParamKind, Role};
use crate::library::schema::{Checked, Filled, Values};
use crate::library::stage::convert::ADAPTERS;
use crate::library::stage::job::{Job, Mix};
use crate::library::stage::network::anatomy;
use crate::library::task;
use crate::library::task::Task;
use crate::resolve::Declared;
use shapes::{decoder_is_tied, shapes};

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
pub(super) fn present(tuning: &Tuning, declared: &Declared, model: &dyn Model) -> BTreeSet<String> {
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
        let named = read.config.task.as_deref().and_then(task::of_peft);
        task = match named {
            Some(own) => own,
            None => task::of_config(config, rows as usize).unwrap_or(task),
        };
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
    } else if model.seq2seq().is_some() {
        task::TARGETS
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
            n_layers: model.facts().blocks,
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
