//! Bringing a stage's tensors into memory: from checkpoints, from an earlier stage's adapter, from
//! a peft adapter, or from their initialisers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::alloc;
use super::init::{cast, initialise_as, out_of_range};
use super::machine::Runner;
use super::prune::{Guide, Pruning};
use super::weights::Checkpoint;
use crate::files::RunError;
use crate::files::tensorfile::TensorFile;
use crate::library::model::Model;
use crate::library::params::{Init, Owner, Param, ParamKind, SvdPart};
use crate::library::prune::Source;
use crate::library::svd::{Decomposition, decompose, in_own_threads, rest, svd_scratch_bytes};
use crate::program::op::Tensor;
use crate::program::{Bindings, Class, DType, Resident};

/// Where a stage's tensors come from.
#[derive(Debug, Default)]
pub struct Sources {
    /// Plain weights; `None` for random ones.
    pub weights: Option<Checkpoint>,
    /// An adapter left by an earlier stage.
    pub adapter: Option<TensorFile>,
    /// Tensors of adapters in peft's format, by our parameter names.
    pub given: BTreeMap<String, Tensor>,
    /// Products that such adapters add to matrices of the head.
    pub updates: BTreeMap<String, Update>,
    /// Whether the head of the plain weights is one of other classes.
    pub fresh_head: bool,
    /// Seed of random weights.
    pub weights_seed: u64,
    /// Seed of heads and adapters.
    pub seed: u64,
    /// Whether a head or an adapter that nothing holds is made; otherwise it is missing.
    pub fresh: bool,
}

/// `scale · B A`, to be added to a matrix.
#[derive(Debug)]
pub struct Update {
    /// `A [rank, in]`
    pub a: Vec<f32>,
    /// `B [out, rank]`
    pub b: Vec<f32>,
    /// The rank.
    pub rank: usize,
    /// Factor of the product.
    pub scale: f32,
}

impl Update {
    /// Adds it to `[out, in]`.
    fn add_to(&self, matrix: &mut [f32]) {
        let input = self.a.len() / self.rank.max(1);
        for (row, b) in matrix
            .chunks_exact_mut(input.max(1))
            .zip(self.b.chunks_exact(self.rank.max(1)))
        {
            for (a, &b) in self.a.chunks_exact(input.max(1)).zip(b) {
                row.iter_mut()
                    .zip(a)
                    .for_each(|(x, a)| *x += self.scale * b * a);
            }
        }
    }
}

/// Initial singular vectors by name, needed by exports: small, and kept on disk.
pub type Initial = BTreeMap<String, Tensor>;

/// Loads the residents asked for, one tensor at a time, but for those that are in memory; zeroes
/// optimizer state and accumulators.
///
/// # Errors
/// A missing or misshapen tensor, an unreadable file.
pub fn load(
    runner: &mut Runner,
    params: &[Param],
    residents: &[&Resident],
    model: &dyn Model,
    sources: &Sources,
) -> Result<(), RunError> {
    let how = (Guide::nothing(), false);
    load_pruned(runner, params, residents, model, sources, how).map(|_| ())
}

/// The same, with what was measured of the backbone to prune it by. Gives the initial values that exports need, if they
/// are to be kept.
///
/// # Errors
/// A missing or misshapen tensor, an unreadable file.
pub(super) fn load_pruned(
    runner: &mut Runner,
    params: &[Param],
    residents: &[&Resident],
    model: &dyn Model,
    sources: &Sources,
    (guide, keeps): (Guide, bool),
) -> Result<Initial, RunError> {
    let wanted: BTreeMap<&str, &Resident> =
        residents.iter().map(|r| (r.name.as_str(), *r)).collect();
    let mut loader = Loader {
        keeps,
        model,
        sources,
        decomposed: BTreeMap::new(),
        initial: Initial::new(),
    };
    let mut seen = BTreeSet::new();
    // Pruning comes first, while there is little else in memory.
    let mut pruning = Pruning::new(guide, &mut runner.meter);
    let read = |source: &Source| loader.base(&source.name, &source.param(), DType::F32);
    for param in params {
        let resident = wanted.get(param.name.as_str());
        if let (Init::Pruned(cut), Some(resident)) = (&param.init, resident)
            && !loader.given(&param.name)
            && seen.insert(param.name.as_str())
        {
            if let Some(file) = &sources.adapter {
                return Err(missing(file.path(), &param.name));
            }
            let tensor = pruning.cut(cut, param, &read, &mut runner.meter)?;
            let tensor = loader.narrow(&param.name, tensor, resident.ty.dtype)?;
            runner
                .residents
                .insert(&param.name, resident.class, tensor, &mut runner.meter);
            if param.stays_away(resident.class) {
                runner.send(&param.name)?;
            }
        }
    }
    pruning.done(&mut runner.meter);
    for param in params {
        let Some(resident) = wanted.get(param.name.as_str()) else {
            continue;
        };
        let held = runner.residents.holds(&param.name);
        if seen.insert(param.name.as_str()) && !held {
            let scratch = loader.scratch(param);
            runner.meter.scratch(scratch + loader.transient(param));
            let tensor = loader.tensor(param, resident.ty.dtype)?;
            runner
                .residents
                .insert(&param.name, resident.class, tensor, &mut runner.meter);
            if param.stays_away(resident.class) {
                runner.send(&param.name)?;
            }
        }
    }
    for resident in residents
        .iter()
        .filter(|r| matches!(r.class, Class::Gradient | Class::Optimizer))
    {
        let zeros = Tensor::zeros(resident.ty.dtype, &resident.ty.dims(&Bindings::default()));
        runner
            .residents
            .insert(&resident.name, resident.class, zeros, &mut runner.meter);
    }
    if let Some(missing) = residents.iter().find(|r| !runner.residents.holds(&r.name)) {
        return Err(RunError::bug(format!(
            "nothing declares the resident `{}`",
            missing.name
        )));
    }
    Ok(loader.initial)
}

/// An adapter without a tensor that its description promises.
fn missing(path: &Path, name: &str) -> RunError {
    RunError::file(
        path,
        format!("it holds no tensor `{name}`: it is damaged; run the stage that made it again"),
    )
}

struct Loader<'a> {
    /// Whether the initial vectors are wanted.
    keeps: bool,
    model: &'a dyn Model,
    sources: &'a Sources,
    decomposed: BTreeMap<String, Decomposition>,
    initial: Initial,
}

impl Loader<'_> {
    fn scratch(&self, param: &Param) -> u64 {
        match (&param.init, param.shape.as_slice()) {
            (
                Init::Svd {
                    part: SvdPart::Rest,
                    rank,
                    keep,
                    ..
                },
                [out, input],
            ) if self.sources.adapter.is_none() => svd_scratch_bytes(*out, *input, *rank, *keep),
            _ => 0,
        }
    }

    /// The matrix being decomposed is in memory in f32 while it is, before it is metered.
    fn transient(&self, param: &Param) -> u64 {
        if matches!(
            param.init,
            Init::Svd {
                part: SvdPart::Rest,
                ..
            }
        ) {
            param.elements() * 4
        } else {
            0
        }
    }

    fn tensor(&mut self, param: &Param, dtype: DType) -> Result<Tensor, RunError> {
        if let Init::Svd {
            weight,
            part,
            rank,
            keep,
        } = &param.init
        {
            return self.svd_part(param, weight, *part, *rank, *keep, dtype);
        }
        if let Some(update) = self.sources.updates.get(&param.name) {
            let mut tensor = self.head(param, DType::F32, false)?;
            if let Some(data) = tensor.slice_mut::<f32>() {
                update.add_to(data);
            }
            return self.narrow(&param.name, tensor, dtype);
        }
        if param.owner == Owner::Head {
            return self.head(param, dtype, self.sources.fresh);
        }
        if let Some(tensor) = self.adapter_tensor(&param.name, param)? {
            return self.narrow(&param.name, tensor, dtype);
        }
        if param.owner == Owner::Base {
            return self.base(&param.name, param, dtype);
        }
        if let Some(file) = &self.sources.adapter {
            return Err(missing(file.path(), &param.name));
        }
        if !self.sources.fresh {
            return Err(RunError::bug(format!("no file holds `{}`", param.name)));
        }
        Ok(initialise_as(param, self.sources.seed, dtype))
    }

    /// A parameter of the head: the adapter's, the checkpoint's, or a fresh one.
    fn head(&self, param: &Param, dtype: DType, fresh: bool) -> Result<Tensor, RunError> {
        if let Some(tensor) = self.adapter_tensor(&param.name, param)? {
            return self.narrow(&param.name, tensor, dtype);
        }
        // An adapter holds its head, whatever head lies below it.
        if let (false, Some(file)) = (fresh, &self.sources.adapter) {
            return Err(missing(file.path(), &param.name));
        }
        let names = self.model.checkpoint_names(&param.name);
        let weights = self.sources.weights.as_ref();
        let shape = weights.and_then(|w| names.iter().find_map(|n| w.info(n)));
        if let (Some(weights), Some((_, shape))) = (weights, shape)
            && (shape == param.shape || !fresh)
            && !self.sources.fresh_head
            && let Some(tensor) = weights.read(&names, &param.shape, dtype)?
        {
            return Ok(tensor);
        }
        if fresh {
            return Ok(initialise_as(param, self.sources.seed, dtype));
        }
        Err(match weights {
            Some(weights) => RunError::file(
                weights.path(),
                format!(
                    "there is no tensor `{}`: the model has no trained head of this kind; train one first",
                    param.name
                ),
            ),
            None => RunError::bug(format!("no file holds `{}`", param.name)),
        })
    }

    /// A tensor in the type it is held in, if its numbers are in that type's range.
    fn narrow(&self, name: &str, tensor: Tensor, dtype: DType) -> Result<Tensor, RunError> {
        let narrower = dtype != tensor.dtype();
        match out_of_range(name, &tensor, dtype).filter(|_| narrower) {
            None => Ok(cast(tensor, dtype)),
            Some(why) => {
                let adapter = self.sources.adapter.as_ref().map(|f| f.path().to_owned());
                let weights = self.sources.weights.as_ref().map(Checkpoint::path);
                let path = adapter.or(weights).unwrap_or_default();
                Err(RunError::file(path, format!("cannot be held: {why}")))
            }
        }
    }

    /// Whether the stage starts from an adapter that holds a tensor.
    fn given(&self, name: &str) -> bool {
        let earlier = self.sources.adapter.as_ref();
        earlier.is_some_and(|file| file.get(name).is_some())
            || self.sources.given.contains_key(name)
    }

    fn adapter_tensor(&self, name: &str, param: &Param) -> Result<Option<Tensor>, RunError> {
        let found = match &self.sources.adapter {
            Some(file) if file.get(name).is_some() => Some(file.tensor(name)?),
            _ => self.sources.given.get(name).cloned(),
        };
        match found {
            Some(tensor)
                if tensor
                    .dims
                    .iter()
                    .map(|&d| d as u64)
                    .ne(param.shape.iter().copied()) =>
            {
                let what = format!(
                    "the adapter holds `{name}` as {:?}, {:?} is wanted",
                    tensor.dims, param.shape
                );
                Err(match &self.sources.adapter {
                    Some(file) => {
                        RunError::file(file.path(), format!("{what}; run the stage again"))
                    }
                    None => RunError::bug(what),
                })
            }
            found => Ok(found),
        }
    }

    fn base(&self, name: &str, param: &Param, dtype: DType) -> Result<Tensor, RunError> {
        let Some(weights) = &self.sources.weights else {
            // A decomposed matrix starts from what the plain weight would be.
            let init = if matches!(param.init, Init::Svd { .. }) {
                ParamKind::Weight.fresh()
            } else {
                param.init.clone()
            };
            let plain = Param {
                name: name.to_owned(),
                init,
                ..param.clone()
            };
            return Ok(initialise_as(&plain, self.sources.weights_seed, dtype));
        };
        let names = self.model.checkpoint_names(name);
        weights.read(&names, &param.shape, dtype)?.ok_or_else(|| {
            let have: Vec<&str> = weights.names().take(3).collect();
            RunError::file(weights.path(), format!("there is no tensor `{}` (there are `{}`, …): the weights belong to another model", names.join("` or `"), have.join("`, `")))
        })
    }

    fn svd_part(
        &mut self,
        param: &Param,
        weight: &str,
        part: SvdPart,
        rank: u64,
        keep: Option<u64>,
        dtype: DType,
    ) -> Result<Tensor, RunError> {
        if part != SvdPart::Rest {
            if let Some(tensor) = self.adapter_tensor(&param.name, param)? {
                return self.narrow(&param.name, tensor, dtype);
            }
            if let Some(file) = &self.sources.adapter {
                return Err(missing(file.path(), &param.name));
            }
            let Some(d) = self.decomposed.get_mut(weight) else {
                return Err(RunError::bug(format!(
                    "`{}` is asked for before its matrix is decomposed",
                    param.name
                )));
            };
            let (data, keep_copy) = match part {
                SvdPart::U => (d.u.clone(), true),
                SvdPart::V => (d.v.clone(), true),
                _ => (d.s.clone(), false),
            };
            let dims: Vec<usize> = param.shape.iter().map(|&n| n as usize).collect();
            let tensor = Tensor::new(data, &dims);
            if keep_copy && self.keeps {
                self.initial.insert(param.name.clone(), tensor.clone());
            }
            return self.narrow(&param.name, tensor, dtype);
        }
        let stem = param.name.trim_end_matches("siva_W");
        if let Some(dense) = self.adapter_tensor(&param.name, param)? {
            return self.narrow(&param.name, dense, dtype);
        }
        let mut tensor = self.base(weight, param, DType::F32)?;
        let [out, input] = param.shape.as_slice() else {
            return Err(RunError::bug("a matrix is wanted"));
        };
        let (out, input) = (*out as usize, *input as usize);
        let earlier = |suffix: &str| -> Result<Option<Vec<f32>>, RunError> {
            let Some(file) = &self.sources.adapter else {
                return Ok(None);
            };
            let name = format!("{stem}{suffix}");
            if file.get(&name).is_none() {
                return Ok(None);
            }
            Ok(file.tensor(&name)?.slice::<f32>().map(<[f32]>::to_vec))
        };
        let data = tensor.slice_mut::<f32>().unwrap_or_default();
        let decomposition = match (earlier("siva_U0")?, earlier("siva_S")?, earlier("siva_V0")?) {
            (Some(u), Some(s), Some(v)) => {
                let vectors = [
                    ("siva_U", &u, [out, rank as usize]),
                    ("siva_V", &v, [rank as usize, input]),
                ];
                for (suffix, values, dims) in vectors.into_iter().filter(|_| self.keeps) {
                    self.initial.insert(
                        format!("{stem}{suffix}"),
                        Tensor::new(values.clone(), &dims),
                    );
                }
                Decomposition {
                    u,
                    s,
                    v,
                    tail: None,
                }
            }
            _ => in_own_threads(|| {
                decompose(data, out, input, rank as usize, keep.map(|k| k as usize))
            })
            .map_err(|why| RunError::bug(format!("`{weight}` cannot be decomposed: {why}")))?,
        };
        in_own_threads(|| rest(data, &decomposition));
        // Aligned blocks of one decomposition do not fit into the gaps that those of the last one left.
        alloc::release_freed_blocks();
        self.decomposed.clear();
        self.decomposed.insert(weight.to_owned(), decomposition);
        self.narrow(&param.name, tensor, dtype)
    }
}
