//! The ops of decoders.

use peftc::program::Real;
use peftc::program::op::{
    ActivationKind, Columns, Frequencies, Gated, GatedGrad, HeadLoss, HeadLossGrad, RmsNorm,
    RmsNormGrad, RmsNormGradWeight, Rotary, StatesGradient, Tensor,
};

use super::{Run, TOKENS, Unit, WIDTH, floats, words};

/// The ops of decoders, at the same width; a vocabulary of 32,000 tokens.
#[expect(clippy::too_many_lines, reason = "the rows of one table")]
pub fn all(run: &Run<'_>) {
    let (x, wide) = (|| floats(&[TOKENS, WIDTH]), || floats(&[TOKENS, 3072]));
    let rotary = Rotary {
        width: 64,
        frequencies: Frequencies::new((0..32).map(|i| 1e4_f64.powf(f64::from(i) / -32.0))),
        beyond: None,
        scale: Real::new(1.0),
        interleaved: false,
        inverse: false,
    };
    let positions = words((0..TOKENS as u32).collect());
    run(
        "rotary 416x768",
        rotary.into(),
        vec![x(), positions],
        Unit::Bytes,
    );
    let (eps, plus_one) = (Real::new(1e-6), false);
    let norm = RmsNorm { eps, plus_one };
    for width in [WIDTH, 64] {
        run(
            &format!("rms norm 416x768 of {width}"),
            norm.clone().into(),
            vec![x(), floats(&[width])],
            Unit::Bytes,
        );
        run(
            &format!("rms norm input gradient of {width}"),
            RmsNormGrad(norm.clone()).into(),
            vec![x(), x(), floats(&[width])],
            Unit::Bytes,
        );
        let width = width as u64;
        run(
            &format!("rms norm weight gradient of {width}"),
            RmsNormGradWeight { eps, width }.into(),
            vec![x(), x()],
            Unit::Bytes,
        );
    }
    for (name, kind) in [
        ("silu", ActivationKind::Silu),
        ("gelu", ActivationKind::Gelu),
    ] {
        run(
            &format!("gated {name} 416x3072"),
            Gated { kind }.into(),
            vec![wide(), wide()],
            Unit::Bytes,
        );
        run(
            &format!("gated {name} gradient"),
            GatedGrad { kind }.into(),
            vec![wide(), wide(), wide()],
            Unit::Bytes,
        );
    }
    let (from, to) = (768, 1536);
    run(
        "columns 768 of 2304",
        Columns {
            from,
            to,
            groups: 1,
        }
        .into(),
        vec![floats(&[TOKENS, 2304])],
        Unit::Bytes,
    );
    let vocabulary = 32_000;
    let one = |x: f32| Tensor::new(vec![x], &[1]);
    let loss = HeadLoss::plain(Real::new(0.05));
    let targets = words((0..TOKENS as u32).map(|i| i * 71 % vocabulary).collect());
    let head = floats(&[vocabulary as usize, WIDTH]);
    let operands = vec![x(), head, targets, one(1.0)];
    let flops = 2 * (TOKENS * WIDTH) as u64 * u64::from(vocabulary);
    run(
        "head loss 32k",
        loss.clone().into(),
        operands.clone(),
        Unit::Flops(flops),
    );
    run(
        "head loss with the states' gradient",
        HeadLoss {
            gradient: StatesGradient::Loss,
            ..loss.clone()
        }
        .into(),
        operands.clone(),
        Unit::Flops(2 * flops),
    );
    let lse = Tensor::new(vec![11.0_f32; TOKENS], &[TOKENS]);
    let operands = [vec![one(1.0)], operands, vec![lse]].concat();
    for (name, head) in [("states'", false), ("both", true)] {
        let of = loss.clone();
        let op = HeadLossGrad {
            of,
            input: true,
            head,
        };
        run(
            &format!("head loss, {name} gradient"),
            op.into(),
            operands.clone(),
            Unit::Flops(flops * if head { 3 } else { 2 }),
        );
    }
}
