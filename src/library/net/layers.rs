//! The layers that models and methods are made of.

use super::super::method;
use super::super::model::LmHead;
use super::{Net, Normed, Param, ParamKind, Role, Site};
use crate::base::rng::Stream;
use crate::library::counts::to_u32;
use crate::program::op::{
    Activation, ActivationKind, Add, Arrange, Beyond, BinaryKind, Broadcast, Columns, Constant,
    Detach, Dropout, Elementwise, Epilogue, Find, Frequencies, Gated, Gather, Indices, MatMul,
    Noise, Over, Place, Reduce, ReduceKind, Reshape, Rotary, Scatter, Unary, UnaryKind,
};
use crate::program::{Axis, Block, DType, Dim, Feed, Pick, Real, Value};

impl Net<'_> {
    /// Says that the layers from here on are of this block, or of none.
    pub fn enter(&mut self, stack: &'static str, number: impl Into<Option<u64>>) {
        let block = |number| Block { stack, number };
        self.b.enter(number.into().map(block));
    }

    /// Says how often the block that follows was built before: it has the parameters that it had, and its sites are
    /// known.
    pub fn again(&mut self, run: u32) {
        self.run = run;
    }

    /// Notes a site, once.
    pub(super) fn meet(&mut self, site: &Site) {
        if self.run == 0 {
            self.sites.push(site.clone());
        }
    }

    /// `y = x Wᵀ + b`, `[N, in] → [N, out]`, or what the methods placed at this site make of it.
    pub fn linear(&mut self, site: Site, x: Value) -> Value {
        self.b.label(&site.path);
        if self.aside {
            return self.plain_linear(&site, x);
        }
        self.meet(&site);
        if self.noted.contains(&site.path) {
            self.inputs.push((site.path.clone(), x));
        }
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
        self.meet(&site);
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

    /// Queries or keys with their rotary positions: heads of so many columns, the inverse frequencies of their pairs, those
    /// of texts with more positions than a border, and the factor of cosines and sines.
    pub fn rotary(
        &mut self,
        x: Value,
        head: u64,
        (inverse, beyond): (&[f64], Option<(u32, &[f64])>),
        scale: f64,
    ) -> Value {
        let mut inputs = vec![x, self.b.feed(Feed::Positions)];
        if beyond.is_some() {
            inputs.push(self.b.feed(Feed::Lengths));
        }
        let list = |of: &[f64]| Frequencies::new(of.iter().copied());
        let op = Rotary {
            width: to_u32(head),
            frequencies: list(inverse),
            beyond: beyond.map(|(positions, of)| Beyond {
                positions,
                frequencies: list(of),
            }),
            scale: Real::new(scale),
            interleaved: false,
            inverse: false,
        };
        self.b.push1(op, &inputs)
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
        let [from, to, groups] = [from, to, groups].map(to_u32);
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

    /// The matrix `[vocabulary, hidden]` of a language model's head in compute type, or what the methods placed there make of
    /// it. `tied` is the table of embeddings that it is, if it has none of its own.
    pub fn head_table(&mut self, site: &Site, tied: Option<&Site>) -> Value {
        self.b.label("lm_head");
        self.tied = tied.cloned();
        if !self.sites.contains(site) {
            self.sites.push(site.clone());
        }
        let stack = self.tuning.stack(site);
        match method::weight(self, site, &stack) {
            Some(table) => table,
            // Methods that change no plain weight are not placed there.
            None => self.weight(site),
        }
    }

    /// A table as a decoder that is tied to it reads it, in storage type where nothing changes it.
    pub(super) fn table_of_decoder(&mut self, site: &Site) -> Value {
        let table = self.table(site);
        let stack = self.tuning.stack(site);
        method::tabled(self, site, &stack, table)
    }

    /// Rows of a matrix of rows of a table, of those whose numbers are in the list: others stand for them.
    pub fn replaced_by_id(&mut self, x: Value, rows: Value, (ids, list): (Value, &[u32])) -> Value {
        let list = list.to_vec();
        let list = self.b.push1(Indices { list }, &[]);
        let marks = self.b.push1(Find, &[ids, list]);
        self.b.push1(Place { add: false }, &[x, rows, marks])
    }

    /// A table `[rows, width]` in compute type in which others stand for some rows.
    pub fn with_rows(&mut self, table: Value, rows: Value, list: &[u32]) -> Value {
        let count = self.b.ty(table).shape.first().copied();
        let list = list.to_vec();
        let list = self.b.push1(Indices { list }, &[]);
        let own = self.gather(table, list);
        let table = self.widen(table);
        let change = self.binary(BinaryKind::Sub, Broadcast::Full, rows, own);
        let rows = count.unwrap_or_else(|| Dim::from(0_u64));
        let change = self.b.push1(Scatter { rows }, &[list, change]);
        self.add(table, change)
    }

    /// A table of embeddings `[rows, width]` named `<path>.weight`, in storage type.
    pub(super) fn table(&mut self, site: &Site) -> Value {
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
        self.embedding_padded(site, ids, (scale, None))
    }

    /// The same, where looking up the row of a padding token teaches it nothing.
    pub fn embedding_padded(
        &mut self,
        site: &Site,
        ids: Value,
        (scale, padding): (f64, Option<u32>),
    ) -> Value {
        self.b.label(&site.path);
        let table = self.table(site);
        let mut rows = self.gather(table, ids);
        if let Some(padding) = padding
            && self.options.mode.trains()
            && self.b.depends(table)
        {
            let own = self.listed(table, vec![padding]);
            let own = self.detach(own);
            rows = self.replaced_by_id(rows, own, (ids, &[padding]));
        }
        let rows = self.scaled(rows, scale);
        self.table_scale = scale;
        self.table_ids = Some(ids);
        if self.aside {
            return rows;
        }
        // Encoder and decoder may share it.
        if !self.sites.contains(site) {
            self.sites.push(site.clone());
        }
        let stack = self.tuning.stack(site);
        method::embedded(self, site, &stack, rows)
    }

    /// `x Eᵀ + b` for some rows of a table `[rows, width]`, the embeddings' or the decoder's own, and of the
    /// parameter `bias [rows]`, if there is one, or for all.
    pub fn decode(
        &mut self,
        x: Value,
        table: &Site,
        bias: Option<&str>,
        words: Option<&[u32]>,
    ) -> Value {
        self.b.label("lm_head.decoder");
        let rows = [table.input()];
        let table = self.table_of_decoder(table);
        let of = |bias| Param::own(bias, &rows, ParamKind::Bias, Role::LmDecoder);
        let bias = bias.map(|bias| self.param(of(bias)));
        let (weight, bias) = match words {
            Some(words) => {
                let list = words.to_vec();
                let words = self.b.push1(Indices { list }, &[]);
                let weight = self.gather(table, words);
                (weight, bias.map(|bias| self.gather(bias, words)))
            }
            // No rows are copied: the product reads the table itself.
            None => (self.widen(table), bias.map(|bias| self.widen(bias))),
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
    pub(super) fn axis(&self, x: Value) -> Axis {
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
    pub(super) fn drops(&mut self, p: f64, inputs: &[Value]) -> bool {
        let acts = self.options.mode.trains()
            && p > 0.0
            && (self.options.dropout_frozen || inputs.iter().any(|&v| self.b.depends(v)));
        self.varies |= acts;
        acts
    }

    pub(super) fn stream(&mut self) -> [u32; 2] {
        self.drops += 1;
        let purpose = self.routed(&format!("dropout/{}", self.drops));
        Stream::new(self.options.seed, &purpose).key()
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
        let keys = self.keys_of(x);
        let step = self.b.feed(Feed::Step);
        self.b.push1(
            Dropout {
                p: Real::new(p),
                stream,
            },
            &[x, keys, step],
        )
    }

    /// The keys of a matrix' rows by which numbers are drawn: of what they stand for, or of their places where there are as many in
    /// every batch.
    fn keys_of(&mut self, x: Value) -> Value {
        let ty = self.b.ty(x);
        let rows = ty.matrix().and_then(|(rows, _)| rows.as_const());
        let Some(rows) = rows.filter(|_| Axis::of(ty).is_none()) else {
            return self.b.feed(Feed::Keys(self.axis(x)));
        };
        let list = (0..to_u32(rows)).flat_map(|row| [0, row]).collect();
        let list = self.b.push1(Indices { list }, &[]);
        self.reshaped(list, rows, 2)
    }

    /// `x ⊙ ε` for `[N, d]` and standard normal numbers ε, which are a function of seed, name, step, row and column; and of the
    /// run, where a block runs several times.
    pub fn noise(&mut self, x: Value, name: &str) -> Value {
        let purpose = match self.run {
            0 => format!("noise/{name}"),
            run => format!("noise/{name}/{run}"),
        };
        let stream = Stream::new(self.options.seed, &purpose).key();
        let keys = self.keys_of(x);
        let step = self.b.feed(Feed::Step);
        self.b.push1(Noise { stream }, &[x, keys, step])
    }

    /// The logits of a head for the rows that are read, `[S, vocabulary]`.
    pub fn head_logits(&mut self, x: Value, head: &LmHead) -> Value {
        let epilogue = head.bias.map_or(Epilogue::None, |_| Epilogue::Bias);
        let product = MatMul::linear(Real::new(head.scale), epilogue);
        let mut operands = vec![x, head.table];
        operands.extend(head.bias);
        let logits = self.b.push1(product, &operands);
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

    /// The same elements as another matrix.
    pub fn reshaped(&mut self, x: Value, rows: impl Into<Dim>, columns: u64) -> Value {
        let shape = [rows.into(), Dim::from(columns)].into_iter().collect();
        self.b.push1(Reshape { shape }, &[x])
    }

    /// The same elements as a list.
    pub fn flat(&mut self, x: Value, elements: u64) -> Value {
        let shape = std::iter::once(Dim::from(elements)).collect();
        self.b.push1(Reshape { shape }, &[x])
    }

    /// Rows of a list.
    pub fn rows(&mut self, matrix: Value, list: Vec<u32>) -> Value {
        let rows = self.b.push1(Indices { list }, &[]);
        self.gather(matrix, rows)
    }

    /// Columns of a matrix put elsewhere.
    pub fn arranged(&mut self, x: Value, by: Arrange) -> Value {
        self.b.push1(by, &[x])
    }

    /// `a b` of plain matrices, either of them transposed.
    pub fn times(&mut self, (a, a_t): (Value, bool), (b, b_t): (Value, bool)) -> Value {
        self.b
            .push1(MatMul::plain(a_t, b_t, Real::new(1.0)), &[a, b])
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
