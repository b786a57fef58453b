//! `preference_grad`: gradient of the losses of pairs of texts of which one is preferred.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{Io, Kernel, OpError, OpRule, Preference, SizedCx, TensorType};

/// `(up [1], losses [S, 1], …) → [S, 1]`, behind `up` the operands of the loss.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PreferenceGrad {
    /// The loss.
    pub of: Preference,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("preference_grad"));

impl OpRule for PreferenceGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, of @ ..] => {
                self.of.check(of)?;
                match of.first() {
                    Some(losses) if **up == TensorType::scalar(losses.dtype) => {
                        Ok(vec![(*losses).clone()])
                    }
                    _ => Err("a gradient of one number is wanted".into()),
                }
            }
            [] => Err("a gradient and the loss's operands are wanted".into()),
        }
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let compared = cx.inputs.len() > 4;
        let texts = cx.rows(1);
        list.each(
            "preference_grad",
            "preference_grad",
            texts,
            args![
                In(0),
                In(1),
                In(2),
                In(3),
                if compared { In(4) } else { In(1) },
                Out(0),
                cx.elements(2) as u32,
                texts,
                u32::from(compared),
                self.of.code(),
                self.of.beta.get() as f32,
                self.of.smoothing.get() as f32,
                self.of.gamma.get() as f32,
                self.of.alpha.get() as f32
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let sequences = io.input(2).slice::<u32>();
        let scale = f64::from(io.input(3).slice::<f32>()[0]);
        let reference = (io.inputs.len() > 4).then(|| io.input(4).slice::<f32>());
        let lengths = self.of.lengths(sequences, io.input(1).dims[0])?;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let up = io.input(0).slice::<T>()[0].wide() * scale;
            let above = self.of.above(io.input(1).slice::<T>(), reference, &lengths);
            let out = io.outputs[0].slice::<T>();
            out.fill(T::of(f64::NAN));
            let each = above.chunks_exact(2).zip(lengths.chunks_exact(2));
            for ((pair, length), out) in each.zip(out.chunks_exact_mut(2)) {
                // The loss counts once for each text of the pair.
                let slopes = self.of.slopes([pair[0], pair[1]]).map(|slope| 2.0 * up * slope);
                let alpha = self.of.alpha.get();
                let likelihood = if alpha == 0.0 { 0.0 } else { 2.0 * up * alpha / length[0] };
                let [chosen, rejected] = [length[0], length[1]].map(|n| self.of.divisor(n));
                out.copy_from_slice(&[likelihood - slopes[0] / chosen, -slopes[1] / rejected].map(T::of));
            }
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, narrow, random};
    use super::preference::{kinds, operands};
    let mut all = Fixtures::new();
    for of in kinds() {
        let op = PreferenceGrad { of };
        let with = |texts: usize, operands_of: usize| {
            let mut own = vec![random(72, &[1])];
            own.extend(operands(texts).into_iter().take(operands_of));
            own
        };
        all.sample(op.clone(), with(6, 4));
        all.sample(op.clone(), with(2, 3));
        all.case(op, with(700, 4).iter().map(narrow).collect::<Vec<_>>());
    }
    all
}
