//! Methods that are an adapter of peft's, or start from one.

use std::path::Path;

use crate::base::{Diag, Diags, Span};
use crate::files::peft::PeftAdapter;
use crate::files::{near, peft};
use crate::library::method::{Method, import, keys};
use crate::library::model::Model;
use crate::library::peft::{Fitted, Group};
use crate::library::placement::{Pattern, Placement};
use crate::library::schema::{Checked, Default, Fallback, Filled, Schema, Values};
use crate::library::stage::network::anatomy;
use crate::plan::error::BAD_ADAPTER;
use crate::resolve::error::CONFLICT;

/// What a method that is an adapter of peft's, or starts from one, is: the methods of the adapter, once for all sites with
/// the same values. Others stay as they are. What changes the model itself is applied, and not trained on.
pub(in crate::plan) fn start_from_peft(
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
    if let Some(diag) = doubled(&filled, imported) {
        diags.push(*diag);
        return None;
    }
    let (read, fitted) = opened(&start, model, at, diags)?;
    let wrong = unlike(&read, &filled, imported, at).or_else(|| {
        let trains = trains.then_some(&fitted)?;
        untrainable(trains, read.config.method, at)
    });
    if let Some(diag) = wrong {
        diags.push(*diag);
        return None;
    }
    let some = fitted.groups.is_empty() || fitted.groups.iter().any(|g| saves_modules(g.method));
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
        let (fits, method) = (saves_modules(group.method), group.method);
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

/// What is written although the adapter has it.
fn doubled(filled: &Filled, imported: bool) -> Option<Box<Diag>> {
    if imported && import::WEIGHT.is_written(&filled.values) {
        let message = "`weight` is for adapters that a `convert` stage makes one";
        let at = import::WEIGHT.span(&filled.values);
        return Some(Box::new(
            Diag::error(&CONFLICT, at, message).help("remove it"),
        ));
    }
    let keys = [
        "rank",
        "alpha",
        "ranks",
        "alphas",
        "rs_lora",
        "init",
        "on",
        "modules_to_save",
    ];
    let key = keys.into_iter().find(|key| filled.values.written(key))?;
    let message = format!("`{key}` is the adapter's that this method starts from");
    let diag = Diag::error(&CONFLICT, filled.values.span(key), message);
    let diag = diag.label("written here too");
    Some(Box::new(diag.help("remove it, or remove `start`")))
}

/// An adapter of another method than the one that starts from it.
fn unlike(read: &PeftAdapter, filled: &Filled, imported: bool, at: Span) -> Option<Box<Diag>> {
    let own = read.config.method.schema().name;
    if imported || own == filled.name {
        return None;
    }
    let message = format!(
        "the adapter is of the method `{own}`, and this is `{}`",
        filled.name
    );
    let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
    Some(Box::new(
        diag.help("write `adapter = peft \"DIR\"`, which takes any"),
    ))
}

/// Whether a method trains modules beside itself.
fn saves_modules(method: &dyn Method) -> bool {
    let key = keys::MODULES_TO_SAVE.name();
    method.schema().key(key).is_some()
}

/// What of an adapter a training cannot go on from.
fn untrainable(fitted: &Fitted, method: &dyn Method, at: Span) -> Option<Box<Diag>> {
    if let Some(edited) = fitted.edits.first() {
        let message = format!(
            "the adapter changes `{}` of the model itself, which `eval` and `merge` apply and a training does not go on from yet",
            edited.own
        );
        let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
        return Some(Box::new(diag.help(
            "fold it in first, `stage fused = merge { model = …, adapter = peft \"DIR\" }`, and go on from `fused`",
        )));
    }
    let groups = &fitted.groups;
    let some = groups.is_empty() || groups.iter().any(|g| saves_modules(g.method));
    let module = fitted.whole.first().filter(|_| !some)?;
    let message = format!(
        "the adapter saves `{module}` whole, and `{}` does not train modules beside itself yet",
        method.schema().name
    );
    let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
    let help = "`eval` and `merge` take it as it is; merge it first, and train from that";
    Some(Box::new(diag.help(help)))
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
