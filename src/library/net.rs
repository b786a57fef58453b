//! The network under construction. A model asks for its parts here, by site; the chosen methods may
//! wrap each part. So a model never names a method and a method never names a model.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::method::Tuning;
use super::params::{Init, Owner, Param, ParamKind};
use super::placement::{Role, Site};
use super::prune::{Importance, Pruner};
use crate::base::rng::Stream;
use crate::program::op::{
    Activation, ActivationKind, Add, Attention, AttentionDropout, Cast, Dropout, Epilogue, Gather,
    Indices, LayerNorm, MatMul,
};
use crate::program::{Builder, Class, DType, Dim, Feed, Real, Sym, TensorType, Value};

/// Whether dropout is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training.
    Train,
    /// Evaluation: no dropout anywhere.
    Evaluate,
}

/// What the network is built for.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Dropout on or off.
    pub mode: Mode,
    /// Storage type of frozen weights.
    pub storage: DType,
    /// Seed of the stage's dropout.
    pub seed: u64,
    /// Whether dropout also acts before the first trainable tensor.
    pub dropout_frozen: bool,
    /// The model's own parameters whose gradients are wanted although no method trains them.
    pub probed: BTreeSet<String>,
}

/// The rows that a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Each sequence's first token's.
    First,
    /// Each sequence's mask's, put there by a prompt.
    Mask,
    /// Those of all masked places.
    Masked,
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
        }
    }

    /// The parameters declared, in order, and the linear sites met.
    #[must_use]
    pub fn finish(self) -> (Vec<Param>, Vec<Site>) {
        (self.params.into_values().collect(), self.sites)
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
        param.trainable = self.tuning.trains(&param) || self.options.probed.contains(&param.name);
        let (dtype, class) = if param.trainable {
            (DType::F32, Class::Trainable)
        } else {
            (self.options.storage, Class::Frozen)
        };
        // Vectors stay in f32: they cost nothing and widening them at each use would.
        let dtype = if param.shape.len() < 2 {
            DType::F32
        } else {
            dtype
        };
        let value = self
            .b
            .resident(&param.name, TensorType::fixed(dtype, &param.shape), class);
        self.params.entry(param.name.clone()).or_insert(param);
        value
    }

    /// A value in compute type: an explicit node, with its own transient, where storage is narrower.
    fn widen(&mut self, value: Value) -> Value {
        if self.b.ty(value).dtype == DType::F32 {
            value
        } else {
            self.b.push1(Cast { to: DType::F32 }, &[value])
        }
    }

    /// A parameter of a site's module in compute type, `suffix` being `weight` or `bias`. It starts fresh,
    /// unless it is cut out of the backbone.
    pub fn module_param(
        &mut self,
        site: &Site,
        suffix: &str,
        shape: &[u64],
        kind: ParamKind,
    ) -> Value {
        let owner = if self.aside {
            Owner::Adapter
        } else if site.role.is_head() {
            Owner::Head
        } else {
            Owner::Base
        };
        let name = format!("{}.{suffix}", site.path);
        let pruned = self.pruner.as_ref().and_then(|p| p.init(&name));
        let init = pruned.unwrap_or_else(|| kind.fresh());
        let value = self.param(Param {
            name,
            shape: shape.to_vec(),
            kind,
            owner,
            role: site.role,
            layer: site.layer,
            init,
            trainable: false,
        });
        self.widen(value)
    }

    /// The plain weight `[out, in]` of a site.
    pub fn weight(&mut self, site: &Site) -> Value {
        let shape = [site.output, site.input];
        self.module_param(site, "weight", &shape, ParamKind::Weight)
    }

    /// The bias `[out]` of a site.
    pub fn bias(&mut self, site: &Site) -> Value {
        self.module_param(site, "bias", &[site.output], ParamKind::Bias)
    }

    /// A tensor that a method adds at a site; its name is `<site path>.<suffix>`.
    pub fn adapter_param(&mut self, site: &Site, suffix: &str, shape: &[u64], init: Init) -> Value {
        let name = format!("{}.{suffix}", site.path);
        let value = self.param(Param {
            name,
            shape: shape.to_vec(),
            kind: ParamKind::Adapter,
            owner: Owner::Adapter,
            role: site.role,
            layer: site.layer,
            init,
            trainable: false,
        });
        self.widen(value)
    }

    /// A tensor of a network beside the model, in compute type.
    pub fn side_param(&mut self, name: &str, shape: &[u64], kind: ParamKind, init: Init) -> Value {
        let value = self.param(Param {
            name: name.to_owned(),
            shape: shape.to_vec(),
            kind,
            owner: Owner::Adapter,
            role: Role::Side,
            layer: None,
            init,
            trainable: false,
        });
        self.widen(value)
    }

    /// `y = x Wᵀ + b`, `[N, in] → [N, out]`, or what the methods placed at this site make of it.
    pub fn linear(
        &mut self,
        path: impl Into<String>,
        role: Role,
        layer: Option<u64>,
        x: Value,
        input: u64,
        output: u64,
    ) -> Value {
        let site = Site {
            path: path.into(),
            role,
            layer,
            input,
            output,
        };
        self.b.label(&site.path);
        if self.aside {
            return self.plain_linear(&site, x);
        }
        self.sites.push(site.clone());
        match self.tuning.at(&site) {
            Some((method, values)) => method.linear(values, self, &site, x),
            None => self.plain_linear(&site, x),
        }
    }

    /// `y = x Wᵀ + b` without any method.
    pub fn plain_linear(&mut self, site: &Site, x: Value) -> Value {
        let weight = self.weight(site);
        self.affine(site, x, weight)
    }

    /// `y = x Wᵀ + b`, through which no gradient reaches `x`.
    pub fn detached_linear(&mut self, site: &Site, x: Value) -> Value {
        let (weight, bias) = (self.weight(site), self.bias(site));
        let op = MatMul {
            detached: true,
            ..MatMul::linear(Real::new(1.0), Epilogue::Bias)
        };
        self.b.push1(op, &[x, weight, bias])
    }

    /// `y = x wᵀ + b` with a given weight `[out, in]` and the site's own bias.
    pub fn affine(&mut self, site: &Site, x: Value, weight: Value) -> Value {
        let bias = self.bias(site);
        self.b.push1(
            MatMul::linear(Real::new(1.0), Epilogue::Bias),
            &[x, weight, bias],
        )
    }

    /// `x wᵀ` for `[N, in]` and `[out, in]`.
    pub fn project(&mut self, x: Value, weight: Value) -> Value {
        self.b
            .push1(MatMul::linear(Real::new(1.0), Epilogue::None), &[x, weight])
    }

    /// `base + scale · (x wᵀ)`.
    pub fn project_onto(&mut self, base: Value, x: Value, weight: Value, scale: f64) -> Value {
        self.b.push1(
            MatMul::linear(Real::new(scale), Epilogue::Accumulate),
            &[x, weight, base],
        )
    }

    /// Layer norm over the last axis of `[N, width]`.
    pub fn layer_norm(
        &mut self,
        path: &str,
        role: Role,
        layer: Option<u64>,
        x: Value,
        width: u64,
        eps: f64,
    ) -> Value {
        let site = Site {
            path: path.to_owned(),
            role,
            layer,
            input: width,
            output: width,
        };
        self.b.label(path);
        let gamma = self.module_param(&site, "weight", &[width], ParamKind::NormWeight);
        let beta = self.module_param(&site, "bias", &[width], ParamKind::NormBias);
        self.b.push(
            LayerNorm {
                eps: Real::new(eps),
            },
            &[x, gamma, beta],
        )[0]
    }

    /// A table of embeddings `[rows, width]` named `<path>.weight`, in storage type.
    fn table(&mut self, path: &str, role: Role, rows: u64, width: u64) -> Value {
        self.param(Param {
            name: format!("{path}.weight"),
            shape: vec![rows, width],
            kind: ParamKind::Embedding,
            owner: Owner::Base,
            role,
            layer: None,
            init: ParamKind::Embedding.fresh(),
            trainable: false,
        })
    }

    /// Rows `ids` of a table `[rows, width]` named `<path>.weight`.
    pub fn embedding(
        &mut self,
        path: &str,
        role: Role,
        ids: Value,
        rows: u64,
        width: u64,
    ) -> Value {
        self.b.label(path);
        let table = self.table(path, role, rows, width);
        self.gather(table, ids)
    }

    /// `x Eᵀ + b` for some rows of a table `[rows, width]`, the embeddings' or the decoder's own, and of a
    /// bias `[rows]`, or for all.
    pub fn decode(
        &mut self,
        x: Value,
        (table, role): (&str, Role),
        bias: &str,
        (rows, width): (u64, u64),
        words: Option<&[u32]>,
    ) -> Value {
        self.b.label("lm_head.decoder");
        let table = self.table(table, role, rows, width);
        let bias = self.param(Param {
            name: bias.to_owned(),
            shape: vec![rows],
            kind: ParamKind::Bias,
            owner: Owner::Base,
            role: Role::LmDecoder,
            layer: None,
            init: ParamKind::Bias.fresh(),
            trainable: false,
        });
        let (weight, bias) = match words {
            Some(words) => {
                let list = words.to_vec();
                let words = self.b.push1(Indices { list }, &[]);
                (self.gather(table, words), self.gather(bias, words))
            }
            // No rows are copied: the product reads the table itself.
            None => (self.widen(table), self.widen(bias)),
        };
        let op = MatMul::linear(Real::new(1.0), Epilogue::Bias);
        self.b.push1(op, &[x, weight, bias])
    }

    /// From here on [`Self::picked`] keeps these rows only: nobody reads the others.
    pub fn set_pick(&mut self, pick: Pick) {
        self.pick = Some(pick);
    }

    /// The rows that will be read, `[T, d] → [S or M, d]`; everything where that is not known yet, or where
    /// it was done before.
    pub fn picked(&mut self, x: Value) -> Value {
        let Some(pick) = self.pick else { return x };
        if self.by_sequence(x) || self.by_place(x) {
            return x;
        }
        let rows = self.b.feed(match pick {
            Pick::First => Feed::FirstTokens,
            Pick::Mask => Feed::MaskTokens,
            Pick::Masked => Feed::MaskedPlaces,
        });
        self.gather(x, rows)
    }

    /// Whether a matrix has a row a sequence, not a row a token.
    fn by_sequence(&self, x: Value) -> bool {
        self.b.ty(x).shape.first() == Some(&Dim::sym(Sym::Sequences))
    }

    /// Whether a matrix has a row a masked place.
    fn by_place(&self, x: Value) -> bool {
        self.b.ty(x).shape.first() == Some(&Dim::sym(Sym::Masked))
    }

    /// Rows `ids` of a matrix `[rows, width]`, in compute type.
    pub fn gather(&mut self, table: Value, ids: Value) -> Value {
        self.b.push1(Gather { out: DType::F32 }, &[table, ids])
    }

    /// An activation.
    pub fn activation(&mut self, kind: ActivationKind, x: Value) -> Value {
        self.b.push1(Activation { kind }, &[x])
    }

    /// Whether a dropout of rate `p` on something made of `inputs` acts at all: training, and behind
    /// a trainable tensor (or the recipe asks for it everywhere).
    fn drops(&self, p: f64, inputs: &[Value]) -> bool {
        self.options.mode == Mode::Train
            && p > 0.0
            && (self.options.dropout_frozen || inputs.iter().any(|&v| self.b.depends(v)))
    }

    fn stream(&mut self) -> [u32; 2] {
        self.drops += 1;
        Stream::new(self.options.seed, &format!("dropout/{}", self.drops)).key()
    }

    /// Inverted dropout of rate `p` on `[N, d]`; nothing where it does not act.
    pub fn dropout(&mut self, x: Value, p: f64) -> Value {
        self.dropout_before(x, p, x)
    }

    /// Inverted dropout of rate `p`, active where `x` or `reader` depends on a trainable tensor: a
    /// method's own dropout acts although its input may be frozen.
    pub fn dropout_before(&mut self, x: Value, p: f64, reader: Value) -> Value {
        let stream = self.stream();
        if !self.drops(p, &[x, reader]) {
            return x;
        }
        // A row is keyed by example and token, so that a mask does not depend on the packing.
        let keys = self.b.feed(if self.by_sequence(x) {
            Feed::SequenceKeys
        } else if self.by_place(x) {
            Feed::MaskedKeys
        } else {
            Feed::TokenKeys
        });
        let step = self.b.feed(Feed::Step);
        self.b.push1(
            Dropout {
                p: Real::new(p),
                stream,
            },
            &[x, keys, step],
        )
    }

    /// Scaled dot-product attention of each sequence with itself over packed `[T, d]`, with dropout
    /// of rate `p` on the probabilities.
    pub fn attention(
        &mut self,
        q: Value,
        k: Value,
        v: Value,
        heads: u64,
        width: u64,
        p: f64,
    ) -> Value {
        self.folded_attention((q, k, v), 1, heads, width, p)
    }

    /// Attention in which each token has `fold` keys: queries `[T, d]`, keys and values `[fold·T, d]`.
    pub fn folded_attention(
        &mut self,
        (q, k, v): (Value, Value, Value),
        fold: u32,
        heads: u64,
        width: u64,
        p: f64,
    ) -> Value {
        let offsets = self.b.feed(Feed::Offsets);
        let scale = Real::new(1.0 / ((width / heads) as f64).sqrt());
        let stream = self.stream();
        let mut inputs = vec![q, k, v, offsets];
        let dropout = self.drops(p, &[q, k, v]).then(|| {
            inputs.push(self.b.feed(Feed::TokenKeys));
            inputs.push(self.b.feed(Feed::Step));
            AttentionDropout {
                p: Real::new(p),
                stream,
            }
        });
        self.b.push(
            Attention {
                heads: heads as u32,
                fold,
                scale,
                dropout,
            },
            &inputs,
        )[0]
    }

    /// `a + b`.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.b.push1(Add, &[a, b])
    }

    /// The methods in force.
    #[must_use]
    pub const fn tuning(&self) -> &Tuning {
        self.tuning
    }
}
