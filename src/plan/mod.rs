//! From recipe to plan: the stage graph bound to models and data, lowered to jobs, with
//! fingerprints and estimates. Nothing is executed.

pub mod bind;
mod dag;
pub mod error;
pub mod estimate;
pub mod facts;
mod prompt;
pub mod render;
pub mod solve;
pub mod split;
pub mod sweep;

use std::sync::Arc;

use indexmap::IndexMap;

use crate::base::world::World;
use crate::base::{Diag, Diags, Outcome, Span, Spanned};
use crate::exec::peft;
use crate::library::method::{Tuning, method};
use crate::library::model::{self, HeadKind, Model};
use crate::library::net::Mode;
use crate::library::objective::Objective;
use crate::library::params::Param;
use crate::library::placement::{Pattern, Placement, Site};
use crate::library::prompt::Prompt;
use crate::library::schema::{Checked, Filled, Values};
use crate::library::stage::job::Job;
use crate::library::stage::{SplitFacts, StageCx, StageKind, network, stage};
use crate::program::Builder;
use crate::program::op::Machine;
use crate::resolve::points::Gather;
use crate::resolve::{Declared, Recipe, Swept};
use bind::{Binder, BoundModel, BoundSplit, Want};
use error::{
    BAD_ADAPTER, BAD_LABELS, EMPTY_PLACEMENT, LENGTH_TOO_LARGE, METHOD_WITHOUT_EFFECT,
    OVERLAPPING_ADAPTERS, UNMERGED_ADAPTER, WRONG_PORT,
};
use estimate::{Around, Estimate};
use sweep::{Here, Merger, Resolved, SweptAxis};

/// Version of the fingerprints: it changes when the meaning of a recipe changes.
pub const FINGERPRINT_SCHEMA: u32 = 1;

/// What flows from a stage to the next.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The model.
    pub model: Arc<BoundModel>,
    /// Adapters that are not folded in.
    pub tuning: Tuning,
    /// What was learned.
    pub objective: Objective,
    /// The head.
    pub head: HeadKind,
    /// What stands around the text.
    pub prompt: Option<Arc<Prompt>>,
    /// Tokens after which text is cut.
    pub max_length: u64,
    /// The stage that holds the plain weights, if not the model's own files.
    pub weights: Option<String>,
    /// The stage that holds the adapter.
    pub adapter: Option<String>,
}

impl Handed {
    /// Token ids of the label words, where they are what is learned.
    #[must_use]
    pub fn words(&self) -> Option<Vec<u32>> {
        let words = || {
            self.prompt
                .as_ref()
                .map(|p| p.words.clone())
                .unwrap_or_default()
        };
        (self.objective == Objective::LabelWords).then(words)
    }
}

/// A planned stage.
#[derive(Debug)]
pub struct Stage {
    /// Its name; in a sweep with the values that make it this one.
    pub name: Spanned<String>,
    /// Its name in the recipe.
    pub declared: String,
    /// The swept `let`s that reach it, with their values in short.
    pub at: Vec<(String, String)>,
    /// Its kind.
    pub kind: &'static dyn StageKind,
    /// Its values.
    pub filled: Filled,
    /// The stage it comes from.
    pub parent: Option<String>,
    /// What it starts from.
    pub start: Handed,
    /// What it leaves; `None` for reports.
    pub leaves: Option<Handed>,
    /// The methods in force while it runs.
    pub trained_with: Tuning,
    /// The architecture, dropout overridden.
    pub model: Arc<dyn Model>,
    /// Its splits, in the order of the kind's split keys.
    pub splits: Vec<Option<Arc<BoundSplit>>>,
    /// The work.
    pub job: Job,
    /// Memory and work.
    pub estimate: Estimate,
    /// What its result depends on, by name.
    pub parts: IndexMap<String, String>,
    /// Hash of the parts; `None` where an input's identity could not be had.
    pub fingerprint: Option<String>,
}

impl Stage {
    /// Directories of peft adapters its methods start from.
    #[must_use]
    pub fn start_adapters(&self) -> Vec<std::path::PathBuf> {
        self.trained_with
            .methods
            .iter()
            .filter_map(|(_, f)| f.values.str("start"))
            .map(std::path::PathBuf::from)
            .collect()
    }

    /// Whether its number of steps depends on data that are not at hand.
    #[must_use]
    pub fn steps_unknown(&self) -> bool {
        let first = self.splits.first().and_then(Option::as_ref);
        first.is_some_and(|s| s.lengths.count().is_none()) && !self.filled.values.written("steps")
    }

    /// Names of its methods.
    #[must_use]
    pub fn methods(&self) -> Vec<&str> {
        self.trained_with
            .methods
            .iter()
            .map(|(m, _)| m.schema().name)
            .collect()
    }
}

/// A planned pipeline.
#[derive(Debug, Default)]
pub struct Plan {
    /// Stages, each after those it needs.
    pub stages: Vec<Stage>,
    /// The swept `let`s.
    pub axes: Vec<SweptAxis>,
    /// Combinations of their values.
    pub points: usize,
}

impl Plan {
    /// A stage by name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.name.value == name)
    }
}

/// Plans a recipe, at all its points, for a machine.
pub fn plan(swept: &Swept, world: &dyn World, machine: &Machine) -> Outcome<Plan> {
    let none = Recipe::default();
    let mut binder = Binder::new(&none, world);
    let mut plan = Plan::default();
    let mut merger = Merger::default();
    let mut homes: Vec<Here<'_>> = Vec::new();
    let mut gather = Gather::default();
    for recipe in &swept.recipes {
        let mut diags = Diags::default();
        binder.recipe = recipe;
        binder.models(&mut diags);
        let mut here = Here::new();
        for declared in dag::order(recipe, &mut diags) {
            let values = Resolved::new(recipe, declared, &here);
            let place = if let Some((place, own)) = merger.known(&values) {
                own.iter().for_each(|d| diags.push(d.clone()));
                *place
            } else {
                let name = &declared.name.value;
                let alias = if swept.points.swept() {
                    format!("{name}@{}", plan.stages.len())
                } else {
                    name.clone()
                };
                let mut own = Diags::default();
                let planned = Planner {
                    binder: &mut binder,
                    plan: &plan,
                    here: &here,
                    machine,
                }
                .stage(declared, alias, &mut own);
                let planned = planned.filter(|_| !own.has_errors());
                let place = merger.put(&mut plan, &values, planned, &own);
                diags.extend(own);
                place
            };
            if let Some(place) = place {
                here.insert(&declared.name.value, place);
            }
        }
        homes.push(here);
        gather.add(diags);
        if gather.enough() {
            break;
        }
    }
    let mut diags = gather.into_diags(&swept.points);
    if !diags.has_errors() {
        sweep::finish(&mut plan, swept, &homes, &merger, &mut diags);
        sweep::check_targets(&plan, &mut diags);
    }
    Outcome::new(Some(plan), diags)
}

struct Planner<'a, 'b> {
    binder: &'a mut Binder<'b>,
    plan: &'a Plan,
    here: &'a Here<'a>,
    machine: &'a Machine,
}

impl Planner<'_, '_> {
    /// Plans a declared stage under the name that tells it from its variants.
    fn stage(&mut self, declared: &Declared, alias: String, diags: &mut Diags) -> Option<Stage> {
        let filled = &declared.filled;
        let values = &filled.values;
        let kind = stage(&filled.name)?;
        kind.check(values, filled.span, diags);
        let (mut start, parent) = self.start(values, kind, diags)?;
        let mut model = model::parse(&start.model.config).ok()?;
        if let Some(rate) = values.opt_float("dropout") {
            model.override_dropout(rate);
        }
        let most = model.facts().max_length;
        if let Some(length) = values.opt_int("max_length") {
            if length > most {
                diags.push(
                    Diag::error(
                        &LENGTH_TOO_LARGE,
                        values.span("max_length"),
                        format!(
                            "`max_length` is {length}, but the model reads at most {most} tokens"
                        ),
                    )
                    .help(format!("write at most `max_length = {most}`")),
                );
                return None;
            }
            start.max_length = length;
        } else if parent.is_none() {
            start.max_length = most;
        }
        let tuning = self.tuning(
            declared,
            kind,
            &start,
            parent.is_some(),
            model.facts().layers,
            diags,
        )?;
        let mut splits = Vec::new();
        let mut complete = true;
        let written = values.str("objective").and_then(Objective::by_name);
        let objective = if values.written("objective") || parent.is_none() {
            written.unwrap_or(start.objective)
        } else {
            start.objective
        };
        if objective != start.objective && (parent.is_some() || objective == Objective::Regress) {
            start.head = objective.head(&[]);
        }
        start.objective = objective;
        let prompt = prompt::take(
            self.binder.recipe,
            kind,
            values,
            declared.name.span,
            &mut start,
            diags,
        )?;
        for key in kind.splits() {
            let known = match &start.head {
                HeadKind::Classes(names) if !names.is_empty() => Some(names.as_slice()),
                _ => None,
            };
            let want = Want {
                objective: start.objective,
                classes: known,
                template: start.prompt.as_ref().map(|p| {
                    (
                        &p.template,
                        prompt.map_or(values.span(key), |d| d.name.span),
                    )
                }),
                max_length: start.max_length,
            };
            let bound = match values.reference(key) {
                Some((name, Some(split))) => {
                    let at = values.span(key);
                    let bound = self
                        .binder
                        .split(name, split, &start.model, want, at, diags);
                    complete &= bound.is_some();
                    bound
                }
                _ => None,
            };
            if let (Some(split), None, Objective::Classify | Objective::LabelWords) =
                (&bound, known, start.objective)
            {
                start.head = HeadKind::Classes(self.classes(split, values.span(key), diags)?);
            }
            splits.push(bound);
        }
        if !complete {
            return None;
        }
        let model: Arc<dyn Model> = Arc::from(model);
        if let HeadKind::Classes(names) = &start.head
            && names.is_empty()
        {
            start.head = HeadKind::Classes(vec!["0".into(), "1".into()]);
        }
        if let Some(declared) = prompt {
            prompt::label_words(declared, &mut start, diags)?;
        }
        let facts = splits
            .iter()
            .map(|s| {
                s.as_ref().map(|s| SplitFacts {
                    examples: s.lengths.count(),
                })
            })
            .collect();
        let cx = StageCx {
            values,
            span: declared.name.span,
            model: model.clone(),
            storage: start.model.storage,
            tuning: tuning.clone(),
            objective: start.objective,
            head: start.head.clone(),
            words: start.words(),
            splits: facts,
        };
        if !check_methods(&cx, &tuning, values, diags) {
            return None;
        }
        let job = match kind.lower(&cx) {
            Ok(job) => job,
            Err(list) => {
                list.into_iter().for_each(|d| diags.push(d));
                return None;
            }
        };
        if !check_shapes(&tuning, &job.params, diags) {
            return None;
        }
        let lengths: Vec<_> = splits
            .iter()
            .map(|s| s.as_ref().map(|s| &s.lengths))
            .collect();
        let host = splits.iter().flatten().map(|s| s.host_bytes).sum();
        let around = Around {
            host,
            decomposes: start.adapter.is_none(),
        };
        let estimate = estimate::estimate(&job, &lengths, self.machine, around);
        let name = Spanned::new(alias, declared.name.span);
        let leaves = leaves(kind, &name.value, &start, &tuning);
        let (parts, fingerprint) =
            self.fingerprint(kind, filled, &start, parent.as_deref(), &splits);
        Some(Stage {
            name,
            declared: declared.name.value.clone(),
            at: Vec::new(),
            kind,
            filled: filled.clone(),
            parent,
            start,
            leaves,
            trained_with: tuning,
            model,
            splits,
            job,
            estimate,
            parts,
            fingerprint,
        })
    }

    /// What the stage starts from, and the stage that leaves it.
    fn start(
        &mut self,
        values: &Values,
        kind: &dyn StageKind,
        diags: &mut Diags,
    ) -> Option<(Handed, Option<String>)> {
        if let Some((name, _)) = values.reference("from") {
            let parent = self.plan.stages.get(*self.here.get(name)?)?;
            let Some(handed) = parent.leaves.clone() else {
                diags.push(
                    Diag::error(
                        &WRONG_PORT,
                        values.span("from"),
                        format!(
                            "`{name}` is an `{}` stage and leaves no model",
                            parent.filled.name
                        ),
                    )
                    .label("no model comes from here")
                    .related(parent.name.span, "declared here"),
                );
                return None;
            };
            return Some((handed, Some(parent.name.value.clone())));
        }
        let (name, _) = values.reference("model")?;
        let model = self.binder.model(name)?;
        let (objective, head) = if kind.trains() {
            (Objective::Classify, HeadKind::Classes(Vec::new()))
        } else {
            trained_head(&model)
        };
        let tuning = Tuning::default();
        Some((
            Handed {
                model,
                tuning,
                objective,
                head,
                prompt: None,
                max_length: 0,
                weights: None,
                adapter: None,
            },
            None,
        ))
    }

    /// The methods in force: the stage's own, or those of the stage it continues.
    fn tuning(
        &self,
        declared: &Declared,
        kind: &dyn StageKind,
        start: &Handed,
        continues: bool,
        n_layers: u64,
        diags: &mut Diags,
    ) -> Option<Tuning> {
        let (base, values) = (declared.base.as_path(), &declared.filled.values);
        if !kind.trains() {
            return Some(Tuning {
                n_layers,
                ..start.tuning.clone()
            });
        }
        let own = |key: &str| values.written(key) || !continues || start.tuning.methods.is_empty();
        let written: Vec<Filled> = values
            .entry("adapter")
            .filter(|_| own("adapter") && !values.written("adapters"))
            .into_iter()
            .cloned()
            .chain(values.entries("adapters").iter().cloned())
            .collect();
        let inherited = start.adapter.is_some();
        if written.is_empty() && continues && !start.tuning.methods.is_empty() {
            return Some(Tuning {
                n_layers,
                frozen: false,
                ..start.tuning.clone()
            });
        }
        if written.is_empty() {
            diags.push(
                Diag::error(&crate::resolve::error::MISSING_KEY, values.span("data"), "the stage names no method")
                    .help("write `adapter = lora { … }`, or `adapter = full` to train everything; `peftc list methods` names them all"),
            );
            return None;
        }
        if inherited {
            let key = if values.written("adapter") {
                "adapter"
            } else {
                "adapters"
            };
            diags.push(
                Diag::error(&UNMERGED_ADAPTER, values.span(key), "the stage it comes from leaves an adapter that is not folded in")
                    .label("other methods would stand on it")
                    .help("put a `merge` stage between, or remove this key to go on with the same adapter"),
            );
            return None;
        }
        let written = written
            .into_iter()
            .map(|f| start_from_peft(base, f, diags))
            .collect::<Option<Vec<_>>>()?;
        let methods = written
            .into_iter()
            .filter_map(|f| Some((method(&f.name)?, f)))
            .collect();
        Some(Tuning {
            methods,
            n_layers,
            frozen: false,
        })
    }

    fn classes(&self, split: &BoundSplit, at: Span, diags: &mut Diags) -> Option<Vec<String>> {
        if split.encoded.is_some() && split.classes.len() < 2 {
            diags.push(
                Diag::error(
                    &BAD_LABELS,
                    at,
                    format!(
                        "a classification needs at least two classes; these data have {}",
                        split.classes.len()
                    ),
                )
                .help("check `label`, or write `objective = regress` to learn a number"),
            );
            return None;
        }
        Some(split.classes.clone())
    }

    fn fingerprint(
        &self,
        kind: &dyn StageKind,
        filled: &Filled,
        start: &Handed,
        parent: Option<&str>,
        splits: &[Option<Arc<BoundSplit>>],
    ) -> (IndexMap<String, String>, Option<String>) {
        let mut parts = IndexMap::new();
        let mut whole = true;
        parts.insert("schema".to_owned(), FINGERPRINT_SCHEMA.to_string());
        parts.insert("kind".to_owned(), kind.schema().name.to_owned());
        parts.insert(
            "numeric".to_owned(),
            format!("{} frozen, f32 arithmetic", start.model.storage),
        );
        let mut keys: Vec<(&str, &Checked)> = filled
            .values
            .iter()
            .filter(|(_, v)| !matches!(v, Checked::Ref(..)))
            .collect();
        keys.sort_by_key(|(k, _)| *k);
        for (key, value) in keys {
            parts.insert(format!("key {key}"), value.to_string());
        }
        match parent.and_then(|p| self.plan.stage(p)) {
            Some(parent) => {
                whole &= parent.fingerprint.is_some();
                parts.insert(
                    "from".to_owned(),
                    parent.fingerprint.clone().unwrap_or_default(),
                );
            }
            None => {
                whole &= start.model.identity.is_some();
                parts.insert(
                    "model".to_owned(),
                    start.model.identity.clone().unwrap_or_default(),
                );
            }
        }
        if let Some(prompt) = &start.prompt {
            parts.insert(
                "prompt".to_owned(),
                format!("{:?} {:?}", prompt.template.source, prompt.words),
            );
        }
        for (key, split) in kind.splits().iter().zip(splits) {
            if let Some(split) = split {
                whole &= split.identity.is_some();
                parts.insert(
                    (*key).to_owned(),
                    split.identity.clone().unwrap_or_default(),
                );
            }
        }
        let text: Vec<String> = parts.iter().map(|(k, v)| format!("{k}\u{1f}{v}")).collect();
        let hash = blake3::hash(text.join("\u{1e}").as_bytes())
            .to_hex()
            .to_string();
        (parts, whole.then_some(hash))
    }
}

/// Objective and head of a model that comes with a trained head.
fn trained_head(model: &BoundModel) -> (Objective, HeadKind) {
    let config = &model.config;
    if config.get("problem_type").and_then(|p| p.as_str()) == Some("regression") {
        return (Objective::Regress, HeadKind::Regression);
    }
    let names = config.get("id2label").and_then(|m| m.as_object());
    let mut pairs: Vec<(u64, String)> = names
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.parse().ok()?, v.as_str()?.to_owned())))
        .collect();
    pairs.sort();
    (
        Objective::Classify,
        HeadKind::Classes(pairs.into_iter().map(|(_, n)| n).collect()),
    )
}

fn leaves(kind: &dyn StageKind, name: &str, start: &Handed, tuning: &Tuning) -> Option<Handed> {
    let mut handed = start.clone();
    if kind.merges() {
        handed.tuning = Tuning {
            n_layers: tuning.n_layers,
            ..Tuning::default()
        };
        handed.weights = Some(name.to_owned());
        handed.adapter = None;
        return Some(handed);
    }
    if !kind.trains() {
        return None;
    }
    handed.tuning = tuning.clone();
    if tuning.leaves_adapter() {
        handed.adapter = Some(name.to_owned());
    } else {
        handed.weights = Some(name.to_owned());
        handed.adapter = None;
        handed.tuning = Tuning {
            n_layers: tuning.n_layers,
            ..Tuning::default()
        };
    }
    Some(handed)
}

/// Methods against the model's sites: ranks, empty placements, overlaps, idle methods.
fn check_methods(cx: &StageCx<'_>, tuning: &Tuning, values: &Values, diags: &mut Diags) -> bool {
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
fn check_shapes(tuning: &Tuning, params: &[Param], diags: &mut Diags) -> bool {
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
fn start_from_peft(
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
