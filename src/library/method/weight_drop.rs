//! Dropout of what is added to a weight: of its rows, or of all of it, drawn anew each step (LyCORIS).

use super::super::schema::{Bound, Given, kind};
use super::{At, Net, Value};
use crate::library::counts::to_u32;
use crate::program::op::{BinaryKind, Broadcast, MulRows};
use crate::program::{Real, Signal};

pub(crate) const RANK_DROPOUT: Given<f64> = Given::<f64>::new(
    "rank_dropout",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "share of the update's rows that a step of the training leaves out",
);
pub(crate) const MODULE_DROPOUT: Given<f64> = Given::<f64>::new(
    "module_dropout",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "probability that a step of the training leaves the whole update of a map out",
);
pub(crate) const RANK_DROPOUT_SCALE: Given<bool> = Given::<bool>::new(
    "rank_dropout_scale",
    kind::BOOL,
    (false, "false"),
    "divide by the share of rows that is left",
);

/// What an update gives `[N, out]`, with what the step leaves out of it.
pub(super) fn drop_update(at: &At<'_>, net: &mut Net<'_>, update: Value) -> Value {
    if !net.is_training() {
        return update;
    }
    let mut update = update;
    let path = &at.site.path;
    let mask = |net: &mut Net<'_>, what: &str, of: u64, p: f64, scaled: bool| {
        let stream = net.signal_key(&format!("{what}/{path}"));
        net.signal(Signal::Dropped {
            stream,
            of: to_u32(of),
            p: Real::new(p),
            scaled,
        })
    };
    let rows = RANK_DROPOUT.get(at.values);
    if rows > 0.0 {
        let scaled = RANK_DROPOUT_SCALE.get(at.values);
        let mask = mask(net, "rows", at.site.output(), rows, scaled);
        update = net.b.push1(MulRows, &[update, mask]);
    }
    let whole = MODULE_DROPOUT.get(at.values);
    if whole > 0.0 {
        let mask = mask(net, "module", 1, whole, false);
        update = net.binary(BinaryKind::Mul, Broadcast::Scalar, update, mask);
    }
    update
}
