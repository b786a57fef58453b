//! Methods against a model: placements, ranks, shapes, what stands in whose way.

use std::sync::Arc;

use indexmap::IndexMap;

use super::error::{EMPTY_PLACEMENT, METHOD_WITHOUT_EFFECT, OVERLAPPING_ADAPTERS, UNFIT_MODEL};
use crate::base::{Diag, Diags, Span};
use crate::library::method::{Complaint, Method, Stacking, Tuning};
use crate::library::model::{Model, Reserved};
use crate::library::net::Owner;
use crate::library::net::{Part, Site};
use crate::library::placement::{Pattern, Placement};
use crate::library::schema::{Filled, Values};
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
        diags.push(Diag::error(&UNFIT_MODEL, at, message).help(task.needs().otherwise()));
        return;
    }
    let sites = network::sites(model.clone(), task.clone());
    if values.written(key) {
        check_whole(tuning, model.as_ref(), task.as_ref(), diags);
    }
    let mut covered = Covered::default();
    let (mut ladder, mut before_texts) = (None, None);
    for (method, filled) in &tuning.methods {
        if let Some(diag) = unfit((*method, filled), model.as_ref()) {
            diags.push(diag);
            return;
        }
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
        if method.reserved(&filled.values) != Reserved::default()
            && let Some(other) = before_texts.replace(name)
        {
            let message =
                format!("`{other}` and `{name}` would both put something before each text");
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

/// What is wrong with a method beside this model, whatever its sites are.
fn unfit((method, filled): (&dyn Method, &Filled), model: &dyn Model) -> Option<Diag> {
    let (name, family) = (method.schema().name, model.family());
    let one = model.seq2seq().is_some();
    if let Some(why) = of_one_stream(method, &filled.values).filter(|_| one) {
        let message = format!(
            "`{name}` {why}, which is not built for an encoder with a decoder, as `{family}` is"
        );
        let help = "name a method that changes maps, norms or what sub-layers add, such as `lora`, or `full`";
        return Some(Diag::error(&UNFIT_MODEL, filled.span, message).help(help));
    }
    of_tokens_alone(method, &filled.values, model).map(|why| {
        let message =
            format!("`{name}` {why}: the scores of `{family}` are by the distance of two tokens");
        let help = "name another method, such as `lora` or `prompt_tuning`";
        Diag::error(&UNFIT_MODEL, filled.span, message).help(help)
    })
}

/// Why a method needs a model of one stream, if it does.
fn of_one_stream(method: &dyn Method, values: &Values) -> Option<&'static str> {
    if method.ladders() {
        return Some("is a network beside the blocks of one stack");
    }
    let marks = !method.marking(values).is_none();
    if marks || method.reserved(values) != Reserved::default() {
        return Some("puts something into texts or before them");
    }
    method
        .reads_texts()
        .then_some("reads each text as a whole, or what it is of")
}

/// Why a method does not go together with scores by distance, if it does not.
fn of_tokens_alone(
    method: &dyn Method,
    values: &Values,
    model: &dyn Model,
) -> Option<&'static str> {
    if model.scores_by_distance() && method.reserved(values).prefix > 0 {
        return Some("puts keys before each text, which are at no distance");
    }
    if model.maps_distances() && (method.reads_texts() || method.averages_texts()) {
        return Some("changes maps text by text, and rows that stand for distances are of no text");
    }
    if model.maps_distances() && method.watches(values) {
        return Some(
            "chooses places by the gradients of one use of a map, and rows of distances are another",
        );
    }
    None
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
type Covered<'a> =
    IndexMap<(String, std::mem::Discriminant<Part>), Vec<(&'a dyn Method, &'a Values)>>;

/// The sites a method is placed at: some, none of the head's, and each free or shared with methods it goes together with.
fn check_placement<'a>(
    (method, filled): (&'a dyn Method, &'a Filled),
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
        let table = |s: &Site| matches!(s.part, Part::Table { .. });
        let what = if places().all(table) {
            "table of embeddings"
        } else if places().all(|s| s.is_linear() || table(s)) {
            "linear map"
        } else if places().all(Site::is_norm) {
            "norm"
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
    if let Some(complaint) = method.check_sites(&filled.values, &matching) {
        diags.push(complained(filled, complaint));
    }
    for site in matching {
        // An attention and what it adds to the residual may be one module.
        let kind = std::mem::discriminant(&site.part);
        let there = covered.entry((site.path.clone(), kind)).or_default();
        let own = (method, &filled.values);
        if let Some((other, _)) = there.iter().find(|other| !together(**other, own)) {
            let other = other.schema().name;
            let message = format!("`{other}` and `{name}` would both wrap `{}`", site.path);
            diags.push(
                Diag::error(&OVERLAPPING_ADAPTERS, at(filled, "on"), message)
                    .help("narrow one of the placements"),
            );
            break;
        }
        there.push(own);
        if let Some(complaint) = method.check(&filled.values, site) {
            diags.push(complained(filled, complaint));
            break;
        }
    }
}

/// Whether two methods may stand at one site: neither wants it alone, and only one is in the place of the weight.
fn together((one, own): (&dyn Method, &Values), (other, others): (&dyn Method, &Values)) -> bool {
    let stacking = [one.stacking_with(own), other.stacking_with(others)];
    one.schema().name != other.schema().name
        && stacking.contains(&Stacking::Over)
        && !stacking.contains(&Stacking::Alone)
}

/// The places a recipe can name, but for those of heads: "linear maps are `attention.{query, key}` and `ffn.up`".
fn named<'a>(sites: impl Iterator<Item = &'a Site>) -> String {
    let mut groups: IndexMap<&str, Vec<&str>> = IndexMap::new();
    let mut what = "sub-layers";
    let sites: Vec<&Site> = sites
        .filter(|s| !s.role.is_head() && !s.role.is_lm())
        .collect();
    // Where a method may be on both, the maps are what is meant mostly.
    let mixed = sites.iter().any(|s| s.is_linear());
    let table = |s: &Site| matches!(s.part, Part::Table { .. });
    for site in sites.into_iter().filter(|s| !mixed || !table(s)) {
        if table(site) {
            what = "tables of embeddings";
        } else if site.is_linear() {
            what = "linear maps";
        } else if site.is_norm() {
            what = "norms";
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
    let modules: Vec<(&String, &str, Span)> = written
        .flat_map(|(method, filled)| {
            let (key, modules) = method.modules(&filled.values);
            let at = at(filled, key);
            modules.iter().map(move |module| (module, key, at))
        })
        .collect();
    if modules.is_empty() {
        return;
    }
    let parts = anatomy(model);
    let lm = task.needs().is_lm();
    for (module, key, at) in modules {
        let own = || {
            parts
                .params
                .iter()
                .filter(|p| p.is_in(module) && (lm || !p.role.is_lm()))
        };
        let (message, help) = if own().next().is_none() {
            (
                format!("the model has no module `{module}`"),
                "write a module's path or an end of it, such as `LayerNorm`; `peftc plan` names the linear maps".to_owned(),
            )
        } else if own().all(|p| p.owner == Owner::Head) {
            (
                format!("`{module}` belongs to the task head, which is always trained and kept"),
                format!("remove it from `{key}`"),
            )
        } else if let Some(site) = parts.sites.iter().chain(&parts.others).find(|s| {
            let changes = match s.part {
                Part::Linear { .. } => !tuning.stack(s).is_empty(),
                Part::Table { .. } => tuning.stack(s).iter().any(|(m, _)| m.folds()),
                _ => false,
            };
            changes && own().any(|p| p.module() == s.path)
        }) {
            (
                format!(
                    "`{}` has an adapter and would be trained whole too",
                    site.path
                ),
                format!("narrow `on`, or remove the module from `{key}`"),
            )
        } else {
            continue;
        };
        diags.push(Diag::error(&METHOD_WITHOUT_EFFECT, at, message).help(help));
    }
}
