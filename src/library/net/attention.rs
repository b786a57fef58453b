//! Attention, what stands before texts in it, and what is put at marked tokens.

use super::super::method;
use super::{AtDistances, Attend, Beside, CacheCapacity, Mode, Net, Part, Role, Site};
use crate::library::counts::to_u32;
use crate::program::op::{
    Arrange, Attention, AttentionDropout, BinaryKind, Broadcast, CachedAttention, Constant,
    DisentangledAttention, Expand, Heads, Indices, KeptAttention, MoveRows, Over, Place, Prepend,
    ReduceKind, Scatter, Streams,
};
use crate::program::{Axis, Class, DType, Distances, Feed, Mark, Pick, Real, TensorType, Value};

impl Net<'_> {
    /// Attention of each sequence with itself over packed rows, or what the methods placed at this site make of it.
    pub fn attention(&mut self, site: Site, of: Attend) -> Value {
        if self.aside {
            return self.plain_attention(of);
        }
        self.meet(&site);
        if self.noted.contains(&site.path) {
            self.cached.push((site.path.clone(), [of.keys, of.values]));
        }
        let stack = self.tuning.stack(&site);
        if !stack.is_empty() {
            self.b.label(&site.path);
        }
        method::attention(self, &site, &stack, of)
    }

    /// Attention without any method.
    pub fn plain_attention(&mut self, of: Attend) -> Value {
        let rows = (of.queries, of.keys, of.values);
        match of.beside {
            Beside::Nothing => self.attend(of.op, rows, of.dropout),
            Beside::Bias(bias) => self.attend_biased(of.op, rows, Some(bias), of.dropout),
            Beside::Distances(places) => self.attend_places(&of.op, rows, places, of.dropout),
        }
    }

    /// A linear map once more, of rows that stand for nothing in a text, of which there are as many in every batch.
    pub fn linear_again(&mut self, site: Site, rows: Value) -> Value {
        let run = self.run;
        self.run += 1;
        let y = self.linear(site, rows);
        self.run = run;
        y
    }

    /// Attention whose queries and keys meet rows that stand for distances.
    fn attend_places(
        &mut self,
        of: &Attention,
        (q, k, v): (Value, Value, Value),
        places: AtDistances,
        p: f64,
    ) -> Value {
        let offsets = self.b.feed(Feed::Offsets);
        let distances = self.b.feed(Feed::Distances(places.distances));
        let mut inputs = vec![q, k, v, offsets, distances];
        inputs.extend(places.keys);
        inputs.extend(places.queries);
        let stream = self.stream();
        let dropout = self.drops(p, &inputs).then(|| {
            inputs.push(self.b.feed(Feed::Keys(Axis::Tokens)));
            inputs.push(self.b.feed(Feed::Step));
            AttentionDropout {
                p: Real::new(p),
                stream,
            }
        });
        let op = DisentangledAttention {
            heads: of.heads.queries,
            scale: of.scale,
            by_queries: places.keys.is_some(),
            by_keys: places.queries.is_some(),
            dropout,
        };
        self.b.push(op, &inputs)[0]
    }

    /// The same behind `count` keys and values that stand before those of each sequence, `[count, width]`. Where text is
    /// generated they are those of virtual tokens, which the prompts begin with.
    pub fn behind_prefix(&mut self, of: Attend, count: u64, rows: (Value, Value)) -> Attend {
        if matches!(self.options.mode, Mode::Generate(_)) {
            return Attend {
                keys: self.replaced(of.keys, rows.0),
                values: self.replaced(of.values, rows.1),
                ..of
            };
        }
        let prefix = of.op.prefix + to_u32(count);
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
        let count = to_u32(count);
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

    /// The same with a table of `count` rows for each task: a text has those of its own.
    pub fn replaced_by_task(&mut self, x: Value, table: Value, count: u64) -> Value {
        let rows = to_u32(count);
        let marks = self.b.feed(Feed::Marks(Mark::OfTask { rows }));
        self.b.push1(Place { add: false }, &[x, table, marks])
    }

    /// Rows that stand for the texts, at each of their tokens: `[S, d] → [T, d]`.
    pub fn at_tokens(&mut self, rows: Value) -> Value {
        let texts = self.b.feed(Feed::Texts);
        self.gather(rows, texts)
    }

    /// The row of each text's task in a table: `[tasks, d] → [S, d]`.
    pub fn of_tasks(&mut self, table: Value) -> Value {
        let tasks = self.b.feed(Feed::Tasks);
        self.gather(table, tasks)
    }

    /// Standard normal numbers, so many for each text, which are a function of seed, name, step and text: `[S, count]`.
    pub fn noise_of_texts(&mut self, x: Value, count: u64, name: &str) -> Value {
        let first = self.b.feed(Feed::Rows(Pick::First));
        let rows = self.gather(x, first);
        let width = self.b.ty(x).matrix().and_then(|(_, d)| d.as_const());
        let copies = Arrange::new(width.unwrap_or(1), (0..count).map(|_| [(0, false)]));
        let rows = self.arranged(rows, copies);
        let ones = self.binary(BinaryKind::Equal, Broadcast::Full, rows, rows);
        self.noise(ones, name)
    }

    /// A matrix of tokens to which rows of a table are added at the first `most` special tokens of each text, behind
    /// dropout of rate `p`.
    pub fn added_to_special(&mut self, x: Value, rows: Value, (most, p): (u64, f64)) -> Value {
        let most = to_u32(most);
        let marks = self.b.feed(Feed::Marks(Mark::Special { most }));
        let place = Place { add: true };
        if p == 0.0 || !self.options.mode.trains() {
            return self.b.push1(place, &[x, rows, marks]);
        }
        // Dropout has a mask for each token, so the rows stand alone first.
        let none = self.scaled(x, 0.0);
        let none = self.detach(none);
        let alone = self.b.push1(place, &[none, rows, marks]);
        let alone = self.dropout(alone, p);
        self.add(x, alone)
    }

    /// What enters a layer, a run of this `block`, or what the methods placed there make of it.
    pub fn entered(&mut self, (layer, block): (u64, u64), x: Value) -> Value {
        let width = self.b.ty(x).matrix().and_then(|(_, d)| d.as_const());
        let Some(width) = width.filter(|_| !self.aside) else {
            return x;
        };
        let part = Part::Block { width };
        let site = Site::new(format!("block.{layer}"), Role::Block, part).in_layer(Some(block));
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
        let count = to_u32(count);
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
    pub fn attend(&mut self, op: Attention, rows: (Value, Value, Value), p: f64) -> Value {
        self.attend_biased(op, rows, None, p)
    }

    /// What is added to scores by distance, `[2L+1, heads]`, of a table `[buckets, heads]` that a site's module holds.
    pub fn bias_by_distance(&mut self, site: &Site, distances: Distances) -> Value {
        self.b.label(&site.path);
        let table = self.table(site);
        if let Mode::Generate(capacity) = self.options.mode {
            // No key is ahead, and one may be as far behind as the cache has room for.
            let behind = (0..capacity.longest.max(1)).rev();
            let list = behind.map(|far| distances.bucket(-(far.cast_signed())));
            return self.listed(table, list.collect());
        }
        let rows = self.b.feed(Feed::Distances(distances));
        self.gather(table, rows)
    }

    /// Whether keys and values are kept of the sources, so that a decoder reads nothing else of them.
    #[must_use]
    pub const fn has_kept_sources(&self) -> bool {
        matches!(self.options.mode, Mode::Generate(_))
    }

    /// Where the keys and values are kept that the next attention across streams reads, which are `width` wide.
    fn kept(&mut self, width: u64, capacity: CacheCapacity) -> (Value, Value) {
        let ty = TensorType::fixed(DType::F32, &[capacity.sources, width]);
        let number = self.kept;
        self.kept += 1;
        let mut kept = |part: &str| {
            let name = format!("source.{number}.{part}");
            self.b.resident(&name, ty.clone(), Class::Cache)
        };
        (kept("keys"), kept("values"))
    }

    /// Keeps the keys and values of sources for the next attention across streams.
    pub fn keep(&mut self, (keys, values): (Value, Value)) {
        let Mode::Sources(capacity) = self.options.mode else {
            return;
        };
        let width = self.b.ty(keys).matrix().and_then(|(_, w)| w.as_const());
        let (kept_keys, kept_values) = self.kept(width.unwrap_or(0), capacity);
        let moves = self.b.feed(Feed::Moves);
        let op = MoveRows {
            fold: 1,
            within: false,
        };
        for (kept, rows) in [(kept_keys, keys), (kept_values, values)] {
            self.b.push(op.clone(), &[kept, moves, rows]);
        }
    }

    /// The attention across streams of a generation: to the keys and values that are kept of each sequence's source, which are
    /// `width` wide.
    pub fn attend_kept(&mut self, of: &Attention, queries: Value, width: u64) -> Value {
        let capacity = match self.options.mode {
            Mode::Generate(capacity) => capacity,
            _ => CacheCapacity::default(),
        };
        let (keys, values) = self.kept(width, capacity);
        let offsets = self.b.feed(Feed::Offsets);
        let kept = self.b.feed(Feed::Kept);
        let op = KeptAttention {
            heads: of.heads,
            scale: of.scale,
        };
        self.b.push1(op, &[queries, keys, values, offsets, kept])
    }

    /// The same with what is added to the scores by distance, `[2L+1, heads]`. Rows of sources attend to their sources, and
    /// rows of tokens to sources where keys are of such.
    fn attend_biased(
        &mut self,
        op: Attention,
        (q, k, v): (Value, Value, Value),
        bias: Option<Value>,
        p: f64,
    ) -> Value {
        // What looks ahead cannot be generated with: the program keeps its plain attention, and planning refuses it.
        if let Mode::Generate(capacity) = self.options.mode
            && op.mask.ahead == Some(0)
        {
            return self.attend_cached(op, (q, k, v), bias, capacity.tokens);
        }
        let (own, streams) = match [q, k].map(|x| self.axis(x)) {
            [Axis::Source, _] => (Axis::Source, Streams::Source),
            [_, Axis::Source] => (Axis::Tokens, Streams::Across),
            _ => (Axis::Tokens, Streams::Own),
        };
        let offsets = match own {
            Axis::Source => Feed::SourceOffsets,
            _ => Feed::Offsets,
        };
        let mut inputs = vec![q, k, v, self.b.feed(offsets)];
        if streams == Streams::Across {
            inputs.push(self.b.feed(Feed::SourceOffsets));
        }
        inputs.extend(bias);
        let stream = self.stream();
        let dropout = self.drops(p, &[q, k, v]).then(|| {
            inputs.push(self.b.feed(Feed::Keys(own)));
            inputs.push(self.b.feed(Feed::Step));
            AttentionDropout {
                p: Real::new(p),
                stream,
            }
        });
        let bias = bias.is_some();
        let op = Attention {
            dropout,
            streams,
            bias,
            ..op
        };
        self.b.push(op, &inputs)[0]
    }

    /// The mean of each text's rows, at each of its tokens: `[T, d]`; of sources, of each source's.
    pub fn text_mean(&mut self, x: Value) -> Value {
        self.text_mean_by(x, 1)
    }

    /// The same, computed in so many parts of the columns, as wide as heads are.
    pub fn text_mean_by(&mut self, x: Value, heads: u64) -> Value {
        // An attention to which all tokens are alike.
        let (streams, offsets) = match self.axis(x) {
            Axis::Source => (Streams::Source, Feed::SourceOffsets),
            _ => (Streams::Own, Feed::Offsets),
        };
        let op = Attention {
            streams,
            ..Attention::plain(Heads::each(to_u32(heads)), Real::new(0.0))
        };
        let offsets = self.b.feed(offsets);
        self.b.push(op, &[x, x, x, offsets])[0]
    }

    /// The mean of each text's rows: `[T, d] → [S, d]`.
    pub fn mean_of_texts(&mut self, x: Value) -> Value {
        let texts = self.b.feed(Feed::Texts);
        let rows = Axis::Sequences.dim();
        let sums = self.b.push1(Scatter { rows }, &[texts, x]);
        let one = Constant {
            value: Real::new(1.0),
            dtype: DType::F32,
        };
        let one = self.b.push1(one, &[]);
        let ones = Expand {
            over: Over::All,
            shape: std::iter::once(Axis::Tokens.dim()).collect(),
            mean: false,
        };
        let ones = self.b.push1(ones, &[one]);
        let counts = self.b.push1(Scatter { rows }, &[texts, ones]);
        self.binary(BinaryKind::Div, Broadcast::Column, sums, counts)
    }

    /// Attention over a cache of its own, with room for so many tokens.
    fn attend_cached(
        &mut self,
        of: Attention,
        (q, k, v): (Value, Value, Value),
        bias: Option<Value>,
        capacity: u64,
    ) -> Value {
        let width = self
            .b
            .ty(k)
            .matrix()
            .and_then(|(_, width)| width.as_const());
        let rows = capacity * u64::from(of.fold);
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
            bias: bias.is_some(),
        };
        let mut inputs = vec![q, k, v, keys, values, offsets, cached];
        inputs.extend(bias);
        self.b.push1(op, &inputs)
    }
}
