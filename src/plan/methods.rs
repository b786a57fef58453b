//! Methods against a model: placements, ranks, shapes, what stands in whose way, and adapters of
//! others to start from.

use indexmap::IndexMap;

use super::error::{BAD_ADAPTER, EMPTY_PLACEMENT, METHOD_WITHOUT_EFFECT, OVERLAPPING_ADAPTERS};
use crate::base::{Diag, Diags};
use crate::files::peft;
use crate::library::method::Tuning;
use crate::library::net::Mode;
use crate::library::params::Param;
use crate::library::placement::{Pattern, Placement, Site};
use crate::library::schema::{Checked, Filled, Values};
use crate::library::stage::{StageCx, network};
use crate::program::Builder;

/// Methods against the model's sites: ranks, empty placements, overlaps, idle methods.
pub(super) fn check_methods(
    cx: &StageCx<'_>,
    tuning: &Tuning,
    values: &Values,
    diags: &mut Diags,
) -> bool {
    let before = diags.has_errors();
    let key = if values.written("adapters") {
        "adapters"
    } else {
        "adapter"
    };
    let mut b = Builder::new("sites");
    let bare = Tuning {
        n_layers: tuning.n_layers,
        frozen: true,
        methods: Vec::new(),
    };
    let sites = network::network(&mut b, cx, &bare, Mode::Evaluate).sites;
    let (head, sites): (Vec<Site>, Vec<Site>) = sites.into_iter().partition(|s| s.role.is_head());
    let mut covered: IndexMap<String, &str> = IndexMap::new();
    let mut ladder = None;
    for (method, filled) in &tuning.methods {
        let name = method.schema().name;
        let at = |k: &str| {
            if filled.values.written(k) {
                filled.values.span(k)
            } else {
                filled.span
            }
        };
        if let Some(c) = method.check_model(&filled.values, cx.model.facts()) {
            let mut diag = Diag::error(c.code, at(c.key), c.message);
            diag.help = c.help;
            diags.push(diag);
        }
        if method.ladders()
            && let Some(other) = ladder.replace(name)
        {
            let message =
                format!("`{other}` and `{name}` would both stand between the model and its head");
            diags.push(
                Diag::error(&OVERLAPPING_ADAPTERS, filled.span, message).help("keep one of them"),
            );
        }
        if !method.adapts() {
            continue;
        }
        let placement = filled.values.placement("on").cloned().unwrap_or_default();
        // An adapter that peft trained is taken as it is.
        let reaches = head
            .iter()
            .find(|s| placement.matches(s, tuning.n_layers))
            .filter(|_| filled.values.str("start").is_none());
        if let Some(site) = reaches {
            diags.push(
                Diag::error(
                    &METHOD_WITHOUT_EFFECT,
                    at("on"),
                    format!("`{name}` would wrap `{}`, which belongs to the task head", site.path),
                )
                .label("reaches the head")
                .help("the head is always trained as a whole; linear maps of the blocks are `attention.*` and `ffn.*`"),
            );
            continue;
        }
        let matching: Vec<&Site> = sites
            .iter()
            .filter(|s| placement.matches(s, tuning.n_layers))
            .collect();
        if matching.is_empty() && filled.values.str("start").is_some() {
            let modules: Vec<&str> = placement
                .any
                .iter()
                .map(|p| p.path.as_str())
                .filter(|p| !p.starts_with('*'))
                .collect();
            diags.push(
                Diag::error(
                    &BAD_ADAPTER,
                    at("start"),
                    "the adapter is on none of this model's linear maps",
                )
                .label("made for another model")
                .help(format!("its modules are `{}`", modules.join("`, `"))),
            );
        } else if matching.is_empty() {
            diags.push(
                Diag::error(&EMPTY_PLACEMENT, at("on"), format!("`{placement}` matches no linear map of this model"))
                    .label("nothing to adapt here")
                    .help(format!("the model has {} blocks; linear maps are `attention.{{query, key, value, output}}` and `ffn.{{up, down}}`", tuning.n_layers)),
            );
        }
        for site in matching {
            if let Some(other) = covered.insert(site.path.clone(), name) {
                diags.push(
                    Diag::error(
                        &OVERLAPPING_ADAPTERS,
                        at("on"),
                        format!("`{other}` and `{name}` would both wrap `{}`", site.path),
                    )
                    .help("narrow one of the placements"),
                );
                break;
            }
            if let Some(c) = method.check(&filled.values, site) {
                let mut diag = Diag::error(c.code, at(c.key), c.message);
                diag.help = c.help;
                diags.push(diag);
                break;
            }
        }
    }
    let names: Vec<&str> = tuning
        .methods
        .iter()
        .map(|(m, _)| m.schema().name)
        .collect();
    if names.len() > 1 {
        for idle in ["head_only", "full"]
            .into_iter()
            .filter(|n| names.contains(n))
        {
            let message = if idle == "full" {
                "beside `full`, which trains everything, other methods have no effect"
            } else {
                "`head_only` has no effect beside other methods: the head is always trained"
            };
            let help = if idle == "full" {
                "keep `full` alone, or remove it"
            } else {
                "remove `head_only`"
            };
            diags.push(Diag::error(&METHOD_WITHOUT_EFFECT, values.span(key), message).help(help));
        }
        let twice = names.iter().enumerate().find(|(i, n)| {
            names.iter().take(*i).any(|m| m == *n)
                && tuning.methods.get(*i).is_some_and(|(m, _)| !m.adapts())
        });
        if let Some((_, name)) = twice {
            diags.push(
                Diag::error(
                    &METHOD_WITHOUT_EFFECT,
                    values.span(key),
                    format!("`{name}` is named twice"),
                )
                .help("remove one of them"),
            );
        }
    }
    before || !diags.has_errors()
}

/// The tensors of peft adapters that methods start from against those of the stage.
pub(super) fn check_shapes(tuning: &Tuning, params: &[Param], diags: &mut Diags) -> bool {
    for (_, filled) in &tuning.methods {
        let Some(read) = filled
            .values
            .str("start")
            .and_then(|dir| peft::read(std::path::Path::new(dir)).ok())
        else {
            continue;
        };
        let misfit = read.tensors.names().find_map(|name| {
            let param = params.iter().find(|p| p.is_called(name))?;
            let shape = read.tensors.get(name)?.shape.iter().map(|&n| n as u64);
            let shape: Vec<u64> = shape.collect();
            (shape != param.shape).then_some((name, shape, &param.shape))
        });
        if let Some((name, own, wanted)) = misfit {
            diags.push(
                Diag::error(
                    &BAD_ADAPTER,
                    filled.values.span("start"),
                    format!(
                        "`{name}` has the shape {own:?} in this adapter; here it has {wanted:?}"
                    ),
                )
                .label("made for another model, or other classes"),
            );
            return false;
        }
    }
    true
}

/// Fills in what a peft adapter that a method starts from decides.
pub(super) fn start_from_peft(
    base: &std::path::Path,
    mut filled: Filled,
    diags: &mut Diags,
) -> Option<Filled> {
    let Some(start) = filled.values.str("start").map(|s| base.join(s)) else {
        return Some(filled);
    };
    let at = filled.values.span("start");
    for key in ["rank", "alpha", "rs_lora", "on"] {
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
    let read = match peft::read(&start) {
        Ok(read) => read,
        Err(why) => {
            diags.push(
                Diag::error(&BAD_ADAPTER, at, why.to_string())
                    .label("this adapter")
                    .help("name the directory that peft's `save_pretrained` wrote; it is relative to the recipe"),
            );
            return None;
        }
    };
    let pattern = |path: String, raw: bool| Pattern {
        layers: None,
        path,
        raw,
    };
    let any = match &read.targets {
        peft::Targets::Names(names) => names
            .iter()
            .flat_map(|n| [pattern(n.clone(), true), pattern(format!("*.{n}"), true)])
            .collect(),
        peft::Targets::AllLinear => vec![
            pattern("attention.*".into(), false),
            pattern("ffn.*".into(), false),
        ],
        peft::Targets::Regex(text) => {
            diags.push(
                Diag::error(
                    &BAD_ADAPTER,
                    at,
                    format!(
                        "its targets are the regular expression `{text}`, which is not built yet"
                    ),
                )
                .help("write the module names as a list in its adapter_config.json"),
            );
            return None;
        }
    };
    filled
        .values
        .insert("start", Checked::Str(start.display().to_string()), at, true);
    filled
        .values
        .insert("rank", Checked::Int(read.rank), at, false);
    filled
        .values
        .insert("alpha", Checked::Float(read.alpha), at, false);
    filled
        .values
        .insert("rs_lora", Checked::Bool(read.rs_lora), at, false);
    filled
        .values
        .insert("on", Checked::Placement(Placement { any }), at, false);
    Some(filled)
}
