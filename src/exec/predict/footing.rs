//! The plain weights that a model reads: they say which models can stand on one backbone.

use std::collections::BTreeMap;

use super::backbone::own;
use super::writer::Capacity;
use super::{DESCRIPTION, Predictor};
use crate::exec::load::Origins;
use crate::files::RunError;
use crate::files::tensorfile::bytes_of;
use crate::library::model::Model;
use crate::library::net::Param;
use crate::plan::Plan;
use crate::program::{Class, Resident};

/// Plain weights, each with the hash of its elements as they are stored.
#[derive(Clone, Debug, Default)]
pub struct Footing {
    /// The family of the model, and how its matrices are stored.
    kind: String,
    tensors: BTreeMap<String, blake3::Hash>,
}

impl Footing {
    /// Takes the weights of another model to its own, if all that both have are the same. Heads and what adapters change
    /// are no plain weights: they may differ.
    pub fn join(&mut self, other: &Self) -> bool {
        let common = other.tensors.iter().filter_map(|(name, hash)| {
            let own = self.tensors.get(name)?;
            Some(own == hash)
        });
        let (all, same) = common.fold((0, 0), |(all, same), is| (all + 1, same + i32::from(is)));
        let fits = self.kind == other.kind && all > 0 && all == same;
        if fits {
            let more = other
                .tensors
                .iter()
                .map(|(name, hash)| (name.clone(), *hash));
            self.tensors.extend(more);
        }
        fits
    }
}

impl Predictor {
    /// The plain weights that it reads.
    ///
    /// # Errors
    /// They cannot be read, or its methods do not fit.
    pub fn footing(&self) -> Result<Footing, RunError> {
        let damaged = |why: String| RunError::file(self.folder.join("config.json"), why);
        let described = |why: String| RunError::file(self.folder.join(DESCRIPTION), why);
        let model = self.architecture().map_err(damaged)?;
        let (residents, params): (Vec<Resident>, Vec<Param>) = if self.task.generates() {
            let least = Capacity {
                places: 1,
                tokens: 2,
                source: 1,
            };
            let (programs, built) = self.generating(&model, least, 1)?;
            let residents = programs.all().flat_map(|own| &own.program().residents);
            (residents.cloned().collect(), built.params)
        } else {
            let made = Plan::predicting(self.served(model.clone())?);
            let (program, built) = made.map_err(described)?;
            (program.program().residents.clone(), built.params)
        };
        let sources = self.sources(&params, model.as_ref())?;
        let storage = self.description.storage.as_deref().unwrap_or_default();
        let mut footing = Footing {
            kind: format!("{} {storage}", model.family()),
            tensors: BTreeMap::new(),
        };
        let all: Vec<&Resident> = residents.iter().collect();
        let own = own(&params, &all, &sources);
        let plain = |r: &&Resident| r.class != Class::Cache && !own.contains(&r.name);
        for resident in all.into_iter().filter(plain) {
            let hash = hashed(resident, &params, model.as_ref(), &sources)?;
            footing.tensors.insert(resident.name.clone(), hash);
        }
        Ok(footing)
    }
}

/// The hash of a plain weight as it is stored in memory.
fn hashed(
    resident: &Resident,
    params: &[Param],
    model: &dyn Model,
    sources: &Origins,
) -> Result<blake3::Hash, RunError> {
    let name = &resident.name;
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{name} {}", resident.ty).as_bytes());
    let Some(weights) = &sources.weights else {
        hasher.update(format!("random {}", sources.weights_seed).as_bytes());
        return Ok(hasher.finalize());
    };
    let mut of = params.iter().filter(|param| param.name == *name);
    let param = of
        .next()
        .ok_or_else(|| RunError::bug(format!("nothing declares `{name}`")))?;
    let names = model.checkpoint_names(name);
    let read = match param.is_made() {
        true => None,
        false => weights.read(&names, &param.shape, resident.ty.stored)?,
    };
    if read.is_none() && param.is_buffer() {
        hasher.update(format!("made {:?}", param.init).as_bytes());
        return Ok(hasher.finalize());
    }
    let read = read.ok_or_else(|| {
        let what = format!("there is no tensor `{}`", names.join("` or `"));
        RunError::file(weights.path(), what)
    })?;
    hasher.update(bytes_of(&read));
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footing(kind: &str, list: &[(&str, &str)]) -> Footing {
        let each = list.iter();
        let tensors = each.map(|(name, of)| ((*name).to_owned(), blake3::hash(of.as_bytes())));
        Footing {
            kind: kind.to_owned(),
            tensors: tensors.collect(),
        }
    }

    #[test]
    fn models_stand_together_where_all_that_both_read_is_the_same() {
        let mut own = footing("bert", &[("a", "1"), ("b", "2")]);
        assert!(own.join(&footing("bert", &[("a", "1"), ("c", "3")])));
        assert!(!own.join(&footing("bert", &[("a", "1"), ("b", "3")])));
        // What came with another counts.
        assert!(!own.join(&footing("bert", &[("a", "1"), ("c", "4")])));
        assert!(!own.join(&footing("bert f16", &[("a", "1")])));
        assert!(!own.join(&footing("bert", &[("d", "1")])));
    }
}
