//! The network under construction. A model asks for its parts here, by site; the chosen methods may
//! wrap each part. So a model never names a method and a method never names a model.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::derive::prune::{Importance, Pruner};
use super::method::Tuning;
use crate::base::rng::Stream;
use crate::program::format::Storing;
use crate::program::op::{Cast, Look, Places, Watch};
use crate::program::{Builder, Class, DType, Feed, Format, Pick, Signal, TensorType, Value};

mod attention;
mod convolution;
mod layers;
mod losses;
mod norms;
mod param;
mod site;
mod waves;

pub use convolution::Convolution;
pub use param::{Cached, Init, Owner, Param, ParamKind, Text, ends_with};
pub use site::{AtDistances, Attend, Beside, Columns, KeyMaps, Normed, Part, ROLES, Role, Site};
pub use waves::Waves;

/// Whether dropout is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training.
    Train,
    /// Training, in a step in which methods choose candidates of places.
    Select,
    /// Evaluation: no dropout anywhere.
    Evaluate,
    /// Generation: as in an evaluation, and each attention puts the keys and values of the tokens it reads into a cache with
    /// this capacity, and attends to what is there of their sequences.
    Generate(CacheCapacity),
    /// What stands before a generation: as in an evaluation, but the keys and values that a decoder makes of sources are put
    /// where each step of the generation finds them.
    Sources(CacheCapacity),
}

/// Reserved of the caches that text is generated with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCapacity {
    /// Tokens of all sequences together.
    pub tokens: u64,
    /// Tokens of one sequence.
    pub longest: u64,
    /// Tokens of all sources together; 0 where sequences are made of none.
    pub sources: u64,
}

impl Mode {
    /// Whether it is training, in whatever step.
    #[must_use]
    pub const fn trains(self) -> bool {
        matches!(self, Self::Train | Self::Select)
    }
}

/// What the network is built for.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Dropout on or off.
    pub mode: Mode,
    /// How frozen weights are stored.
    pub storage: Storing,
    /// Seed of the stage's dropout.
    pub seed: u64,
    /// Whether a step of a training is made of several runs.
    pub parts: bool,
    /// Steps of the training, where a method asks for them.
    pub steps: Option<u64>,
    /// The step, and the steps of an epoch: parameters that begin to be trained later are frozen.
    pub until: Option<(u64, u64)>,
    /// Which of a step's routes it is; each has draws and dropout of its own.
    pub route: u32,
    /// Whether dropout also acts before the first trainable tensor.
    pub dropout_frozen: bool,
    /// The model's own parameters whose gradients are wanted although no method trains them.
    pub probed: BTreeSet<String>,
    /// The model's sites, which methods need to know whose tensors are shared by several.
    pub sites: Vec<Site>,
}

/// Names of what a step of several runs adds up of a watched gradient: its numbers at the candidates, or all of it.
#[must_use]
pub fn watched_parts(path: &str) -> [String; 2] {
    ["part", "whole"].map(|part| format!("gradient.{part}.{path}"))
}

/// Names of what is kept of a watched gradient: candidates of places, the sums of its numbers there and of their squares.
#[must_use]
pub fn watched(path: &str) -> [String; 3] {
    ["candidates", "sums", "squares"].map(|part| format!("optimizer.{part}.{path}"))
}

/// A network being built into a program.
#[derive(Debug)]
pub struct Net<'a> {
    /// The program under construction.
    pub b: &'a mut Builder,
    tuning: &'a Tuning,
    options: NetOptions,
    params: IndexMap<String, Param>,
    sites: Vec<Site>,
    features: Vec<Value>,
    aside: bool,
    pruner: Option<Pruner>,
    pick: Option<Pick>,
    drops: u32,
    /// Whether one of them acts.
    varies: bool,
    /// How often the block that is built was built before.
    run: u32,
    /// Attentions with a cache so far.
    caches: u32,
    /// Attentions to sources of which keys and values are kept, so far.
    kept: u32,
    /// Factor of the rows of the last table.
    table_scale: f64,
    /// Which rows of the last table are read.
    table_ids: Option<Value>,
    /// The table of embeddings that the head is, if it has none of its own.
    tied: Option<Site>,
    /// Paths of the linear maps whose inputs are noted, and of attentions whose keys and values are.
    noted: BTreeSet<String>,
    /// What enters them: the path and the rows, once each time that the map is used.
    inputs: Vec<(String, Value)>,
    /// Keys and values of the attentions among them, likewise.
    cached: Vec<(String, [Value; 2])>,
}

impl<'a> Net<'a> {
    /// A network into `b`, under `tuning`.
    pub fn new(b: &'a mut Builder, tuning: &'a Tuning, options: NetOptions) -> Self {
        Self {
            b,
            tuning,
            options,
            params: IndexMap::new(),
            sites: Vec::new(),
            features: Vec::new(),
            aside: false,
            pruner: None,
            pick: None,
            drops: 0,
            varies: false,
            run: 0,
            caches: 0,
            kept: 0,
            table_scale: 1.0,
            table_ids: None,
            tied: None,
            noted: BTreeSet::new(),
            inputs: Vec::new(),
            cached: Vec::new(),
        }
    }

    /// The parameters declared, in order, and the sites met.
    #[must_use]
    pub fn finish(self) -> (Vec<Param>, Vec<Site>) {
        (self.params.into_values().collect(), self.sites)
    }

    /// Notes what enters the linear maps of these paths, and keys and values of attentions.
    pub fn note(&mut self, paths: BTreeSet<String>) {
        self.noted = paths;
    }

    /// What entered them so far, in the order of the network.
    #[must_use]
    pub fn inputs(&self) -> &[(String, Value)] {
        &self.inputs
    }

    /// Keys and values of the noted attentions so far, each `[T, width]`, turned as the attention reads them.
    #[must_use]
    pub fn cached(&self) -> &[(String, [Value; 2])] {
        &self.cached
    }

    /// Whether dropout acts on something so far.
    #[must_use]
    pub const fn varies(&self) -> bool {
        self.varies
    }

    /// Whether a training's own program is built: what changes from step to step acts only there.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.options.mode.trains()
    }

    /// The key of a stream of the stage's seed, for signals.
    #[must_use]
    pub fn signal_key(&self, purpose: &str) -> [u32; 2] {
        let purpose = self.routed(&format!("signal/{purpose}"));
        Stream::new(self.options.seed, &purpose).key()
    }

    /// The purpose of a stream of the route's own.
    fn routed(&self, purpose: &str) -> String {
        match self.options.route {
            0 => purpose.to_owned(),
            route => format!("route/{route}/{purpose}"),
        }
    }

    /// Numbers that are a function of the step: a vector.
    pub fn signal(&mut self, signal: Signal) -> Value {
        self.b.feed(Feed::Signal(signal))
    }

    /// Shows a state of the backbone to methods that read them.
    pub fn feature(&mut self, x: Value) {
        self.features.push(x);
    }

    /// The states shown so far: what enters the first block, then what leaves each.
    #[must_use]
    pub fn features(&self) -> Vec<Value> {
        self.features.clone()
    }

    /// Builds parts of a network that stands beside the model: its parameters are an adapter's, and
    /// no method wraps its linear maps.
    pub fn aside<R>(&mut self, build: impl FnOnce(&mut Self) -> R) -> R {
        self.aside = true;
        let result = build(self);
        self.aside = false;
        result
    }

    /// From here on narrow copies of the backbone's blocks start as what pruning leaves of them; with
    /// `None` they start with fresh numbers.
    pub fn prune(&mut self, importance: Option<Importance>) {
        self.pruner = importance.map(Pruner::new);
    }

    /// The walk that a model's narrow copies tell what they are copies of, if anything is pruned.
    pub const fn pruner(&mut self) -> Option<&mut Pruner> {
        self.pruner.as_mut()
    }

    /// Declares a parameter and gives its value in storage type.
    fn param(&mut self, mut param: Param) -> Value {
        let trains = self.tuning.trains(&param);
        let begins = |(step, epoch)| self.tuning.begins(&param, epoch) > step;
        let late = trains && self.options.until.is_some_and(begins);
        param.trainable = trains && !late || self.options.probed.contains(&param.name);
        param.rate *= self.tuning.rate(&param);
        let class = if param.trainable {
            Class::Trainable
        } else {
            Class::Frozen
        };
        // What joins later has its bits from the start.
        let ty = match late {
            true => TensorType::fixed(DType::F32, &param.shape),
            false => self.stored(&param),
        };
        let value = self.b.resident(&param.name, ty, class);
        self.params.entry(param.name.clone()).or_insert(param);
        value
    }

    /// How a parameter is stored.
    fn stored(&self, param: &Param) -> TensorType {
        let wide = TensorType::fixed(DType::F32, &param.shape);
        // Vectors stay in f32: they cost nothing and widening them at each use would. So do matrices that a method
        // draws and never trains: files keep them as they are.
        let own = param.format.filter(|f| f.holds(&wide.shape));
        if let (Some(format), false) = (own, param.trainable) {
            return wide.stored_as(format);
        }
        let drawn = param.owner == Owner::Adapter && !param.trains && param.replaces.is_none();
        if param.trainable || param.shape.len() < 2 || drawn {
            return wide;
        }
        match self.options.storage.of(&param.name) {
            Format::Plain(dtype) => TensorType::fixed(dtype, &param.shape),
            // What was trained, or is computed from a weight, keeps its own bits.
            Format::Blocks(_) if param.owner != Owner::Base || self.tuning.has_trained(param) => {
                wide
            }
            format if format.holds(&wide.shape) => wide.stored_as(format),
            // Rows that are no whole blocks.
            Format::Blocks(_) => wide,
        }
    }

    /// The table that the head of a language model is: that of the embeddings, or its own.
    #[must_use]
    pub fn decoder(&self, site: &Site) -> Site {
        let sizes = (site.output(), site.input());
        let own = || Site::table(&site.path, Role::LmDecoder, sizes);
        self.tied.clone().unwrap_or_else(own)
    }

    /// A value in compute type: an explicit node, with its own transient, where storage is narrower.
    pub fn widen(&mut self, value: Value) -> Value {
        if self.b.ty(value).dtype == DType::F32 {
            value
        } else {
            self.b.push1(Cast { to: DType::F32 }, &[value])
        }
    }

    /// Declares a list of places that a method chooses.
    pub fn places(&mut self, param: Param) -> Value {
        let ty = TensorType::fixed(DType::U32, &param.shape);
        let value = self.b.resident(&param.name, ty, Class::Chosen);
        self.params.entry(param.name.clone()).or_insert(param);
        value
    }

    /// Declares a tensor of the model's own that nothing trains and gives its value in storage type.
    pub fn buffer(&mut self, param: Param) -> Value {
        self.param(param.frozen())
    }

    /// Declares a tensor that a method adds and gives its value in compute type.
    pub fn tensor(&mut self, param: Param) -> Value {
        let value = self.param(param);
        self.widen(value)
    }

    /// A parameter of a site's module in compute type, `suffix` being `weight` or `bias`. It starts fresh,
    /// unless it is cut out of the backbone.
    fn module_param(&mut self, site: &Site, suffix: &str, shape: &[u64], kind: ParamKind) -> Value {
        self.module_param_from(site, suffix, shape, (kind, kind.fresh()))
    }

    /// The same with its fresh value.
    fn module_param_from(
        &mut self,
        site: &Site,
        suffix: &str,
        shape: &[u64],
        (kind, fresh): (ParamKind, Init),
    ) -> Value {
        let mut param = Param {
            layer: site.layer,
            init: fresh,
            ..Param::own(format!("{}.{suffix}", site.path), shape, kind, site.role)
        };
        if self.aside {
            param.owner = Owner::Adapter;
        } else if site.role.is_head() {
            param.owner = Owner::Head;
        }
        if let Some(init) = self.pruner.as_ref().and_then(|p| p.init(&param.name)) {
            param.init = init;
        }
        self.tensor(param)
    }

    /// The plain weight `[out, in]` of a linear map; the numbers of a table.
    pub fn weight(&mut self, site: &Site) -> Value {
        if let Part::Table { .. } = site.part {
            let table = self.table(site);
            return self.widen(table);
        }
        if site.role == Role::LmDecoder {
            let table = self.decoder(site);
            let table = self.table_of_decoder(&table);
            return self.widen(table);
        }
        let shape = [site.output(), site.input()];
        self.module_param(site, "weight", &shape, ParamKind::Weight)
    }

    /// The bias `[out]` of a site, if it has one.
    pub fn bias(&mut self, site: &Site) -> Option<Value> {
        site.has_bias()
            .then(|| self.module_param(site, "bias", &[site.output()], ParamKind::Bias))
    }

    /// Looks at the gradient of a map's frozen weight while training: `y` is what it made of `x`. The largest `count` of its
    /// numbers are chosen in a step that selects, of the `whole` step or of its first run; in the others the numbers at these
    /// places are added up.
    pub fn watch(
        &mut self,
        site: &Site,
        (y, x): (Value, Value),
        (count, whole): (u64, bool),
    ) -> Value {
        let parts = self.options.parts;
        let look = match self.options.mode {
            Mode::Train if parts => Look::Sum,
            Mode::Train => Look::Add,
            Mode::Select if parts && whole => Look::Whole,
            Mode::Select => Look::Nominate,
            Mode::Evaluate | Mode::Generate(_) | Mode::Sources(_) => return y,
        };
        let places = Places::entries(site.output(), site.input());
        let [candidates, sums, squares] = watched(&site.path);
        let [part, all] = watched_parts(&site.path);
        let list = TensorType::fixed(DType::F32, &[count]);
        let mut inputs = vec![y, x];
        if look == Look::Whole {
            let ty = places.matrix(DType::F32);
            inputs.push(self.b.resident(&all, ty, Class::Gradient));
        } else {
            let ids = TensorType::fixed(DType::U32, &[count]);
            inputs.push(self.b.resident(&candidates, ids, Class::Optimizer));
            inputs.push(match parts {
                true => self.b.resident(&part, list.clone(), Class::Gradient),
                false => self.b.resident(&sums, list.clone(), Class::Optimizer),
            });
            if look != Look::Sum {
                inputs.push(self.b.resident(&squares, list, Class::Optimizer));
            }
        }
        self.b.push1(Watch { places, look }, &inputs)
    }

    /// All sites of the model, also those that are still to come.
    #[must_use]
    pub fn known_sites(&self) -> &[Site] {
        &self.options.sites
    }

    /// Factor by which a model multiplies the rows of the table that it read last.
    #[must_use]
    pub const fn table_scale(&self) -> f64 {
        self.table_scale
    }

    /// Steps of the training whose own program is built; `None` elsewhere.
    #[must_use]
    pub const fn steps(&self) -> Option<u64> {
        self.options.steps
    }

    /// Which rows a model reads of the table that it read last.
    #[must_use]
    pub const fn table_ids(&self) -> Option<Value> {
        self.table_ids
    }

    /// The stage's seed.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.options.seed
    }

    /// The methods in force.
    #[must_use]
    pub const fn tuning(&self) -> &Tuning {
        self.tuning
    }
}
