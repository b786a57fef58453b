//! One block of a ModernBERT, or a narrow copy of one, being built.

use super::super::super::net::{Attend, Beside, Columns, KeyMaps, Net, Part, Role, Site};
use super::config::{Layer, Shape};
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
        self.shape.biased(bias, site)
    }

    fn norm(&self, net: &mut Net<'_>, name: &str, role: Role, x: Value) -> Value {
        let path = format!("{}.{name}", self.prefix);
        let site = Site::norm(path, role, self.shape.hidden).in_layer(self.layer);
        self.shape.norm(net, &site, x)
    }

    /// Queries against keys and values, which are made by one map.
    fn attend(&self, net: &mut Net<'_>, x: Value) -> Value {
        let s = self.shape;
        let (d, head, heads, rope) = (s.hidden, s.head(), s.heads, &self.own.rope);
        let map = self.linear("attn.Wqkv", Role::Qkv, (d, 3 * d), s.biases.attention);
        let all = net.linear(map.clone(), x);
        let [q, k, v] = [0, 1, 2].map(|i| net.columns(all, i * d, (i + 1) * d));
        let q = net.rotary(q, head, rope.frequencies(), rope.factor);
        let k = net.rotary(k, head, rope.frequencies(), rope.factor);
        let part = |i: u64| Columns {
            map: map.clone(),
            taken: Some((i * d, (i + 1) * d, 1)),
        };
        let scale = Real::new(1.0 / (head as f64).sqrt());
        let of = Attend {
            beside: Beside::Nothing,
            op: Attention {
                mask: self.own.distance.map_or(Mask::FULL, Mask::near),
                ..Attention::plain(Heads::each(to_u32(heads)), scale)
            },
            read: x,
            maps: KeyMaps {
                key: part(1),
                value: part(2),
            },
            queries: q,
            keys: k,
            values: v,
            dropout: s.dropout.attention,
        };
        let keys = heads;
        let part = Part::Attention { heads, keys, head };
        let site = Site::new(format!("{}.attn", self.prefix), Role::Attention, part);
        net.attention(site.in_layer(self.layer), of)
    }

    /// What the feed-forward network adds to the residual: `Wo (Drop(act(a) ⊙ b))`, with `a` and `b` made by one map.
    fn ffn(&self, net: &mut Net<'_>, x: Value) -> Value {
        let s = self.shape;
        let (d, f, bias) = (s.hidden, s.ffn, s.biases.ffn);
        let both = net.linear(self.linear("mlp.Wi", Role::FfnGateUp, (d, 2 * f), bias), x);
        let (gate, up) = (net.columns(both, 0, f), net.columns(both, f, 2 * f));
        let y = net.gated(s.activation, gate, up);
        let y = net.dropout(y, s.dropout.ffn);
        net.linear(self.linear("mlp.Wo", Role::FfnDown, (f, d), bias), y)
    }

    /// The residual with what a sub-layer adds, which read `read`.
    fn residual(
        &self,
        net: &mut Net<'_>,
        (name, role): (&str, Role),
        (x, read): (Value, Value),
        added: Value,
    ) -> Value {
        let part = Part::Sublayer {
            width: self.shape.hidden,
        };
        let site = Site::new(format!("{}.{name}", self.prefix), role, part);
        let added = net.sublayer(site.in_layer(self.layer), None, (read, added));
        net.add(x, added)
    }

    /// The block; of the `last` one only the rows that are read.
    pub(super) fn build(&self, net: &mut Net<'_>, x: Value, last: bool) -> Value {
        let s = self.shape;
        let read = match self.own.normed {
            true => self.norm(net, "attn_norm", Role::AttentionNorm, x),
            false => x,
        };
        let a = self.attend(net, read);
        let (a, x, read) = match (last, read == x) {
            (false, _) => (a, x, read),
            (true, true) => {
                let (a, x) = (net.picked(a), net.picked(x));
                (a, x, x)
            }
            (true, false) => (net.picked(a), net.picked(x), net.picked(read)),
        };
        let sizes = (s.hidden, s.hidden);
        let output = self.linear("attn.Wo", Role::AttentionOutput, sizes, s.biases.attention);
        let a = net.linear(output, a);
        let a = net.dropout(a, s.dropout.attention);
        let h = self.residual(net, ("attn", Role::Attention), (x, read), a);
        let read = self.norm(net, "mlp_norm", Role::FfnNorm, h);
        let y = self.ffn(net, read);
        self.residual(net, ("mlp", Role::Ffn), (h, read), y)
    }
}
