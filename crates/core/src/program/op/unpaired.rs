//! `unpaired`: the losses of texts of which each is wanted or not, compared with texts that do not belong to their prompts.

use super::super::types::{DType, Dim, Real};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, UnpairedGrad, Value};

/// `(losses [S, 1], others [S, 1], labels u32[S], scale f32[1], reference f32[S, 1]) → (loss [1], rows [S, 2])`.
///
/// `losses` has of each text the negative log-likelihood of its learned tokens, `others` the same without a gradient, and `reference` the same
/// under the reference. Texts come in pairs: a prompt with its own completion, then with that of another row. The log-ratio of a
/// text is its log-likelihood above the reference's. `z₀ = max(0, mean log-ratio of the second texts)`, which `others` is read for. Where
/// the label of a pair is 1, its loss is `λ_D (1 − σ(β (r − z₀)))` by the log-ratio `r` of its first text, else `λ_U (1 − σ(β (z₀ − r)))`
/// (Ethayarajh et al. 2024, arXiv 2402.01306, equation 8). `rows` has of each text `β r`, and its pair's loss; `loss = scale · Σ` of
/// those.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unpaired {
    /// β.
    pub beta: Real,
    /// λ_D.
    pub desirable: Real,
    /// λ_U.
    pub undesirable: Real,
}

/// A batch as f64: log-ratios of the first texts, and z₀.
pub(super) struct Ratios {
    pub own: Vec<f64>,
    pub zero: f64,
}

impl Unpaired {
    /// Checks the operands; gives the number of texts.
    pub(super) fn check(x: &[&TensorType]) -> Result<Dim, String> {
        let [losses, others, labels, scale, reference] = x else {
            return Err("losses twice, labels, a scale and references are wanted".into());
        };
        match losses.matrix() {
            Some((s, one))
                if losses.dtype.is_compute()
                    && one.as_const() == Some(1)
                    && others == losses
                    && labels.dtype == DType::U32
                    && labels.shape == [s]
                    && **reference == TensorType::new(DType::F32, [s, Dim::from(1)])
                    && **scale == TensorType::scalar(DType::F32) =>
            {
                Ok(s)
            }
            _ => Err("a loss and a label a text, and as many f32 references, are wanted".into()),
        }
    }

    /// The log-ratios of a batch.
    pub(super) fn ratios<T: Elementary>(losses: &[T], others: &[T], reference: &[f32]) -> Ratios {
        let ratio = |(loss, other): (&T, &f32)| f64::from(*other) - loss.wide();
        let first = losses.iter().zip(reference).step_by(2);
        let second = others.iter().zip(reference).skip(1).step_by(2);
        let pairs = others.len() / 2;
        let sum: f64 = second.map(ratio).sum();
        Ratios {
            own: first.map(ratio).take(pairs).collect(),
            zero: (sum / pairs.max(1) as f64).max(0.0),
        }
    }

    /// The loss of a pair, and its derivative by the log-ratio of its first text.
    pub(super) fn of(&self, ratio: f64, zero: f64, label: u32) -> [f64; 2] {
        let (sign, weight) = match label {
            1 => (1.0, self.desirable.get()),
            _ => (-1.0, self.undesirable.get()),
        };
        let x = sign * self.beta.get() * (ratio - zero);
        let (share, rest) = (1.0 / (1.0 + libm::exp(-x)), 1.0 / (1.0 + libm::exp(x)));
        [
            weight * rest,
            -weight * share * rest * sign * self.beta.get(),
        ]
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("unpaired"));

impl OpRule for Unpaired {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let texts = Self::check(x)?;
        let dtype = x.first().map_or(DType::F32, |x| x.dtype);
        Ok(vec![
            TensorType::scalar(dtype),
            TensorType::new(dtype, [texts, Dim::from(2)]),
        ])
    }

    fn is_exact(&self, _: usize) -> bool {
        true
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        list.once(
            "unpaired",
            "unpaired",
            args![
                In(0),
                In(1),
                In(2),
                In(3),
                In(4),
                Out(0),
                Out(1),
                cx.rows(0) as u32,
                self.beta.get() as f32,
                self.desirable.get() as f32,
                self.undesirable.get() as f32
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let labels = io.input(2).slice::<u32>();
        let scale = f64::from(io.input(3).slice::<f32>()[0]);
        let reference = io.input(4).slice::<f32>();
        let beta = self.beta.get();
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (losses, others) = (io.input(0).slice::<T>(), io.input(1).slice::<T>());
            let ratios = Self::ratios(losses, others, reference);
            let rows = io.outputs[1].slice::<T>();
            // A text without its other half has no loss.
            rows.fill(T::of(f64::NAN));
            let mut sum = 0.0;
            let second = others.iter().zip(reference).skip(1).step_by(2);
            let labels = labels.iter().step_by(2);
            for (((ratio, label), (loss, other)), rows) in
                ratios.own.iter().zip(labels).zip(second).zip(rows.chunks_exact_mut(4))
            {
                let [own, _] = self.of(*ratio, ratios.zero, *label);
                let another = f64::from(*other) - loss.wide();
                rows.copy_from_slice(&[beta * ratio, own, beta * another, own].map(T::of));
                sum += 2.0 * own;
            }
            if losses.len() % 2 == 1 {
                sum = f64::NAN;
            }
            io.outputs[0].slice::<T>()[0] = T::of(sum * scale);
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut grads = vec![None; at.inputs.len()];
        if let (Some(up), true) = (at.up[0], at.needs[0]) {
            let of = self.clone();
            let operands: Vec<Value> = std::iter::once(up)
                .chain(at.inputs.iter().copied())
                .collect();
            grads[0] = Some(b.push1(UnpairedGrad { of }, &operands));
        }
        grads
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

/// Losses of texts twice, labels, a scale, and a reference.
#[cfg(test)]
pub(super) fn operands(texts: usize) -> Vec<super::Tensor> {
    use super::fixtures::{ids, list, random, scalar};
    let labels: Vec<u32> = (0..texts as u32).map(|text| text / 2 % 2).collect();
    let reference = list(71, texts);
    let reference =
        super::Tensor::new(reference.slice::<f32>().expect("f32").to_vec(), &[texts, 1]);
    vec![
        random(70, &[texts, 1]),
        random(73, &[texts, 1]),
        ids(&labels),
        scalar(0.25),
        reference,
    ]
}

/// With either weight.
#[cfg(test)]
pub(super) fn kinds() -> [Unpaired; 2] {
    [(1.0, 1.0), (1.5, 0.5)].map(|(desirable, undesirable)| Unpaired {
        beta: Real::new(0.5),
        desirable: Real::new(desirable),
        undesirable: Real::new(undesirable),
    })
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, narrow};
    let mut all = Fixtures::new();
    for op in kinds() {
        all.sample(op.clone(), operands(6));
        all.sample(op.clone(), operands(2));
        all.case(op, operands(700).iter().map(narrow).collect::<Vec<_>>());
    }
    all
}
