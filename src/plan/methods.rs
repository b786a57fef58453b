//! Methods against a model: placements, ranks, shapes, what stands in whose way, and adapters of
//! others to start from.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use super::error::{
    BAD_ADAPTER, EMPTY_PLACEMENT, METHOD_WITHOUT_EFFECT, OVERLAPPING_ADAPTERS, UNFIT_MODEL,
    UNREAD_TENSORS,
};
use crate::base::world::World;
use crate::base::{Diag, Diags, Span};
use crate::files::{near, peft};
use crate::library::method::{Complaint, Method, Stacking, Tuning};
use crate::library::model::Model;
use crate::library::net::Site;
use crate::library::net::{Owner, ParamKind};
use crate::library::placement::{Pattern, Placement};
use crate::library::schema::{Checked, Filled, Values};
use crate::library::stage::job::Job;
use crate::library::stage::keys;
use crate::library::stage::network;
use crate::library::stage::network::anatomy;
use crate::library::task::Task;

/// What to write instead of a placement that matches nothing: other tools name modules by the ends of their paths.
fn meant(placement: &Placement, sites: &[&Site], n_layers: u64) -> String {
    let all =
        |p: &Pattern| p.raw && matches!(p.path.replace('_', "-").as_str(), "all-linear" | "all");
    if placement.any.iter().any(all) {
        return "every linear map of the blocks is `on = { attention.*, ffn.* }`".to_owned();
    }
    let ending = |p: &Pattern| Pattern {
        path: format!("*.{}", p.path),
        ..p.clone()
    };
    let ends = |p: &Pattern| p.raw && sites.iter().any(|s| ending(p).matches(s, n_layers));
    if !placement.any.is_empty() && placement.any.iter().all(ends) {
        let any = placement.any.iter().map(ending).collect();
        return format!(
            "a string is a module's whole path: write `on = {}`",
            Placement { any }
        );
    }
    format!(
        "the model has {n_layers} blocks; {}",
        named(sites.iter().copied())
    )
}

/// Complains about methods that do not fit a model: ranks, empty placements, overlaps, idle methods. A network is
/// built only of those it has nothing to say about.
pub fn check_methods(
    model: &Arc<dyn Model>,
    task: &Arc<dyn Task>,
    tuning: &Tuning,
    values: &Values,
    diags: &mut Diags,
) {
    let key = if keys::ADAPTERS.is_written(values) {
        "adapters"
    } else {
        "adapter"
    };
    if let Err(lacks) = task.needs().is_of(model.as_ref()) {
        let message = format!(
            "`{}` is learned on a head that this model does not have: `{}` has {lacks}",
            task.name(),
            model.family()
        );
        let at = values.span("objective");
        diags.push(Diag::error(&UNFIT_MODEL, at, message).help(
            "name another objective, or another model; `peftc list models` tells encoders from decoders",
        ));
        return;
    }
    let sites = network::sites(model.clone(), task.clone());
    if values.written(key) {
        check_whole(tuning, model.as_ref(), task.as_ref(), diags);
    }
    let mut covered = Covered::default();
    let mut ladder = None;
    for (method, filled) in &tuning.methods {
        if let Some(complaint) = method.check_model(&filled.values, model.facts()) {
            diags.push(complained(filled, complaint));
        }
        let name = method.schema().name;
        if method.ladders()
            && let Some(other) = ladder.replace(name)
        {
            let message =
                format!("`{other}` and `{name}` would both stand between the model and its head");
            diags.push(
                Diag::error(&OVERLAPPING_ADAPTERS, filled.span, message).help("keep one of them"),
            );
        }
        if method.adapts() {
            let written = values.written(key);
            check_placement(
                (*method, filled),
                &sites,
                (tuning.n_layers, written),
                &mut covered,
                diags,
            );
        }
    }
    check_company(tuning, values.span(key), diags);
}

/// Where a value of a method is written, or the method where it is not.
fn at(filled: &Filled, key: &str) -> Span {
    if filled.values.written(key) {
        filled.values.span(key)
    } else {
        filled.span
    }
}

fn complained(filled: &Filled, complaint: Complaint) -> Diag {
    let mut diag = Diag::error(complaint.code, at(filled, complaint.key), complaint.message);
    diag.help = complaint.help;
    diag
}

/// The methods met so far at each site.
type Covered<'a> = IndexMap<String, Vec<&'a dyn Method>>;

/// The sites a method is placed at: some, none of the head's, and each free or shared with methods it goes together with.
fn check_placement<'a>(
    (method, filled): (&'a dyn Method, &Filled),
    sites: &[Site],
    (n_layers, written): (u64, bool),
    covered: &mut Covered<'a>,
    diags: &mut Diags,
) {
    let name = method.schema().name;
    let placement = crate::library::method::keys::ON
        .get(&filled.values)
        .cloned()
        .unwrap_or_default();
    let places = || sites.iter().filter(|s| method.fits(s));
    let matching: Vec<&Site> = places()
        .filter(|s| placement.matches(s, n_layers))
        .collect();
    if let Some(site) = matching.iter().find(|s| s.role.is_head()) {
        let message = format!(
            "`{name}` would wrap `{}`, which belongs to the task head",
            site.path
        );
        let help = format!("the head is always trained as a whole; {}", named(places()));
        diags.push(
            Diag::error(&METHOD_WITHOUT_EFFECT, at(filled, "on"), message)
                .label("reaches the head")
                .help(help),
        );
        return;
    }
    // One that peft trained may be on the head alone, or on that of another objective, which is said; and what
    // another stage hands on has been looked at there.
    if matching.is_empty()
        && written
        && crate::library::method::keys::START
            .get(&filled.values)
            .is_none()
    {
        let what = if places().all(Site::is_linear) {
            "linear map"
        } else {
            "sub-layer"
        };
        let message = format!("`{placement}` matches no {what} of this model");
        let help = meant(&placement, &places().collect::<Vec<_>>(), n_layers);
        diags.push(
            Diag::error(&EMPTY_PLACEMENT, at(filled, "on"), message)
                .label("nothing to adapt here")
                .help(help),
        );
    }
    for site in matching {
        let there = covered.entry(site.path.clone()).or_default();
        if let Some(other) = there.iter().find(|other| !together(**other, method)) {
            let other = other.schema().name;
            let message = format!("`{other}` and `{name}` would both wrap `{}`", site.path);
            diags.push(
                Diag::error(&OVERLAPPING_ADAPTERS, at(filled, "on"), message)
                    .help("narrow one of the placements"),
            );
            break;
        }
        there.push(method);
        if let Some(complaint) = method.check(&filled.values, site) {
            diags.push(complained(filled, complaint));
            break;
        }
    }
}

/// Whether two methods may stand at one site: neither wants it alone, and only one is in the place of the weight.
fn together(one: &dyn Method, other: &dyn Method) -> bool {
    let stacking = [one.stacking(), other.stacking()];
    one.schema().name != other.schema().name
        && stacking.contains(&Stacking::Over)
        && !stacking.contains(&Stacking::Alone)
}

/// The places a recipe can name, but for those of heads: "linear maps are `attention.{query, key}` and `ffn.up`".
fn named<'a>(sites: impl Iterator<Item = &'a Site>) -> String {
    let mut groups: IndexMap<&str, Vec<&str>> = IndexMap::new();
    let mut what = "sub-layers";
    for site in sites.filter(|s| !s.role.is_head() && !s.role.is_lm()) {
        if site.is_linear() {
            what = "linear maps";
        }
        let path = site.role.path();
        let (group, last) = path.split_once('.').unwrap_or((path, ""));
        let group = groups.entry(group).or_default();
        if !group.contains(&last) {
            group.push(last);
        }
    }
    let list: Vec<String> = groups
        .iter()
        .map(|(group, last)| match last.as_slice() {
            [""] => format!("`{group}`"),
            [one] => format!("`{group}.{one}`"),
            more => format!("`{group}.{{{}}}`", more.join(", ")),
        })
        .collect();
    format!("{what} are {}", list.join(" and "))
}

/// Methods that have no effect beside the others.
fn check_company(tuning: &Tuning, span: Span, diags: &mut Diags) {
    let names: Vec<&str> = tuning
        .methods
        .iter()
        .map(|(m, _)| m.schema().name)
        .collect();
    if names.len() < 2 {
        return;
    }
    let mut idle = |message: String, help: &str| {
        diags.push(Diag::error(&METHOD_WITHOUT_EFFECT, span, message).help(help.to_owned()));
    };
    if names.contains(&"head_only") {
        idle(
            "`head_only` has no effect beside other methods: the head is always trained".to_owned(),
            "remove `head_only`",
        );
    }
    if names.contains(&"full") {
        idle(
            "beside `full`, which trains everything, other methods have no effect".to_owned(),
            "keep `full` alone, or remove it",
        );
    }
    let twice = names.iter().enumerate().find(|(i, n)| {
        names.iter().take(*i).any(|m| m == *n)
            && tuning
                .methods
                .get(*i)
                .is_some_and(|(m, _)| !m.adapts() || m.shares())
    });
    if let Some((_, name)) = twice {
        idle(format!("`{name}` is named twice"), "remove one of them");
    }
}

/// Modules that are to be trained whole against the model's: there, and without an adapter on them.
fn check_whole(tuning: &Tuning, model: &dyn Model, task: &dyn Task, diags: &mut Diags) {
    let started = |filled: &Filled| {
        crate::library::method::keys::START
            .get(&filled.values)
            .is_some()
    };
    // What an adapter of peft's saves has been looked at.
    let written = tuning.methods.iter().filter(|(_, f)| !started(f));
    let modules: Vec<(&String, Span)> = written
        .flat_map(|(method, filled)| {
            let at = crate::library::method::keys::MODULES_TO_SAVE.span(&filled.values);
            let modules = method.whole_modules(&filled.values).iter();
            modules.map(move |module| (module, at))
        })
        .collect();
    if modules.is_empty() {
        return;
    }
    let parts = anatomy(model);
    let lm = task.needs().is_lm();
    for (module, at) in modules {
        let own = || {
            parts
                .params
                .iter()
                .filter(|p| p.is_in(module) && (lm || !p.role.is_lm()))
        };
        let (message, help) = if own().next().is_none() {
            (
                format!("the model has no module `{module}`"),
                "write a module's path or an end of it, such as `LayerNorm`; `peftc plan` names the linear maps",
            )
        } else if own().all(|p| p.owner == Owner::Head) {
            (
                format!("`{module}` belongs to the task head, which is always trained and kept"),
                "remove it from `modules_to_save`",
            )
        } else if let Some(site) = parts
            .sites
            .iter()
            .find(|s| !tuning.stack(s).is_empty() && own().any(|p| p.module() == s.path))
        {
            (
                format!(
                    "`{}` has an adapter and would be trained whole too",
                    site.path
                ),
                "narrow `on`, or remove the module from `modules_to_save`",
            )
        } else {
            continue;
        };
        diags.push(Diag::error(&METHOD_WITHOUT_EFFECT, at, message).help(help));
    }
}

/// The adapters of peft's that methods start from, each once, and where they are named.
fn started(tuning: &Tuning) -> impl Iterator<Item = (&str, Span)> {
    let mut seen = BTreeSet::new();
    let starts = tuning.methods.iter().filter_map(|(_, filled)| {
        let dir = crate::library::method::keys::START.get(&filled.values)?;
        Some((
            dir,
            crate::library::method::keys::START.span(&filled.values),
        ))
    });
    starts.filter(move |(dir, _)| seen.insert(*dir))
}

/// The tensors of peft adapters that methods start from against those of the stage: heads have its classes, and
/// what belongs to another head is said to be left out.
pub(super) fn check_shapes(
    tuning: &Tuning,
    model: &dyn Model,
    (task, job): (&dyn Task, &Job),
    diags: &mut Diags,
) -> bool {
    let parts = anatomy(model);
    for (dir, at) in started(tuning) {
        let read = peft::read(Path::new(dir)).map_err(|why| why.to_string());
        let fitted = read.and_then(|read| {
            let fitted = peft::fit(&read, model.family(), &parts);
            fitted.map(|f| (read, f)).map_err(|misfit| misfit.message)
        });
        let (read, fitted) = match fitted {
            Ok(pair) => pair,
            Err(why) => {
                diags.push(Diag::error(&BAD_ADAPTER, at, why).label("this adapter"));
                return false;
            }
        };
        let shape = |name: &str| -> Vec<u64> {
            let raw = read.tensors.get(name);
            raw.map(|raw| raw.shape.to_vec()).unwrap_or_default()
        };
        let mut left_out = Vec::new();
        let mut wrong = None;
        for (name, own) in &fitted.tensors {
            match job.params.iter().find(|p| p.name == *own) {
                Some(param) if param.shape != shape(name) => {
                    wrong = wrong.or(Some((name.clone(), shape(name), param.shape.clone())));
                }
                Some(_) => {}
                None => left_out.push(format!("`{name}`")),
            }
        }
        for update in &fitted.head {
            match job.sites.iter().find(|s| s.path == update.module) {
                Some(site) => {
                    let (own, rank) = (shape(&update.b), shape(&update.a));
                    let wanted = vec![site.output(), rank.first().copied().unwrap_or_default()];
                    if own != wanted {
                        wrong = wrong.or(Some((update.b.clone(), own, wanted)));
                    }
                }
                None => left_out.push(format!("`{}`", update.a)),
            }
        }
        if let Some((name, own, wanted)) = wrong {
            diags.push(
                Diag::error(
                    &BAD_ADAPTER,
                    at,
                    format!(
                        "`{name}` has the shape {own:?} in this adapter; here it has {wanted:?}"
                    ),
                )
                .label("made for another model, or other classes"),
            );
            return false;
        }
        let saved = fitted.whole.iter().find(|module| {
            let mut own = parts.params.iter().filter(|p| p.module() == *module);
            own.any(|p| p.kind == ParamKind::Embedding)
        });
        if let Some(module) = saved.filter(|_| task.needs().is_lm()) {
            let message = format!(
                "the adapter saves `{module}` whole, and peft leaves the decoder that is tied to it as it was; that is not built yet"
            );
            let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
            diags.push(diag.help("take an adapter without it, or a sequence head"));
            return false;
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
    }
    true
}

/// What a method that starts from a peft adapter is: one for each rank and scale in it. Others stay as they are.
pub(super) fn start_from_peft(
    base: &Path,
    filled: Filled,
    model: &dyn Model,
    diags: &mut Diags,
) -> Option<Vec<Filled>> {
    let Some(start) = crate::library::method::keys::START
        .get(&filled.values)
        .map(|s| base.join(s))
    else {
        return Some(vec![filled]);
    };
    let at = crate::library::method::keys::START.span(&filled.values);
    for key in ["rank", "alpha", "rs_lora", "on", "modules_to_save"] {
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
    let mut refuse = |message: String, help: String| {
        let diag = Diag::error(&BAD_ADAPTER, at, message).label("this adapter");
        diags.push(diag.help(help));
    };
    let read = match peft::read(&start) {
        Ok(read) => read,
        Err(why) if peft::FILES.iter().any(|file| start.join(file).exists()) => {
            // The message names the key and what to do about it.
            diags.push(Diag::error(&BAD_ADAPTER, at, why.to_string()).label("this adapter"));
            return None;
        }
        Err(_) if !start.exists() => {
            let help = near::did_you_mean(&start).unwrap_or_else(|| {
                "check the path; in a recipe it is relative to the recipe's folder".to_owned()
            });
            refuse(format!("there is no directory `{}`", start.display()), help);
            return None;
        }
        Err(why) => {
            let help = "name the directory that peft's `save_pretrained` wrote; it is relative to the recipe";
            refuse(why.to_string(), help.to_owned());
            return None;
        }
    };
    let fitted = match peft::fit(&read, model.family(), &anatomy(model)) {
        Ok(fitted) => fitted,
        Err(misfit) => {
            refuse(misfit.message, misfit.help);
            return None;
        }
    };
    let mut groups = fitted.groups;
    if groups.is_empty() {
        // All of it goes into the head.
        groups.push(peft::Group {
            rank: read.config.rank,
            alpha: read.config.alpha,
            modules: Vec::new(),
        });
    }
    let mut made = Vec::with_capacity(groups.len());
    for (i, group) in groups.into_iter().enumerate() {
        let mut filled = filled.clone();
        let any = group
            .modules
            .into_iter()
            .map(|path| Pattern {
                layers: None,
                path,
                raw: true,
            })
            .collect();
        let start = Checked::Str(start.display().to_string());
        filled
            .values
            .insert(crate::library::method::keys::START.name(), start, at, true);
        let mut put = |key: &str, value: Checked| filled.values.insert(key, value, at, false);
        put("rank", Checked::Int(group.rank));
        put("alpha", Checked::Float(group.alpha));
        put("rs_lora", Checked::Bool(read.config.rs_lora));
        put("on", Checked::Placement(Placement { any }));
        if i == 0 && !fitted.whole.is_empty() {
            put("modules_to_save", Checked::Names(fitted.whole.clone()));
        }
        if !crate::library::method::keys::DROPOUT.is_written(&filled.values) {
            let dropout = Checked::Float(read.config.dropout);
            filled.values.insert(
                crate::library::method::keys::DROPOUT.name(),
                dropout,
                at,
                false,
            );
        }
        made.push(filled);
    }
    Some(made)
}

/// What of the files of adapters a stage starts from its result depends on; `None` where they cannot be read.
pub(super) fn identity(tuning: &Tuning, world: &dyn World) -> Option<String> {
    let mut parts = Vec::new();
    for (dir, _) in started(tuning) {
        for file in peft::FILES {
            parts.push(world.fingerprint(&Path::new(dir).join(file)).ok()?);
        }
    }
    Some(parts.join(" "))
}
