//! One block of a decoder, or a narrow copy of one, being built.

use super::super::super::derive::prune::Pruner;
use super::super::super::net::{Attend, Beside, Columns, KeyMaps, Net, Part, Role, Site};
use super::{Fused, Layer, Norms, QkNorm, Shape};
use crate::library::counts::to_u32;
use crate::program::op::{Attention, Heads, Mask};
use crate::program::{Real, Value};

/// A block.
pub(super) struct Block<'a> {
    pub shape: &'a Shape,
    pub own: &'a Layer,
    /// Its number; a copy has none.
    pub layer: Option<u64>,
    /// Its module path.
    pub prefix: String,
}

impl Block<'_> {
    fn linear(&self, name: &str, role: Role, sizes: (u64, u64), bias: bool) -> Site {
        let path = format!("{}.{name}", self.prefix);
        let site = Site::linear(path, role, sizes).in_layer(self.layer);
        if bias { site } else { site.without_bias() }
    }

    fn norm(&self, net: &mut Net<'_>, name: &str, role: Role, x: Value) -> Value {
        let path = format!("{}.{name}", self.prefix);
        let site = Site::norm(path, role, self.shape.hidden).in_layer(self.layer);
        self.shape.norm(net, &site, x)
    }

    /// A norm of queries or keys.
    fn qk_norm(
        &self,
        net: &mut Net<'_>,
        name: &str,
        role: Role,
        (x, width): (Value, u64),
    ) -> Value {
        let width = match self.shape.qk_norm {
            QkNorm::None => return x,
            QkNorm::Head => self.shape.head,
            QkNorm::Width => width,
        };
        let path = format!("{}.{name}", self.prefix);
        let site = Site::norm(path, role, width).in_layer(self.layer);
        net.rms_norm(&site, x, self.shape.eps, self.shape.plus_one)
    }

    /// `[T, hidden]` to queries, keys and values.
    fn projections(&self, net: &mut Net<'_>, x: Value) -> [Value; 3] {
        let (s, names) = (self.shape, self.shape.names);
        let (d, w, kw, bias) = (s.hidden, s.width(), s.kv_width(), s.biases.qkv);
        if s.fused != Fused::Nothing {
            let map = self.linear(names.qkv, Role::Qkv, (d, w + 2 * kw), bias);
            let all = net.linear(map, x);
            return if s.fused == Fused::Heads {
                let each = s.head;
                [0, 1, 2].map(|i| net.grouped_columns(all, (i * each, (i + 1) * each), s.heads))
            } else {
                [(0, w), (w, w + kw), (w + kw, w + 2 * kw)]
                    .map(|(from, to)| net.columns(all, from, to))
            };
        }
        [
            (names.query, Role::Query, w),
            (names.key, Role::Key, kw),
            (names.value, Role::Value, kw),
        ]
        .map(|(name, role, width)| {
            let map = self.linear(name, role, (d, width), bias);
            net.linear(map, x)
        })
    }

    /// The maps that make keys and values.
    fn key_maps(&self) -> KeyMaps {
        let (s, names) = (self.shape, self.shape.names);
        let (d, w, kw, bias) = (s.hidden, s.width(), s.kv_width(), s.biases.qkv);
        if s.fused == Fused::Nothing {
            let map = |name, role| Columns::all(self.linear(name, role, (d, kw), bias));
            return KeyMaps {
                key: map(names.key, Role::Key),
                value: map(names.value, Role::Value),
            };
        }
        let taken = |i: u64| match s.fused {
            Fused::Heads => (i * s.head, (i + 1) * s.head, s.heads),
            _ => (w + (i - 1) * kw, w + i * kw, 1),
        };
        let part = |i| Columns {
            map: self.linear(names.qkv, Role::Qkv, (d, w + 2 * kw), bias),
            taken: Some(taken(i)),
        };
        KeyMaps {
            key: part(1),
            value: part(2),
        }
    }

    /// What the attention adds to the residual, of the rows that are read.
    fn attention(&self, net: &mut Net<'_>, x: Value, last: bool) -> Value {
        let (s, names) = (self.shape, self.shape.names);
        let [q, k, v] = self.projections(net, x);
        let q = self.qk_norm(net, names.query_norm, Role::QueryNorm, (q, s.width()));
        let k = self.qk_norm(net, names.key_norm, Role::KeyNorm, (k, s.kv_width()));
        let (q, k) = match &self.own.rope {
            Some(rope) => (
                net.rotary(q, s.head, rope.frequencies(), rope.factor),
                net.rotary(k, s.head, rope.frequencies(), rope.factor),
            ),
            None => (q, k),
        };
        let op = Attention {
            mask: self.own.window.map_or(Mask::CAUSAL, Mask::window),
            softcap: s.score_cap.map(Real::new),
            ..Attention::plain(
                Heads {
                    queries: to_u32(s.heads),
                    keys: to_u32(s.kv_heads),
                },
                Real::new(s.score_scale * self.own.score_scale),
            )
        };
        let of = Attend {
            beside: Beside::Nothing,
            op,
            read: x,
            maps: self.key_maps(),
            queries: q,
            keys: k,
            values: v,
            dropout: s.attention_dropout,
        };
        let part = Part::Attention {
            heads: s.heads,
            keys: s.kv_heads,
            head: s.head,
        };
        let path = format!("{}.{}", self.prefix, names.attention);
        let site = Site::new(path, Role::Attention, part);
        let a = net.attention(site.in_layer(self.layer), of);
        let a = if last { net.picked(a) } else { a };
        let sizes = (s.width(), s.hidden);
        let output = self.linear(names.output, Role::AttentionOutput, sizes, s.biases.output);
        net.linear(output, a)
    }

    /// What the feed-forward network adds to the residual.
    fn ffn(&self, net: &mut Net<'_>, x: Value) -> Value {
        let (s, names) = (self.shape, self.shape.names);
        let (d, f, bias) = (s.hidden, s.ffn, s.biases.ffn);
        let up = |net: &mut Net<'_>| {
            let up = self.linear(names.up, Role::FfnUp, (d, f), bias);
            net.linear(up, x)
        };
        let y = if !s.gated {
            let up = up(net);
            net.activation(s.activation, up)
        } else if s.fused == Fused::Nothing {
            let gate = self.linear(names.gate, Role::FfnGate, (d, f), bias);
            let gate = net.linear(gate, x);
            let up = up(net);
            net.gated(s.activation, gate, up)
        } else {
            let map = self.linear(names.gate_up, Role::FfnGateUp, (d, 2 * f), bias);
            let both = net.linear(map, x);
            let (gate, up) = (net.columns(both, 0, f), net.columns(both, f, 2 * f));
            net.gated(s.activation, gate, up)
        };
        net.linear(self.linear(names.down, Role::FfnDown, (f, d), bias), y)
    }

    /// The residual with what a sub-layer adds, which read `read`.
    fn residual(
        &self,
        net: &mut Net<'_>,
        role: Role,
        (x, read): (Value, Value),
        added: Value,
    ) -> Value {
        let path = match role {
            Role::Attention => self.shape.names.attention,
            _ => self.shape.names.ffn,
        };
        let part = Part::Sublayer {
            width: self.shape.hidden,
        };
        let site = Site::new(format!("{}.{path}", self.prefix), role, part);
        let added = if self.shape.dropout > 0.0 {
            net.dropout(added, self.shape.dropout)
        } else {
            added
        };
        let added = net.sublayer(site.in_layer(self.layer), None, (read, added));
        let added = net.scaled(added, self.shape.residual_scale);
        net.add(x, added)
    }

    /// The block; of the `last` one only the rows that are read.
    pub(super) fn build(&self, net: &mut Net<'_>, x: Value, last: bool) -> Value {
        use Role::{AttentionNorm, AttentionPostNorm, FfnNorm, FfnPostNorm};
        let (norms, names) = (self.shape.norms, self.shape.names);
        let (before, behind) = (norms != Norms::Behind, norms != Norms::Before);
        let h = if before {
            self.norm(net, names.before_attention, AttentionNorm, x)
        } else {
            x
        };
        let a = self.attention(net, h, last);
        let (x, h) = if last {
            (net.picked(x), net.picked(h))
        } else {
            (x, h)
        };
        if self.shape.parallel {
            let read = self.norm(net, names.behind_attention, FfnNorm, x);
            let y = self.ffn(net, read);
            let x = self.residual(net, Role::Attention, (x, h), a);
            return self.residual(net, Role::Ffn, (x, read), y);
        }
        let a = match norms {
            Norms::Before => a,
            Norms::Behind => self.norm(net, names.behind_attention, AttentionNorm, a),
            Norms::Both => self.norm(net, names.behind_attention, AttentionPostNorm, a),
        };
        let x = self.residual(net, Role::Attention, (x, h), a);
        let h = match norms {
            Norms::Before => self.norm(net, names.behind_attention, FfnNorm, x),
            Norms::Behind => x,
            Norms::Both => self.norm(net, names.before_ffn, FfnNorm, x),
        };
        let y = self.ffn(net, h);
        let role = if before { FfnPostNorm } else { FfnNorm };
        let y = if behind {
            self.norm(net, names.behind_ffn, role, y)
        } else {
            y
        };
        self.residual(net, Role::Ffn, (x, h), y)
    }

    /// Walks through the block `own` of the backbone, which this is a narrow copy of, from its input to its output. Where
    /// queries have more heads than keys, the queries alone decide which columns of the attention stay, and keys
    /// and values choose their own.
    pub(super) fn follow(&self, pruner: &mut Pruner, wide: &Shape, own: &str) {
        let (narrow, names) = (self.shape, self.shape.names);
        let pair = |name: &str| (format!("{}.{name}", self.prefix), format!("{own}.{name}"));
        let (d, w, kw, f) = (wide.hidden, wide.width(), wide.kv_width(), wide.ffn);
        let maps = |pruner: &mut Pruner, list: &[&str], sizes: (u64, u64), keep: u64| {
            let pairs: Vec<(String, String)> = list.iter().map(|name| pair(name)).collect();
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (&**a, &**b)).collect();
            pruner.maps(&pairs, sizes, keep);
        };
        let norm = |pruner: &mut Pruner, name: &str| {
            let (copy, own) = pair(name);
            pruner.norm((&copy, &own), d);
        };
        let (before, behind) = (wide.norms != Norms::Behind, wide.norms != Norms::Before);
        if before {
            norm(pruner, names.before_attention);
        }
        if wide.kv_heads == wide.heads {
            let all = [names.query, names.key, names.value];
            maps(pruner, &all, (w, d), narrow.width());
        } else {
            pruner.aside(|pruner| {
                maps(
                    pruner,
                    &[names.key, names.value],
                    (kw, d),
                    narrow.kv_width(),
                );
            });
            maps(pruner, &[names.query], (w, d), narrow.width());
        }
        maps(pruner, &[names.output], (d, w), narrow.hidden);
        norm(pruner, names.behind_attention);
        if before && behind {
            norm(pruner, names.before_ffn);
        }
        if wide.gated {
            maps(pruner, &[names.gate, names.up], (f, d), narrow.ffn);
        } else {
            maps(pruner, &[names.up], (f, d), narrow.ffn);
        }
        maps(pruner, &[names.down], (d, f), narrow.hidden);
        if behind {
            norm(pruner, names.behind_ffn);
        }
    }
}
