//! Small networks that make virtual tokens out of trained rows, as P-tuning and prefix tuning learn them.

use super::super::net::{Init, Param, ParamKind, Site};
use super::{Net, Value};
use crate::library::counts::to_u32;
use crate::program::op::{ActivationKind, BinaryKind, Broadcast, Indices, Place, UnaryKind};

/// A linear map with PyTorch's first values, `[out, in]` and `[out]`.
pub(super) fn map(
    net: &mut Net<'_>,
    made: &dyn Fn(&str) -> Param,
    (output, input): (u64, u64),
) -> (Value, Value) {
    let bound = 1.0 / (input as f64).sqrt();
    let weight = made("weight").shape(&[output, input]);
    let weight = weight.kind(ParamKind::Weight).start(Init::Uniform(bound));
    let bias = made("bias").shape(&[output]);
    let bias = bias.kind(ParamKind::Bias).start(Init::Uniform(bound));
    (net.tensor(weight), net.tensor(bias))
}

/// A network's parts at a site: where its tensors are, and its widths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoder<'a> {
    /// The site.
    pub site: &'a Site,
    /// Columns of the rows that are read and made.
    pub width: u64,
    /// Columns between.
    pub hidden: u64,
}

impl Encoder<'_> {
    fn dense(
        &self,
        net: &mut Net<'_>,
        (name, sizes): (&str, (u64, u64)),
        x: Value,
        function: Option<ActivationKind>,
    ) -> Value {
        let made = |kind: &str| Param::at(self.site, &format!("{name}.{kind}"));
        let (weight, bias) = map(net, &made, sizes);
        let y = net.dense(x, weight, bias);
        function.map_or(y, |function| net.activation(function, y))
    }

    /// `Linear, ReLU, Linear, ReLU, Linear`
    pub(super) fn mlp(&self, net: &mut Net<'_>, x: Value) -> Value {
        let (d, h, relu) = (self.width, self.hidden, Some(ActivationKind::Relu));
        let x = self.dense(net, ("mlp_head.0", (h, d)), x, relu);
        let x = self.dense(net, ("mlp_head.2", (h, h)), x, relu);
        self.dense(net, ("mlp_head.4", (d, h)), x, None)
    }

    /// A bidirectional LSTM of two layers over `count` rows, then `Linear, ReLU, Linear`.
    pub(super) fn lstm(&self, net: &mut Net<'_>, count: u64, x: Value) -> Value {
        let (d, h) = (self.width, self.hidden);
        let first = self.both_ways(net, (0, count), &[(x, d)]);
        let [forward, backward] = self.both_ways(net, (1, count), &first.map(|x| (x, h)));
        // The map of both, side by side.
        let made = |kind: &str| Param::at(self.site, &format!("mlp_head.0.{kind}"));
        let (weight, bias) = map(net, &made, (2 * h, 2 * h));
        let y = self.of_parts(net, &[(forward, h), (backward, h)], (weight, bias));
        let y = net.activation(ActivationKind::Relu, y);
        self.dense(net, ("mlp_head.2", (d, 2 * h)), y, None)
    }

    /// `x wᵀ + b` of an `x` whose columns come in parts.
    fn of_parts(&self, net: &mut Net<'_>, x: &[(Value, u64)], map: (Value, Value)) -> Value {
        let (weight, bias) = map;
        if let [(x, _)] = x {
            return net.dense(*x, weight, bias);
        }
        let (mut sum, mut at) = (None, 0);
        for &(x, width) in x {
            let columns = net.columns(weight, at, at + width);
            sum = Some(match sum {
                None => net.dense(x, columns, bias),
                Some(sum) => net.project_onto(sum, x, columns, 1.0),
            });
            at += width;
        }
        sum.unwrap_or(weight)
    }

    /// A layer of the LSTM in both directions.
    fn both_ways(
        &self,
        net: &mut Net<'_>,
        (layer, count): (u64, u64),
        x: &[(Value, u64)],
    ) -> [Value; 2] {
        ["", "_reverse"].map(|way| {
            let order: Vec<u32> = if way.is_empty() {
                (0..to_u32(count)).collect()
            } else {
                (0..to_u32(count)).rev().collect()
            };
            self.one_way(net, (layer, way), &order, x)
        })
    }

    /// One direction: the states of all rows, each at its own row.
    fn one_way(
        &self,
        net: &mut Net<'_>,
        (layer, way): (u64, &str),
        order: &[u32],
        x: &[(Value, u64)],
    ) -> Value {
        let h = self.hidden;
        let width = x.iter().map(|(_, width)| width).sum::<u64>();
        let bound = 1.0 / (h as f64).sqrt();
        let mut part = |kind: &str, shape: &[u64]| {
            let name = format!("lstm_head.{kind}_l{layer}{way}");
            let param = Param::at(self.site, &name).shape(shape);
            let kind = if shape.len() > 1 {
                ParamKind::Weight
            } else {
                ParamKind::Bias
            };
            net.tensor(param.kind(kind).start(Init::Uniform(bound)))
        };
        let (input, state) = (
            part("weight_ih", &[4 * h, width]),
            part("weight_hh", &[4 * h, h]),
        );
        let (b, c) = (part("bias_ih", &[4 * h]), part("bias_hh", &[4 * h]));
        let bias = net.add(b, c);
        let gates = self.of_parts(net, x, (input, bias));
        let (mut before, mut cell) = (None, None);
        // Every row of it is replaced.
        let mut all = net.columns(gates, 0, h);
        for &row in order {
            let list = net.b.push1(Indices { list: vec![row] }, &[]);
            let mut own = net.gather(gates, list);
            if let Some(before) = before {
                own = net.project_onto(own, before, state, 1.0);
            }
            let mut gate = |at: u64, kind: Option<UnaryKind>| {
                let own = net.columns(own, at * h, (at + 1) * h);
                match kind {
                    Some(kind) => net.unary(kind, own),
                    None => net.activation(ActivationKind::Tanh, own),
                }
            };
            let sigmoid = Some(UnaryKind::Sigmoid);
            let (enters, stays) = (gate(0, sigmoid), gate(1, sigmoid));
            let (new, forgets) = (gate(2, None), gate(3, sigmoid));
            let mut next = net.binary(BinaryKind::Mul, Broadcast::Full, enters, new);
            if let Some(cell) = cell {
                let kept = net.binary(BinaryKind::Mul, Broadcast::Full, stays, cell);
                next = net.add(next, kept);
            }
            cell = Some(next);
            let shown = net.activation(ActivationKind::Tanh, next);
            let made = net.binary(BinaryKind::Mul, Broadcast::Full, forgets, shown);
            before = Some(made);
            let mut list = vec![0; order.len()];
            if let Some(mark) = list.get_mut(row as usize) {
                *mark = 1;
            }
            let marks = net.b.push1(Indices { list }, &[]);
            all = net.b.push1(Place { add: false }, &[all, made, marks]);
        }
        all
    }
}
