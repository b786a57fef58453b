//! The block of BERT and its kin, and narrow copies of it.

use super::super::super::derive::prune::Pruner;
use super::super::super::net::{
    AtDistances, Attend, Beside, Columns, KeyMaps, Net, Normed, Param, ParamKind, Part, Role, Site,
};
use super::super::Mirror;
use super::{Relative, Sizes};
use crate::library::counts::to_u32;
use crate::program::op::{Arrange, Attention, Heads};
use crate::program::{Distances, Real, Value};

/// Module paths of one block, in the checkpoint's own words.
pub(in super::super) struct BlockPaths {
    pub query: String,
    pub key: String,
    pub value: String,
    pub attention_output: String,
    /// The module that queries, keys and values meet in.
    pub heads: String,
    /// The module whose result is added to the residual.
    pub attention: String,
    pub attention_norm: String,
    pub ffn_up: String,
    pub ffn_down: String,
    /// The module whose result is added to the residual.
    pub ffn: String,
    pub ffn_norm: String,
}

/// Paths of BERT's and RoBERTa's blocks under a prefix.
pub(in super::super) fn bert_block(prefix: &str, layer: u64) -> BlockPaths {
    let at = |rest: &str| format!("{prefix}.encoder.layer.{layer}.{rest}");
    BlockPaths {
        query: at("attention.self.query"),
        key: at("attention.self.key"),
        value: at("attention.self.value"),
        attention_output: at("attention.output.dense"),
        heads: at("attention.self"),
        attention: at("attention.output"),
        attention_norm: at("attention.output.LayerNorm"),
        ffn_up: at("intermediate.dense"),
        ffn_down: at("output.dense"),
        ffn: at("output"),
        ffn_norm: at("output.LayerNorm"),
    }
}

/// Rows that stand for distances, which queries and keys of a block meet.
#[derive(Clone, Debug)]
pub(in super::super) struct Disentangled {
    /// `[buckets, hidden]`.
    pub rows: Value,
    /// The bucket of each distance.
    pub distances: Distances,
    /// Whether queries meet keys of distances, and keys queries of them.
    pub meets: [bool; 2],
    /// Modules of their own that make those keys and queries; else the maps of tokens make them.
    pub own: Option<[String; 2]>,
}

/// What the scores of a block have beside the products of queries and keys.
#[derive(Clone, Debug)]
pub(in super::super) enum Scores {
    /// Nothing, or what is added.
    Plain(Beside),
    /// Nothing, and the scale is that of scores with so many products more.
    Alone(usize),
    /// The products with these.
    Disentangled(Disentangled),
    /// Those with rows of distances that each block has for itself, the same ones for each head.
    Relative(Relative),
}

impl Scores {
    pub(in super::super) const NOTHING: Self = Self::Plain(Beside::Nothing);
}

/// One block being built.
struct Built<'a> {
    paths: &'a BlockPaths,
    sizes: &'a Sizes,
    /// Its number; a copy has none.
    at: Option<u64>,
    scores: Scores,
}

impl Built<'_> {
    fn map(&self, path: &str, role: Role, sizes: (u64, u64)) -> Site {
        Site::linear(path, role, sizes).in_layer(self.at)
    }

    fn norm(&self, path: &str, role: Role) -> Site {
        Site::norm(path, role, self.sizes.hidden).in_layer(self.at)
    }

    /// Queries against keys and values of `[T, hidden]`.
    fn attend(&self, net: &mut Net<'_>, x: Value) -> Value {
        let (d, heads, paths) = (self.sizes.hidden, self.sizes.heads, self.paths);
        let head = d / heads;
        let query = self.map(&paths.query, Role::Query, (d, d));
        let key = self.map(&paths.key, Role::Key, (d, d));
        let value = self.map(&paths.value, Role::Value, (d, d));
        let queries = net.linear(query.clone(), x);
        let keys = net.linear(key.clone(), x);
        let values = net.linear(value.clone(), x);
        let mut parts = 1;
        let beside = match &self.scores {
            Scores::Plain(beside) => *beside,
            Scores::Alone(more) => {
                parts += more;
                Beside::Nothing
            }
            Scores::Disentangled(of) => {
                parts += of.meets.iter().filter(|meets| **meets).count();
                self.places(net, of, [&key, &query])
            }
            Scores::Relative(relative) => self.relative(net, *relative),
        };
        let scale = 1.0 / ((head * parts as u64) as f64).sqrt();
        let of = Attend {
            beside,
            queries,
            keys,
            values,
            op: Attention::plain(Heads::each(to_u32(heads)), Real::new(scale)),
            read: x,
            maps: KeyMaps {
                key: Columns::all(key),
                value: Columns::all(value),
            },
            dropout: self.sizes.attention_dropout,
        };
        let keys = heads;
        let part = Part::Attention { heads, keys, head };
        let site = Site::new(&paths.heads, Role::Attention, part);
        net.attention(site.in_layer(self.at), of)
    }

    /// Keys and queries of distances, by these maps of tokens or by their own.
    fn places(&self, net: &mut Net<'_>, of: &Disentangled, [key, query]: [&Site; 2]) -> Beside {
        let d = self.sizes.hidden;
        let rows = net.dropout(of.rows, self.sizes.hidden_dropout);
        let mut made = |(at, map, role): (usize, &Site, Role)| {
            let meets = of.meets.get(at).is_some_and(|meets| *meets);
            meets.then(|| match of.own.as_ref().and_then(|own| own.get(at)) {
                Some(path) => net.linear(self.map(path, role, (d, d)), rows),
                None => net.linear_again(map.clone(), rows),
            })
        };
        Beside::Distances(AtDistances {
            distances: of.distances,
            keys: made((0, key, Role::PositionKey)),
            queries: made((1, query, Role::PositionQuery)),
        })
    }

    /// Rows of distances, as queries and keys of each head meet them.
    fn relative(&self, net: &mut Net<'_>, relative: Relative) -> Beside {
        let (heads, most) = (self.sizes.heads, self.sizes.positions);
        let head = self.sizes.hidden / heads;
        let path = format!("{}.distance_embedding", self.paths.heads);
        net.b.label(&path);
        let (name, role) = (format!("{path}.weight"), Role::PositionEmbedding);
        let table = Param {
            layer: self.at,
            ..Param::own(name, &[2 * most - 1, head], ParamKind::Embedding, role)
        };
        let rows = net.tensor(table);
        // The buckets have one more, of a distance that no text has.
        let list = std::iter::once(0).chain(0..to_u32(2 * most as usize - 1));
        let rows = net.listed(rows, list.collect());
        let columns = (0..heads).flat_map(|_| (0..head).map(|column| [(column, false)]));
        let rows = net.arranged(rows, Arrange::new(head, columns));
        Beside::Distances(AtDistances {
            distances: Distances::centred(to_u32(most as usize), 0),
            keys: Some(rows),
            queries: (relative == Relative::KeyQuery).then_some(rows),
        })
    }

    /// The residual `x` with what a sub-layer adds, which read `read`, and the norm behind it, if one stands there.
    fn added(
        &self,
        net: &mut Net<'_>,
        (path, norm): (&str, &Site),
        (x, read): (Value, Value),
        y: Value,
    ) -> Value {
        let eps = self.sizes.eps;
        let part = Part::Sublayer {
            width: self.sizes.hidden,
        };
        let role = match norm.role {
            Role::AttentionNorm => Role::Attention,
            _ => Role::Ffn,
        };
        let site = Site::new(path, role, part).in_layer(self.at);
        let normed = Normed { site: norm, eps };
        let behind = (!self.sizes.pre_norm).then_some(normed);
        let y = net.sublayer(site, behind, (read, y));
        let sum = net.add(y, x);
        match behind {
            Some(_) => net.layer_norm(norm, sum, eps),
            None => sum,
        }
    }

    /// What a sub-layer reads: the residual, or its norm.
    fn read(&self, net: &mut Net<'_>, norm: &Site, x: Value) -> Value {
        match self.sizes.pre_norm {
            true => net.layer_norm(norm, x, self.sizes.eps),
            false => x,
        }
    }

    /// The block; of the `last` one only the rows that are read.
    fn build(&self, net: &mut Net<'_>, last: bool, x: Value) -> Value {
        let (sizes, paths) = (self.sizes, self.paths);
        let (d, f) = (sizes.hidden, sizes.ffn);
        let norm = self.norm(&paths.attention_norm, Role::AttentionNorm);
        let read = self.read(net, &norm, x);
        let a = self.attend(net, read);
        let (a, x, read) = match last {
            false => (a, x, read),
            true if read == x => {
                let (a, x) = (net.picked(a), net.picked(x));
                (a, x, x)
            }
            true => (net.picked(a), net.picked(x), net.picked(read)),
        };
        let output = self.map(&paths.attention_output, Role::AttentionOutput, (d, d));
        let a = net.linear(output, a);
        let a = net.dropout(a, sizes.hidden_dropout);
        let h = self.added(net, (&paths.attention, &norm), (x, read), a);
        let norm = self.norm(&paths.ffn_norm, Role::FfnNorm);
        let read = self.read(net, &norm, h);
        let u = net.linear(self.map(&paths.ffn_up, Role::FfnUp, (d, f)), read);
        let u = net.activation(sizes.activation, u);
        let u = net.linear(self.map(&paths.ffn_down, Role::FfnDown, (f, d)), u);
        let u = match sizes.drops_ffn {
            true => net.dropout(u, sizes.hidden_dropout),
            false => u,
        };
        self.added(net, (&paths.ffn, &norm), (h, read), u)
    }
}

/// One block; of the `last` one only the rows that are read. Behind each sub-layer a norm: `h = LN(x + Drop(Attn(x)))`,
/// `LN(h + Drop(W₂ act(W₁ h)))`; or before each: `h = x + Drop(Attn(LN(x)))`, `h + Drop(W₂ act(W₁ LN(h)))`.
pub(in super::super) fn block(
    net: &mut Net<'_>,
    paths: &BlockPaths,
    sizes: &Sizes,
    (at, last): (Option<u64>, bool),
    x: Value,
) -> Value {
    let scores = sizes.relative.map_or(Scores::NOTHING, Scores::Relative);
    block_scored(net, paths, sizes, (at, last, scores), x)
}

/// The same with something beside the products of queries and keys.
pub(in super::super) fn block_scored(
    net: &mut Net<'_>,
    paths: &BlockPaths,
    sizes: &Sizes,
    (at, last, scores): (Option<u64>, bool, Scores),
    x: Value,
) -> Value {
    let built = Built {
        paths,
        sizes,
        at,
        scores,
    };
    built.build(net, last, x)
}

/// What a narrow copy is cut out of, by module paths.
#[derive(Clone, Copy)]
pub(in super::super) struct Own<'a> {
    /// The token embedding.
    pub table: &'a str,
    /// The map that makes embeddings as wide as the blocks, if there is one.
    pub widening: Option<&'a str>,
    /// The block.
    pub block: &'a BlockPaths,
}

/// A narrow copy of a block, with as many heads, under `path`.
pub(in super::super) fn mirror(
    net: &mut Net<'_>,
    path: &str,
    sizes: &Sizes,
    own: Own<'_>,
    (mirror, x): (Mirror, Value),
) -> Value {
    mirror_scored(net, path, sizes, own, (mirror, Scores::NOTHING, x))
}

/// The same with something beside the products of queries and keys.
pub(in super::super) fn mirror_scored(
    net: &mut Net<'_>,
    path: &str,
    sizes: &Sizes,
    own: Own<'_>,
    (mirror, scores, x): (Mirror, Scores, Value),
) -> Value {
    let at = |rest: &str| format!("{path}.{rest}");
    let paths = BlockPaths {
        query: at("attention.query"),
        key: at("attention.key"),
        value: at("attention.value"),
        attention_output: at("attention.output"),
        heads: at("attention"),
        attention: at("attention"),
        attention_norm: at("attention.norm"),
        ffn_up: at("ffn.up"),
        ffn_down: at("ffn.down"),
        ffn: at("ffn"),
        ffn_norm: at("ffn.norm"),
    };
    let narrow = Sizes {
        hidden: sizes.hidden / mirror.reduction,
        ffn: sizes.ffn / mirror.reduction,
        ..sizes.clone()
    };
    if let Some(pruner) = net.pruner() {
        entered(pruner, own, sizes, narrow.hidden);
        follow(pruner, &paths, own.block, (sizes, &narrow));
    }
    block_scored(net, &paths, &narrow, (None, mirror.last, scores), x)
}

/// Begins the walk at the token embedding, if it is not under way: what leaves it in the end are `keep` columns.
fn entered(pruner: &mut Pruner, own: Own<'_>, sizes: &Sizes, keep: u64) {
    let (e, d) = (sizes.embedding, sizes.hidden);
    let Some(widening) = own.widening else {
        pruner.enter(own.table, (sizes.vocab, e), keep);
        return;
    };
    if pruner.enter(own.table, (sizes.vocab, e), e) {
        // There is no copy of the map, but what it makes is what copies read.
        pruner.maps(&[("", widening)], (d, e), keep);
    }
}

/// Walks through a block from its input to its output.
fn follow(
    pruner: &mut Pruner,
    copy: &BlockPaths,
    own: &BlockPaths,
    (wide, narrow): (&Sizes, &Sizes),
) {
    let (d, f) = (wide.hidden, wide.ffn);
    let norm = |pruner: &mut Pruner, before: bool, paths: (&String, &String)| {
        if before == wide.pre_norm {
            pruner.norm((paths.0, paths.1), d);
        }
    };
    let attention_norm = (&copy.attention_norm, &own.attention_norm);
    let ffn_norm = (&copy.ffn_norm, &own.ffn_norm);
    let projections = [
        (copy.query.as_str(), own.query.as_str()),
        (&copy.key, &own.key),
        (&copy.value, &own.value),
    ];
    norm(pruner, true, attention_norm);
    pruner.maps(&projections, (d, d), narrow.hidden);
    let output = [(
        copy.attention_output.as_str(),
        own.attention_output.as_str(),
    )];
    pruner.maps(&output, (d, d), narrow.hidden);
    norm(pruner, false, attention_norm);
    norm(pruner, true, ffn_norm);
    pruner.maps(&[(&copy.ffn_up, &own.ffn_up)], (f, d), narrow.ffn);
    pruner.maps(&[(&copy.ffn_down, &own.ffn_down)], (d, f), narrow.hidden);
    norm(pruner, false, ffn_norm);
}
