//! Masks on the updates of the model's own weights (methods S4).

use std::sync::Arc;

use super::super::derive::BaseParam;
use super::super::derive::places::{Choice, Part, Score};
use super::super::method::Masking;
use super::super::net::{Init, Owner, Param};
use super::{StageCx, keys};
use crate::base::rng::Stream;
use crate::program::op::{Bernoulli, Detach, Hold, Masked};
use crate::program::{Builder, Class, DType, Feed, Real, TensorType, Value};

/// The mask of a stage's methods.
pub(super) fn masking(cx: &StageCx<'_>) -> Option<Masking> {
    let mut methods = cx.tuning.methods.iter();
    methods.find_map(|(method, filled)| method.masking(&filled.values))
}

fn name(param: &Param) -> String {
    format!("mask.{}", param.name)
}

/// Whether a fixed mask is on a tensor: on those of the blocks.
fn is_fixed(param: &Param) -> bool {
    param.owner == Owner::Base && param.layer.is_some()
}

/// The fixed masks of trained tensors.
pub(super) fn fixed(cx: &StageCx<'_>, trained: &[Param]) -> Vec<Param> {
    let Some(Masking {
        keep,
        fixed: Some(measure),
        ..
    }) = masking(cx)
    else {
        return Vec::new();
    };
    let own: Vec<&Param> = trained.iter().filter(|p| is_fixed(p)).collect();
    let all: u64 = own.iter().map(|p| p.elements()).sum();
    let of = own
        .iter()
        .map(|p| BaseParam::new(p.name.clone(), &p.shape, p.kind));
    let by = Arc::new(Choice {
        score: Score::Gradient(measure),
        of: of.collect(),
        count: ((keep * all as f64).round() as u64).clamp(1.min(all), all),
        side: 1,
    });
    let mask = |(index, param): (usize, &&Param)| {
        let (by, part) = (by.clone(), Part::Bits(index));
        let words = param.elements().div_ceil(32);
        let mask = Param::shared(name(param)).shape(&[words]).of_places();
        mask.unsaved().start(Init::Chosen { by, part })
    };
    own.iter().enumerate().map(mask).collect()
}

/// What takes back the part of an update that a mask does not let through.
pub(super) struct Mask {
    bits: Value,
    before: Option<Value>,
}

/// The part of a gradient that is let through, before the update of its tensor.
pub(super) fn begin(
    b: &mut Builder,
    cx: &StageCx<'_>,
    param: &Param,
    (weight, grad): (Value, Value),
) -> (Value, Option<Mask>) {
    let Some(masking) = masking(cx) else {
        return (grad, None);
    };
    let numbers = param.elements();
    let (bits, scale) = match masking.fixed {
        Some(_) if !is_fixed(param) => return (grad, None),
        Some(_) => {
            let ty = TensorType::fixed(DType::U32, &[numbers.div_ceil(32)]);
            (b.resident(&name(param), ty, Class::Chosen), 1.0)
        }
        None => {
            let step = b.feed(Feed::Step);
            let seed = keys::SEED.get(cx.values);
            let stream = Stream::new(seed, &name(param)).key();
            let keep = Real::new(masking.keep);
            let drawn = Bernoulli {
                stream,
                keep,
                numbers,
            };
            (b.push1(drawn, &[step]), 1.0 / masking.keep)
        }
    };
    let scale = Real::new(scale);
    let grad = b.push1(Masked { scale }, &[grad, bits]);
    let before = masking.whole.then(|| b.push1(Detach, &[weight]));
    (grad, Some(Mask { bits, before }))
}

/// Takes the rest of the update back.
pub(super) fn end(b: &mut Builder, mask: Option<Mask>, weight: Value) {
    if let Some(Mask {
        bits,
        before: Some(before),
    }) = mask
    {
        b.push(Hold, &[weight, before, bits]);
    }
}
