//! Experts that are drawn for a step and averaged elsewhere (methods A4): what both versions of AdaMix share.

use super::super::net::{Init, Param, Site};
use super::super::schema::{Bound, Given, kind};
use super::{Net, Value};
use crate::library::counts::to_u32;
use crate::program::Signal;
use crate::program::op::{Over, ReduceKind};

pub(super) const EXPERTS: Given<u64> = Given::<u64>::new(
    "experts",
    kind::int(1, 1 << 12),
    (4, "4"),
    "experts of each map that is not shared",
);
pub(super) const CONSISTENCY: Given<f64> = Given::<f64>::new(
    "consistency",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1.0, "1"),
    "factor of the divergence between the predictions of two routes, each with draws and dropout of its own; 0 leaves one route. The authors' program takes 1 for classes and 100 for texts",
);

/// The parts of experts `[experts, numbers]` with a first value each: one is drawn for a step, and their mean is used elsewhere.
/// A single one is shared by all routes.
pub(super) fn mixed(
    net: &mut Net<'_>,
    (site, name): (&Site, &str),
    (experts, [rows, columns]): (u64, [u64; 2]),
    made: impl Fn(Param) -> Param,
) -> Value {
    let numbers = rows * columns;
    let all = made(Param::at(site, name).shape(&[experts, numbers]));
    let all = net.tensor(all);
    if experts == 1 {
        return net.reshaped(all, rows, columns);
    }
    let own = if net.is_training() {
        let stream = net.signal_key(&format!("adamix/{}/{}", site.path, draw_of(name)));
        let of = to_u32(experts);
        let drawn = net.signal(Signal::Drawn { stream, of });
        let drawn = net.reshaped(drawn, 1, experts);
        net.times((drawn, false), (all, false))
    } else {
        net.reduce(ReduceKind::Mean, Over::Rows, all)
    };
    net.reshaped(own, rows, columns)
}

/// A map's weight and bias are of one expert.
fn draw_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(map, _)| map)
}

/// Normal first values of all experts, each its own.
pub(super) const fn normal() -> Init {
    Init::Normal(0.02)
}

/// The mean of experts' numbers, laid one behind the other.
pub(super) fn mean(all: &[f32], experts: u64) -> Vec<f32> {
    let size = all.len() / experts.max(1) as usize;
    let mut sums = vec![0.0_f32; size];
    for own in all.chunks_exact(size.max(1)) {
        sums.iter_mut().zip(own).for_each(|(sum, x)| *sum += x);
    }
    sums.iter_mut().for_each(|sum| *sum /= experts as f32);
    sums
}
