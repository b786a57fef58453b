//! An adapter against a model: what each of its tensors is there.
//!
//! **Invariant:** every tensor has its place, or the adapter is refused by that tensor's name; and every tensor that the
//! config promises is there.

use std::collections::{BTreeMap, BTreeSet};

use super::PeftAdapter;
use super::config::MERGE_INSTEAD;
use crate::library::net::{Owner, Param, ends_with};
use crate::library::stage::network::Anatomy;

/// Linear maps with pairs of one rank and one scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Rank of the pairs.
    pub rank: u64,
    /// Alpha beside that rank.
    pub alpha: f64,
    /// Paths of the maps in the model.
    pub modules: Vec<String>,
}

/// LoRA on a linear map of the head. The head is trained whole, so the product goes into its matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadUpdate {
    /// Path of the map in the model.
    pub module: String,
    /// Name of A among the adapter's tensors.
    pub a: String,
    /// Name of B among the adapter's tensors.
    pub b: String,
    /// Factor of the product.
    pub scale: f64,
}

/// An adapter whose tensors all have a place in a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fitted {
    /// LoRA on the model's linear maps.
    pub groups: Vec<Group>,
    /// LoRA on the head's.
    pub head: Vec<HeadUpdate>,
    /// Modules of the model, without the sequence head's, that were trained whole.
    pub whole: Vec<String>,
    /// The other tensors, by their names in the adapter: the parameters they are values of.
    pub tensors: BTreeMap<String, String>,
}

/// Why an adapter does not fit a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfit {
    /// What is wrong, with the tensor or module.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Misfit {
    fn new(message: String, help: impl Into<String>) -> Self {
        Self {
            message,
            help: help.into(),
        }
    }
}

/// Finds each tensor's place in a model of a family.
///
/// # Errors
/// The first tensor that has none, and the first that is missing.
pub fn fit(adapter: &PeftAdapter, family: &str, parts: &Anatomy) -> Result<Fitted, Misfit> {
    let mut fitting = Fitting {
        adapter,
        family,
        parts,
        outer: "",
        pairs: BTreeMap::new(),
        fitted: Fitted::default(),
    };
    for name in adapter.tensors.names() {
        fitting.place(name)?;
    }
    fitting.check_pairs()?;
    fitting.check_present()?;
    fitting.group()
}

/// A pair's halves, by the names in the file.
#[derive(Debug, Default)]
struct Pair {
    a: Option<String>,
    b: Option<String>,
}

struct Fitting<'a> {
    adapter: &'a PeftAdapter,
    family: &'a str,
    parts: &'a Anatomy,
    /// What the model's paths begin with and the adapter's do not: `bert.` where it was made without a head.
    outer: &'a str,
    /// By the module's path in the file.
    pairs: BTreeMap<String, Pair>,
    fitted: Fitted,
}

impl<'a> Fitting<'a> {
    fn place(&mut self, name: &str) -> Result<(), Misfit> {
        for (suffix, first) in [(".lora_A.weight", true), (".lora_B.weight", false)] {
            if let Some(module) = name.strip_suffix(suffix) {
                let pair = self.pairs.entry(module.to_owned()).or_default();
                let half = if first { &mut pair.a } else { &mut pair.b };
                *half = Some(name.to_owned());
                return Ok(());
            }
        }
        let special = [".lora_", ".base_layer.", ".token_adapter."];
        if special.iter().any(|part| name.contains(part)) {
            let what = if name.contains("lora_embedding") || name.contains("base_layer") {
                "LoRA on embeddings is not built yet"
            } else {
                "this form of LoRA is not built yet"
            };
            return Err(Misfit::new(
                format!("nothing reads `{name}`: {what}"),
                MERGE_INSTEAD,
            ));
        }
        // Buffers, which count 0, 1, 2, …
        if name.ends_with(".position_ids") || name.ends_with(".token_type_ids") {
            return Ok(());
        }
        let parts = self.parts;
        let param =
            called(&parts.params, name, |p| &p.name).ok_or_else(|| self.unknown(name, "tensor"))?;
        if param.owner != Owner::Head {
            self.note_outer(&param.name, name);
        }
        let module = name.rsplit_once('.').map_or("", |(module, _)| module);
        if !self.adapter.config.saves(module) {
            return Err(Misfit::new(
                format!("nothing reads `{name}`: `modules_to_save` does not name `{module}`"),
                "add it there, in adapter_config.json, if it was trained; or remove the tensor",
            ));
        }
        let shape = self.shape(name);
        if param.owner != Owner::Head && shape != param.shape {
            return Err(other_shape(name, &shape, &param.shape));
        }
        if param.owner != Owner::Head && !self.fitted.whole.iter().any(|m| m == param.module()) {
            self.fitted.whole.push(param.module().to_owned());
        }
        self.fitted
            .tensors
            .insert(name.to_owned(), param.name.clone());
        Ok(())
    }

    fn shape(&self, name: &str) -> Vec<u64> {
        let raw = self.adapter.tensors.get(name);
        raw.map(|raw| raw.shape.to_vec()).unwrap_or_default()
    }

    fn note_outer(&mut self, own: &'a str, theirs: &str) {
        if let Some(outer) = own.strip_suffix(theirs).filter(|o| !o.is_empty()) {
            self.outer = outer;
        }
    }

    /// The adapter's path of a module of the model.
    fn theirs<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(self.outer).unwrap_or(path)
    }

    fn unknown(&self, name: &str, what: &str) -> Misfit {
        let base = match self.adapter.config.base.as_str() {
            "" => "another model".to_owned(),
            base => format!("`{base}`"),
        };
        Misfit::new(
            format!(
                "`{name}` is no {what} of this model, which is a `{}`",
                self.family
            ),
            format!("the adapter was made for {base}: name that model, or an adapter of this one"),
        )
    }

    /// Both halves are there, on a linear map, in the right shape; and the config knows of them.
    fn check_pairs(&mut self) -> Result<(), Misfit> {
        let pairs = std::mem::take(&mut self.pairs);
        let parts = self.parts;
        let mut sites = Vec::with_capacity(pairs.len());
        for module in pairs.keys() {
            let Some(site) = called(&parts.sites, module, |s| &s.path) else {
                return Err(match called_module(&parts.params, module) {
                    Some(_) => Misfit::new(
                        format!(
                            "nothing reads LoRA on `{module}`: it is no linear map, and others are not built yet"
                        ),
                        MERGE_INSTEAD,
                    ),
                    None => self.unknown(module, "module"),
                });
            };
            sites.push(site);
        }
        for ((module, pair), site) in pairs.iter().zip(sites) {
            if !site.role.is_head() {
                self.note_outer(&site.path, module);
            }
            let (Some(a), Some(b)) = (&pair.a, &pair.b) else {
                let missing = if pair.a.is_none() { "lora_A" } else { "lora_B" };
                return Err(Misfit::new(
                    format!(
                        "the adapter has no `{module}.{missing}.weight`, the other half of its pair"
                    ),
                    DAMAGED,
                ));
            };
            let config = &self.adapter.config;
            if config.places(module) == Some(false) {
                return Err(Misfit::new(
                    format!("nothing reads `{a}`: the config puts no LoRA on `{module}`"),
                    "add the module to `target_modules` in adapter_config.json, if it was trained; or remove the tensor",
                ));
            }
            let (rank, alpha) = config.sizes(module);
            let (own_a, own_b) = (self.shape(a), self.shape(b));
            if own_a != [rank, site.input()] {
                return Err(other_shape(a, &own_a, &[rank, site.input()]));
            }
            // How many classes there are is known later.
            let rows = if site.role.is_head() {
                own_b.first().copied().unwrap_or_default()
            } else {
                site.output()
            };
            if own_b != [rows, rank] {
                return Err(other_shape(b, &own_b, &[rows, rank]));
            }
            if site.role.is_head() {
                let divisor = if config.rs_lora {
                    (rank as f64).sqrt()
                } else {
                    rank as f64
                };
                self.fitted.head.push(HeadUpdate {
                    module: site.path.clone(),
                    a: a.clone(),
                    b: b.clone(),
                    scale: alpha / divisor,
                });
                continue;
            }
            for (name, suffix) in [(a, "lora_A.weight"), (b, "lora_B.weight")] {
                let own = format!("{}.{suffix}", site.path);
                self.fitted.tensors.insert(name.clone(), own);
            }
        }
        self.pairs = pairs;
        Ok(())
    }

    /// What the config promises is there.
    fn check_present(&self) -> Result<(), Misfit> {
        let config = &self.adapter.config;
        for site in &self.parts.sites {
            let module = self.theirs(&site.path);
            // Which head the adapter's model had, its tensors say.
            let optional = site.role.is_head() || site.role.is_lm();
            if !optional && config.places(module) == Some(true) && !self.pairs.contains_key(module)
            {
                return Err(Misfit::new(
                    format!(
                        "the adapter has no tensors for `{module}`, which its `target_modules` name"
                    ),
                    DAMAGED,
                ));
            }
        }
        let held: BTreeSet<&str> = self.fitted.tensors.values().map(String::as_str).collect();
        let any = |wanted: &dyn Fn(&Param) -> bool| {
            let mut own = self.parts.params.iter().filter(|p| wanted(p));
            own.any(|p| held.contains(p.name.as_str()))
        };
        let head = config.classifies || any(&|p| p.owner == Owner::Head);
        let lm = any(&|p| p.role.is_lm());
        for param in &self.parts.params {
            let there = match param.owner {
                Owner::Head => head,
                _ => lm || !param.role.is_lm(),
            };
            let name = self.theirs(&param.name);
            let module = self.theirs(param.module());
            if there && config.saves(module) && !held.contains(param.name.as_str()) {
                return Err(Misfit::new(
                    format!(
                        "the adapter has no `{name}`, although `modules_to_save` names its module"
                    ),
                    DAMAGED,
                ));
            }
        }
        Ok(())
    }

    fn group(mut self) -> Result<Fitted, Misfit> {
        for module in self.pairs.keys() {
            let Some(site) = called(&self.parts.sites, module, |s| &s.path) else {
                continue;
            };
            if site.role.is_head() {
                continue;
            }
            let (rank, alpha) = self.adapter.config.sizes(module);
            let groups = &mut self.fitted.groups;
            match groups
                .iter_mut()
                .find(|g| g.rank == rank && g.alpha.to_bits() == alpha.to_bits())
            {
                Some(group) => group.modules.push(site.path.clone()),
                None => groups.push(Group {
                    rank,
                    alpha,
                    modules: vec![site.path.clone()],
                }),
            }
        }
        if self.pairs.is_empty() {
            return Err(Misfit::new(
                "the adapter has no LoRA tensors".to_owned(),
                DAMAGED,
            ));
        }
        Ok(self.fitted)
    }
}

const DAMAGED: &str =
    "the file is damaged or was cut down: write it again with peft's `save_pretrained`";

fn other_shape(name: &str, own: &[u64], wanted: &[u64]) -> Misfit {
    Misfit::new(
        format!("`{name}` has the shape {own:?} in this adapter; here it has {wanted:?}"),
        "the adapter was made for another model, or its config says another rank",
    )
}

/// The one that is called `name`, or the only one whose path ends with it.
fn called<'p, T>(list: &'p [T], name: &str, path: impl Fn(&T) -> &String) -> Option<&'p T> {
    if let Some(exact) = list.iter().find(|t| path(t) == name) {
        return Some(exact);
    }
    let mut ends = list.iter().filter(|t| ends_with(path(t), name));
    ends.next().filter(|_| ends.next().is_none())
}

fn called_module<'p>(params: &'p [Param], module: &str) -> Option<&'p Param> {
    params.iter().find(|p| ends_with(p.module(), module))
}
