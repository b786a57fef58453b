//! `unpaired_grad`: gradient of the losses of texts of which each is wanted or not.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType, Unpaired};

/// `(up [1], losses [S, 1], …) → [S, 1]`, behind `up` the operands of the loss.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnpairedGrad {
    /// The loss.
    pub of: Unpaired,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("unpaired_grad"));

impl OpRule for UnpairedGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, of @ ..] => {
                Unpaired::check(of)?;
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
        list.once(
            "unpaired_grad",
            "unpaired_grad",
            args![
                In(0),
                In(1),
                In(2),
                In(3),
                In(4),
                In(5),
                Out(0),
                cx.rows(1) as u32,
                self.of.beta.get() as f32,
                self.of.desirable.get() as f32,
                self.of.undesirable.get() as f32
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let labels = io.input(3).slice::<u32>();
        let scale = f64::from(io.input(4).slice::<f32>()[0]);
        let reference = io.input(5).slice::<f32>();
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let up = io.input(0).slice::<T>()[0].wide() * scale;
            let ratios = Unpaired::ratios(io.input(1).slice::<T>(), io.input(2).slice::<T>(), reference);
            let out = io.outputs[0].slice::<T>();
            out.fill(T::of(f64::NAN));
            let labels = labels.iter().step_by(2);
            for ((ratio, label), out) in ratios.own.iter().zip(labels).zip(out.chunks_exact_mut(2)) {
                // The loss counts once for each text of the pair.
                let [_, slope] = self.of.of(*ratio, ratios.zero, *label);
                out.copy_from_slice(&[T::of(-2.0 * up * slope), T::of(0.0)]);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, narrow, random};
    use super::unpaired::{kinds, operands};
    let mut all = Fixtures::new();
    for of in kinds() {
        let op = UnpairedGrad { of };
        let with = |texts: usize| {
            let mut own = vec![random(72, &[1])];
            own.extend(operands(texts));
            own
        };
        all.sample(op.clone(), with(6));
        all.sample(op.clone(), with(2));
        all.case(op, with(700).iter().map(narrow).collect::<Vec<_>>());
    }
    all
}
