//! The layers that models and methods are made of.

use super::super::method;
use super::super::model::LmHead;
use super::{Attend, Init, Mode, Net, Normed, Param, ParamKind, Part, Role, Site};
use crate::base::rng::Stream;
use crate::program::op::{
    Activation, ActivationKind, Add, Attention, AttentionDropout, BinaryKind, Broadcast,
    CachedAttention, Columns, Constant, Detach, Dropout, Elementwise, Epilogue, Frequencies, Gated,
    Gather, HeadLoss, Heads, Indices, LayerNorm, MatMul, Over, Place, Precision, Preference,
    Prepend, Reduce, ReduceKind, RmsNorm, Rotary, Scatter, Unary, UnaryKind,
};
use crate::program::{
    Axis, Block, Class, DType, Feed, Mark, Pick, Real, TargetKind, TensorType, Value,
};

impl Net<'_> {
    /// Says that the layers from here on are of this block, or of none.
    pub fn enter(&mut self, stack: &'static str, number: impl Into<Option<u64>>) {
        let block = |number| Block { stack, number };
        self.b.enter(number.into().map(block));
    }

    /// `y = x Wᵀ + b`, `[N, in] → [N, out]`, or what the methods placed at this site make of it.
    pub fn linear(&mut self, site: Site, x: Value) -> Value {
        self.b.label(&site.path);
        if self.aside {
            return self.plain_linear(&site, x);
        }
        self.sites.push(site.clone());
        let stack = self.tuning.stack(&site);
        method::linear(self, &site, &stack, x)
    }

    /// What a sub-layer adds to the residual, `y [N, width]`, computed from `x`, or what the methods placed there make of it.
    /// `norm` is the layer norm behind the residual, if one stands there.
    pub fn sublayer(
        &mut self,
        site: Site,
        norm: Option<Normed<'_>>,
        (x, y): (Value, Value),
    ) -> Value {
        if self.aside {
            return y;
        }
        self.sites.push(site.clone());
        let stack = self.tuning.stack(&site);
        if !stack.is_empty() {
            self.b.label(&site.path);
        }
        method::output(self, (&site, norm), &stack, (x, y))
    }

    /// `y = x Wᵀ + b` without any method.
    pub fn plain_linear(&mut self, site: &Site, x: Value) -> Value {
        let weight = self.weight(site);
        self.affine(site, x, weight)
    }

    /// `y = x Wᵀ + b`, through which no gradient reaches `x`.
    pub fn detached_linear(&mut self, site: &Site, x: Value) -> Value {
        let (weight, bias) = (self.weight(site), self.bias(site));
        self.product(true, x, weight, bias)
    }

    /// `x wᵀ [+ b]`; `detached` says that no gradient reaches `x`.
    fn product(&mut self, detached: bool, x: Value, weight: Value, bias: Option<Value>) -> Value {
        let epilogue = bias.map_or(Epilogue::None, |_| Epilogue::Bias);
        let op = MatMul {
            detached,
            ..MatMul::linear(Real::new(1.0), epilogue)
        };
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        self.b.push1(op, &inputs)
    }

    /// `y = x wᵀ + b` with a given weight `[out, in]` and the site's own bias.
    pub fn affine(&mut self, site: &Site, x: Value, weight: Value) -> Value {
        let bias = self.bias(site);
        self.dense(x, weight, bias)
    }

    /// `x wᵀ + b` for `[N, in]`, `[out, in]` and `[out]`, or without `b`.
    pub fn dense(&mut self, x: Value, weight: Value, bias: impl Into<Option<Value>>) -> Value {
        self.product(false, x, weight, bias.into())
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
    pub fn layer_norm(&mut self, site: &Site, x: Value, eps: f64) -> Value {
        self.b.label(&site.path);
        let width = [site.output()];
        let gamma = self.module_param(site, "weight", &width, ParamKind::NormWeight);
        let beta = self.module_param(site, "bias", &width, ParamKind::NormBias);
        let eps = Real::new(eps);
        self.b.push(LayerNorm { eps }, &[x, gamma, beta])[0]
    }

    /// Each row, or each run of so many columns as the norm is wide, over its root mean square, times the weight, or one
    /// more than it.
    pub fn rms_norm(&mut self, site: &Site, x: Value, eps: f64, plus_one: bool) -> Value {
        self.b.label(&site.path);
        let kind = ParamKind::NormWeight;
        let fresh = if plus_one {
            Init::Constant(0.0)
        } else {
            kind.fresh()
        };
        let weight = self.module_param_from(site, "weight", &[site.output()], (kind, fresh));
        let eps = Real::new(eps);
        self.b.push1(RmsNorm { eps, plus_one }, &[x, weight])
    }

    /// Queries or keys with their rotary positions: heads of so many columns, the inverse frequencies of their pairs, and
    /// the factor of cosines and sines.
    pub fn rotary(&mut self, x: Value, head: u64, inverse: &[f64], scale: f64) -> Value {
        let positions = self.b.feed(Feed::Positions);
        let op = Rotary {
            width: head as u32,
            frequencies: Frequencies::new(inverse.iter().copied()),
            scale: Real::new(scale),
            interleaved: false,
            inverse: false,
        };
        self.b.push1(op, &[x, positions])
    }

    /// `act(gate) ⊙ up`.
    pub fn gated(&mut self, kind: ActivationKind, gate: Value, up: Value) -> Value {
        self.b.push1(Gated { kind }, &[gate, up])
    }

    /// Columns `from .. to` of a matrix.
    pub fn columns(&mut self, x: Value, from: u64, to: u64) -> Value {
        self.grouped_columns(x, (from, to), 1)
    }

    /// Columns `from .. to` of each of so many groups of a matrix' columns, one group behind the other.
    pub fn grouped_columns(&mut self, x: Value, (from, to): (u64, u64), groups: u64) -> Value {
        let [from, to, groups] = [from, to, groups].map(|n| n as u32);
        self.b.push1(Columns { from, to, groups }, &[x])
    }

    /// `x` times a constant.
    pub fn scaled(&mut self, x: Value, factor: f64) -> Value {
        if factor == 1.0 {
            return x;
        }
        let constant = Constant {
            value: Real::new(factor),
            dtype: DType::F32,
        };
        let factor = self.b.push1(constant, &[]);
        self.binary(BinaryKind::Mul, Broadcast::Scalar, x, factor)
    }

    /// A table `[rows, width]` in compute type, as the loss of a head reads it.
    pub fn head_table(&mut self, site: &Site) -> Value {
        self.b.label("lm_head");
        let table = self.table(site);
        self.widen(table)
    }

    /// The summed cross-entropy of the next tokens at the rows that are read, times the step's loss scale, `[1]`, and of
    /// each row its loss and the likeliest token, `[R, 2]`; without logits in memory.
    pub fn head_loss(&mut self, x: Value, head: &LmHead) -> (Value, Value) {
        let targets = self.b.feed(Feed::Targets(TargetKind::Token));
        let scale = self.b.feed(Feed::LossScale);
        let op = HeadLoss {
            alpha: Real::new(head.scale),
            softcap: head.cap.map(Real::new),
            precision: Precision::default(),
        };
        let made = self.b.push(op, &[x, head.table, targets, scale]);
        (made[0], made[2])
    }

    /// The summed loss of each text, `[S, 1]`, from those of its places, `[R, 2]`.
    pub fn losses_of_texts(&mut self, rows: Value) -> Value {
        let owners = self.b.feed(Feed::Owners);
        let own = self.columns(rows, 0, 1);
        let texts = Axis::Sequences.dim();
        self.b.push1(Scatter { rows: texts }, &[owners, own])
    }

    /// The loss of pairs of texts, `[1]`, and of each text its reward and its pair's loss, `[S, 2]`, by the summed losses of their
    /// places.
    pub fn preference(&mut self, op: &Preference, losses: Value, compares: bool) -> (Value, Value) {
        let owners = self.b.feed(Feed::Owners);
        let scale = self.b.feed(Feed::LossScale);
        let mut operands = vec![losses, owners, scale];
        if compares {
            operands.push(self.b.feed(Feed::REFERENCE));
        }
        let made = self.b.push(op.clone(), &operands);
        (made[0], made[1])
    }

    /// A table of embeddings `[rows, width]` named `<path>.weight`, in storage type.
    fn table(&mut self, site: &Site) -> Value {
        let (name, shape) = (
            format!("{}.weight", site.path),
            [site.input(), site.output()],
        );
        self.param(Param::own(name, &shape, ParamKind::Embedding, site.role))
    }

    /// Rows `ids` of a table of embeddings.
    pub fn embedding(&mut self, site: &Site, ids: Value) -> Value {
        self.embedding_scaled(site, ids, 1.0)
    }

    /// The same times a factor, which methods that put rows among them do not see.
    pub fn embedding_scaled(&mut self, site: &Site, ids: Value, scale: f64) -> Value {
        self.b.label(&site.path);
        let table = self.table(site);
        let rows = self.gather(table, ids);
        let rows = self.scaled(rows, scale);
        self.table_scale = scale;
        if self.aside || site.role != Role::WordEmbedding {
            return rows;
        }
        self.sites.push(site.clone());
        let stack = self.tuning.stack(site);
        method::embedded(self, site, &stack, rows)
    }

    /// `x Eᵀ + b` for some rows of a table `[rows, width]`, the embeddings' or the decoder's own, and of the
    /// parameter `bias [rows]`, or for all.
    pub fn decode(&mut self, x: Value, table: &Site, bias: &str, words: Option<&[u32]>) -> Value {
        self.b.label("lm_head.decoder");
        let rows = [table.input()];
        let table = self.table(table);
        let bias = self.param(Param::own(bias, &rows, ParamKind::Bias, Role::LmDecoder));
        let (weight, bias) = match words {
            Some(words) => {
                let list = words.to_vec();
                let words = self.b.push1(Indices { list }, &[]);
                (self.gather(table, words), self.gather(bias, words))
            }
            // No rows are copied: the product reads the table itself.
            None => (self.widen(table), self.widen(bias)),
        };
        self.dense(x, weight, bias)
    }

    /// From here on [`Self::picked`] keeps these rows only: nobody reads the others.
    pub fn set_pick(&mut self, pick: Pick) {
        self.pick = Some(pick);
    }

    /// The rows that will be read, `[T, d] → [S or R, d]`; everything where that is not known yet, or where
    /// it was done before.
    pub fn picked(&mut self, x: Value) -> Value {
        let Some(pick) = self.pick else { return x };
        if self.axis(x) != Axis::Tokens {
            return x;
        }
        let rows = self.b.feed(Feed::Rows(pick));
        self.gather(x, rows)
    }

    /// What the rows of a matrix stand for.
    fn axis(&self, x: Value) -> Axis {
        Axis::of(self.b.ty(x)).unwrap_or(Axis::Tokens)
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
        let keys = self.b.feed(Feed::Keys(self.axis(x)));
        let step = self.b.feed(Feed::Step);
        self.b.push1(
            Dropout {
                p: Real::new(p),
                stream,
            },
            &[x, keys, step],
        )
    }

    /// Attention of each sequence with itself over packed rows, or what the methods placed at this site make of it.
    pub fn attention(&mut self, site: Site, of: Attend) -> Value {
        if self.aside {
            return self.plain_attention(of);
        }
        self.sites.push(site.clone());
        let stack = self.tuning.stack(&site);
        if !stack.is_empty() {
            self.b.label(&site.path);
        }
        method::attention(self, &site, &stack, of)
    }

    /// Attention without any method.
    pub fn plain_attention(&mut self, of: Attend) -> Value {
        self.attend(of.op, (of.queries, of.keys, of.values), of.dropout)
    }

    /// The same behind `count` keys and values that stand before those of each sequence, `[count, width]`. Where text is
    /// generated they are those of virtual tokens, which the prompts begin with.
    pub fn behind_prefix(&mut self, of: Attend, count: u64, rows: (Value, Value)) -> Attend {
        if matches!(self.options.mode, Mode::Generate { .. }) {
            return Attend {
                keys: self.replaced(of.keys, rows.0),
                values: self.replaced(of.values, rows.1),
                ..of
            };
        }
        let prefix = of.op.prefix + count as u32;
        let (keys, values) = (
            self.prepended(of.keys, rows.0, (count, false)),
            self.prepended(of.values, rows.1, (count, false)),
        );
        let op = Attention { prefix, ..of.op };
        Attend {
            op,
            keys,
            values,
            ..of
        }
    }

    /// A matrix of tokens with `count` rows before those of each sequence: the same for all, or each its `own` one.
    pub fn prepended(&mut self, x: Value, rows: Value, (count, own): (u64, bool)) -> Value {
        let offsets = self.b.feed(Feed::Offsets);
        let count = count as u32;
        self.b.push1(Prepend { count, own }, &[x, rows, offsets])
    }

    /// The factors of keys behind a prefix of `count`: for those of the prefix what the text's first token has in a column `[T, 1]`
    /// that all tokens of a text share, and 1 for the others; as a list.
    pub fn factors_of_prefix(&mut self, column: Value, count: u64) -> Value {
        let first = self.b.feed(Feed::Rows(Pick::First));
        let own = self.gather(column, first);
        let ones = self.binary(BinaryKind::Equal, Broadcast::Full, column, column);
        let factors = self.prepended(ones, own, (count, true));
        self.reduce(ReduceKind::Sum, Over::Columns, factors)
    }

    /// A matrix of tokens in which rows of a table stand for those of the virtual tokens.
    pub fn replaced(&mut self, x: Value, rows: Value) -> Value {
        let marks = self.b.feed(Feed::Marks(Mark::Virtual));
        self.b.push1(Place { add: false }, &[x, rows, marks])
    }

    /// A matrix of tokens to which rows of a table are added at the first `most` special tokens of each text, behind
    /// dropout of rate `p`.
    pub fn added_to_special(&mut self, x: Value, rows: Value, (most, p): (u64, f64)) -> Value {
        let most = most as u32;
        let marks = self.b.feed(Feed::Marks(Mark::Special { most }));
        let place = Place { add: true };
        if p == 0.0 || self.options.mode != Mode::Train {
            return self.b.push1(place, &[x, rows, marks]);
        }
        // Dropout has a mask for each token, so the rows stand alone first.
        let none = self.scaled(x, 0.0);
        let none = self.detach(none);
        let alone = self.b.push1(place, &[none, rows, marks]);
        let alone = self.dropout(alone, p);
        self.add(x, alone)
    }

    /// What enters a block, or what the methods placed there make of it.
    pub fn entered(&mut self, layer: u64, x: Value) -> Value {
        let width = self.b.ty(x).matrix().and_then(|(_, d)| d.as_const());
        let Some(width) = width.filter(|_| !self.aside) else {
            return x;
        };
        let part = Part::Block { width };
        let site = Site::new(format!("block.{layer}"), Role::Block, part).in_layer(Some(layer));
        self.sites.push(site.clone());
        let stack = self.tuning.stack(&site);
        if !stack.is_empty() {
            self.b.label(&site.path);
        }
        method::entered(self, &site, &stack, x)
    }

    /// Rows of a matrix by a fixed list.
    pub fn listed(&mut self, matrix: Value, list: Vec<u32>) -> Value {
        let list = self.b.push1(Indices { list }, &[]);
        self.gather(matrix, list)
    }

    /// Attention to `count` keys and values alone, `[count, width]`, which all tokens see.
    pub fn attend_to(
        &mut self,
        (op, queries): (&Attention, Value),
        count: u64,
        (keys, values): (Value, Value),
    ) -> Value {
        let count = count as u32;
        let cycle = self.b.feed(Feed::Cycle { count });
        let (keys, values) = (self.gather(keys, cycle), self.gather(values, cycle));
        let op = Attention {
            fold: 0,
            prefix: count,
            ..Attention::plain(op.heads, op.scale)
        };
        let offsets = self.b.feed(Feed::Offsets);
        self.b.push(op, &[queries, keys, values, offsets])[0]
    }

    /// Attention of any kind, with dropout of rate `p` on the probabilities.
    pub fn attend(&mut self, op: Attention, (q, k, v): (Value, Value, Value), p: f64) -> Value {
        // What looks ahead cannot be generated with: the program keeps its plain attention, and planning refuses it.
        if let Mode::Generate { room } = self.options.mode
            && op.mask.ahead == Some(0)
        {
            return self.attend_cached(op, (q, k, v), room);
        }
        let offsets = self.b.feed(Feed::Offsets);
        let stream = self.stream();
        let mut inputs = vec![q, k, v, offsets];
        let dropout = self.drops(p, &[q, k, v]).then(|| {
            inputs.push(self.b.feed(Feed::Keys(Axis::Tokens)));
            inputs.push(self.b.feed(Feed::Step));
            AttentionDropout {
                p: Real::new(p),
                stream,
            }
        });
        self.b.push(Attention { dropout, ..op }, &inputs)[0]
    }

    /// The mean of each text's rows, at each of its tokens: `[T, d]`.
    pub fn text_mean(&mut self, x: Value) -> Value {
        // An attention to which all tokens are alike.
        let op = Attention::plain(Heads::each(1), Real::new(0.0));
        let offsets = self.b.feed(Feed::Offsets);
        self.b.push(op, &[x, x, x, offsets])[0]
    }

    /// The same over a cache of its own, with room for so many tokens.
    fn attend_cached(
        &mut self,
        of: Attention,
        (q, k, v): (Value, Value, Value),
        room: u64,
    ) -> Value {
        let width = self
            .b
            .ty(k)
            .matrix()
            .and_then(|(_, width)| width.as_const());
        let rows = room * u64::from(of.fold);
        let ty = TensorType::fixed(DType::F32, &[rows, width.unwrap_or(0)]);
        let number = self.caches;
        self.caches += 1;
        let mut cache = |part: &str| {
            let name = format!("cache.{number}.{part}");
            self.b.resident(&name, ty.clone(), Class::Cache)
        };
        let (keys, values) = (cache("keys"), cache("values"));
        let offsets = self.b.feed(Feed::Offsets);
        let cached = self.b.feed(Feed::Cached);
        let op = CachedAttention {
            heads: of.heads,
            fold: of.fold,
            scale: of.scale,
            mask: of.mask,
            softcap: of.softcap,
        };
        self.b.push1(op, &[q, k, v, keys, values, offsets, cached])
    }

    /// The logits of a head for the rows that are read, `[S, vocabulary]`.
    pub fn head_logits(&mut self, x: Value, head: &LmHead) -> Value {
        let product = MatMul::linear(Real::new(head.scale), Epilogue::None);
        let logits = self.b.push1(product, &[x, head.table]);
        let Some(cap) = head.cap else { return logits };
        let within = self.scaled(logits, 1.0 / cap);
        let within = self.activation(ActivationKind::Tanh, within);
        self.scaled(within, cap)
    }

    /// `a ∘ b`, where `b` may be broadcast.
    pub fn binary(&mut self, kind: BinaryKind, broadcast: Broadcast, a: Value, b: Value) -> Value {
        self.b.push1(Elementwise { kind, broadcast }, &[a, b])
    }

    /// A function of each element.
    pub fn unary(&mut self, kind: UnaryKind, x: Value) -> Value {
        self.b.push1(Unary { kind }, &[x])
    }

    /// A sum, mean, sum of squares or maximum.
    pub fn reduce(&mut self, kind: ReduceKind, over: Over, x: Value) -> Value {
        self.b.push1(Reduce { kind, over }, &[x])
    }

    /// The same values, which count as constants in the backward pass.
    pub fn detach(&mut self, x: Value) -> Value {
        self.b.push1(Detach, &[x])
    }

    /// `a + b`.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.b.push1(Add, &[a, b])
    }
}
