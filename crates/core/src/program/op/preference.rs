//! `preference`: the losses of pairs of texts of which one is preferred.

use super::super::types::{DType, Dim, Real};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{At, Builder, Io, Kernel, OpError, OpRule, PreferenceGrad, SizedCx, TensorType, Value};

/// What a margin costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PreferenceLoss {
    /// `−(1 − ε) log σ(β m) − ε log σ(−β m)` (Rafailov et al. 2023, arXiv 2305.18290, equation 7).
    Sigmoid,
    /// The same without bias under labels that are wrong with probability ε (Chowdhury et al. 2024, arXiv 2403.00409):
    /// `(−(1 − ε) log σ(β m) + ε log σ(−β m)) / (1 − 2 ε)`.
    Robust,
    /// `max(0, 1 − β m)` (Zhao et al. 2023, arXiv 2305.10425).
    Hinge,
    /// `(m − 1 / (2 β))²` of the mean of each text's tokens (Azar et al. 2023, arXiv 2310.12036).
    Ipo,
    /// [`Sigmoid`](Self::Sigmoid) of `β m − γ`, of the mean of each text's tokens (Meng et al. 2024, arXiv 2405.14734, equation 6).
    Simpo,
    /// `−c − β log σ(o)` of the mean `c` of the chosen text's tokens: `o` is the logarithm of the ratio of the odds of both texts,
    /// `p / (1 − p)`, by the means of their tokens (Hong et al. 2024, arXiv 2403.07691, equations 6 and 7; their λ is β here).
    Orpo,
}

/// The largest log-likelihood of which odds are taken: those of a certain text have no end.
const CERTAIN: f64 = -1e-12;

/// `(losses [S, 1], sequences u32[R], scale f32[1]) → (loss [1], rows [S, 2])`, with `reference f32[S, 1]` behind where
/// there is one.
///
/// `losses` has of each text the negative log-likelihood of its learned tokens, and `reference` the same under the
/// reference; `sequences` has of each learned token its text. Texts come in pairs: the chosen one, then the rejected one.
/// The margin `m` of a pair is the log-likelihood of the chosen text above its reference less that of the rejected one. `rows` has of each
/// text its reward, `β` times its log-likelihood above the reference, and its pair's loss; `loss = scale · Σ` of those.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Preference {
    /// Which loss.
    pub loss: PreferenceLoss,
    /// β.
    pub beta: Real,
    /// ε, the share of pairs whose order is taken to be wrong.
    pub smoothing: Real,
    /// γ, the reward by which a chosen text is to be ahead, of [`PreferenceLoss::Simpo`].
    pub gamma: Real,
    /// α, the weight of the mean loss of the chosen text's tokens beside it.
    pub alpha: Real,
}

/// `log(1 + eˣ)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// The logarithm of the odds of what has this log-likelihood, and its derivative.
fn odds(x: f64) -> (f64, f64) {
    let other = -libm::expm1(x.min(CERTAIN));
    let slope = if x < CERTAIN { 1.0 / other } else { 0.0 };
    (x.min(CERTAIN) - libm::log(other), slope)
}

impl Preference {
    /// The number that kernels know the loss by.
    pub(super) const fn code(&self) -> u32 {
        match self.loss {
            PreferenceLoss::Sigmoid => 0,
            PreferenceLoss::Robust => 1,
            PreferenceLoss::Hinge => 2,
            PreferenceLoss::Ipo => 3,
            PreferenceLoss::Simpo => 4,
            PreferenceLoss::Orpo => 5,
        }
    }

    /// The loss of a pair by the log-likelihoods of the chosen and the rejected text above the reference's.
    fn of(&self, [chosen, rejected]: [f64; 2]) -> f64 {
        let (beta, e) = (self.beta.get(), self.smoothing.get());
        let margin = chosen - rejected;
        let x = beta * margin;
        let smoothed = |x: f64| (1.0 - e) * softplus(-x) + e * softplus(x);
        match self.loss {
            PreferenceLoss::Sigmoid => smoothed(x),
            PreferenceLoss::Robust => {
                ((1.0 - e) * softplus(-x) - e * softplus(x)) / (1.0 - 2.0 * e)
            }
            PreferenceLoss::Hinge => (1.0 - x).max(0.0),
            PreferenceLoss::Ipo => (margin - 0.5 / beta).powi(2),
            PreferenceLoss::Simpo => smoothed(x - self.gamma.get()),
            PreferenceLoss::Orpo => beta * softplus(odds(rejected).0 - odds(chosen).0) - chosen,
        }
    }

    /// Its derivatives by both.
    pub(super) fn slopes(&self, [chosen, rejected]: [f64; 2]) -> [f64; 2] {
        let (beta, e) = (self.beta.get(), self.smoothing.get());
        let margin = chosen - rejected;
        let x = beta * margin;
        let smoothed = |x: f64| beta * (e * sigmoid(x) - (1.0 - e) * sigmoid(-x));
        let slope = match self.loss {
            PreferenceLoss::Sigmoid => smoothed(x),
            PreferenceLoss::Robust => {
                -beta * (e * sigmoid(x) + (1.0 - e) * sigmoid(-x)) / (1.0 - 2.0 * e)
            }
            PreferenceLoss::Hinge if x < 1.0 => -beta,
            PreferenceLoss::Hinge => 0.0,
            PreferenceLoss::Ipo => 2.0 * (margin - 0.5 / beta),
            PreferenceLoss::Simpo => smoothed(x - self.gamma.get()),
            PreferenceLoss::Orpo => {
                let (own, other) = (odds(chosen), odds(rejected));
                let slope = beta * sigmoid(other.0 - own.0);
                return [-slope * own.1 - 1.0, slope * other.1];
            }
        };
        [slope, -slope]
    }

    /// Whether a text counts by the mean of its tokens.
    pub(super) const fn is_mean(&self) -> bool {
        use PreferenceLoss::{Ipo, Orpo, Simpo};
        matches!(self.loss, Ipo | Simpo | Orpo)
    }

    /// What the loss of a text of so many tokens is divided by.
    pub(super) const fn divisor(&self, length: f64) -> f64 {
        if self.is_mean() { length } else { 1.0 }
    }

    /// What the chosen text's tokens add to the loss of its pair, of so many tokens.
    fn likelihood(&self, loss: f64, length: f64) -> f64 {
        match self.alpha.get() {
            0.0 => 0.0,
            alpha => alpha * loss / length,
        }
    }

    /// The number of each text's tokens, where it is read.
    pub(super) fn lengths(&self, sequences: &[u32], texts: usize) -> Result<Vec<f64>, OpError> {
        if !self.is_mean() && self.alpha.get() == 0.0 {
            return Ok(vec![1.0; texts]);
        }
        let mut lengths = vec![0.0; texts];
        for &own in sequences {
            let slot = lengths.get_mut(own as usize).ok_or(OpError::Index {
                index: u64::from(own),
                rows: texts as u64,
            })?;
            *slot += 1.0;
        }
        Ok(lengths)
    }

    /// Checks the operands; gives the number of texts.
    pub(super) fn check(&self, x: &[&TensorType]) -> Result<Dim, String> {
        let (losses, sequences, scale, reference) = match x {
            [losses, sequences, scale] => (losses, sequences, scale, None),
            [losses, sequences, scale, reference] => (losses, sequences, scale, Some(reference)),
            _ => return Err("losses, places and a scale are wanted".into()),
        };
        match losses.matrix() {
            Some((s, one))
                if losses.dtype.is_compute()
                    && one.as_const() == Some(1)
                    && sequences.dtype == DType::U32
                    && sequences.shape.len() == 1
                    && reference
                        .is_none_or(|r| **r == TensorType::new(DType::F32, [s, Dim::from(1)]))
                    && **scale == TensorType::scalar(DType::F32) =>
            {
                Ok(s)
            }
            _ => Err("a loss a text, and as many f32 references, are wanted".into()),
        }
    }

    /// Log-likelihood of each text above the reference's.
    pub(super) fn above<T: Elementary>(
        &self,
        losses: &[T],
        reference: Option<&[f32]>,
        lengths: &[f64],
    ) -> Vec<f64> {
        let each = losses.iter().zip(lengths).enumerate();
        each.map(|(i, (loss, length))| {
            let other = reference
                .and_then(|r| r.get(i))
                .map_or(0.0, |&x| f64::from(x));
            (other - loss.wide()) / self.divisor(*length)
        })
        .collect()
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("preference"));

impl OpRule for Preference {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let texts = self.check(x)?;
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
        let compared = cx.inputs.len() > 3;
        list.once(
            "preference",
            "preference",
            args![
                In(0),
                In(1),
                In(2),
                if compared { In(3) } else { In(0) },
                Out(0),
                Out(1),
                cx.elements(1) as u32,
                cx.rows(0) as u32,
                u32::from(compared),
                self.code(),
                self.beta.get() as f32,
                self.smoothing.get() as f32,
                self.gamma.get() as f32,
                self.alpha.get() as f32
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let sequences = io.input(1).slice::<u32>();
        let scale = f64::from(io.input(2).slice::<f32>()[0]);
        let reference = (io.inputs.len() > 3).then(|| io.input(3).slice::<f32>());
        let lengths = self.lengths(sequences, io.input(0).dims[0])?;
        let beta = self.beta.get();
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let losses = io.input(0).slice::<T>();
            let above = self.above(losses, reference, &lengths);
            let mut sum = 0.0;
            let rows = io.outputs[1].slice::<T>();
            // A text without its other half has no loss.
            rows.fill(T::of(f64::NAN));
            let own = losses.chunks_exact(2).zip(lengths.chunks_exact(2));
            for ((pair, rows), (losses, lengths)) in above.chunks_exact(2).zip(rows.chunks_exact_mut(4)).zip(own) {
                let (chosen, rejected) = (pair[0], pair[1]);
                let loss = self.of([chosen, rejected]) + self.likelihood(losses[0].wide(), lengths[0]);
                rows.copy_from_slice(&[beta * chosen, loss, beta * rejected, loss].map(T::of));
                sum += 2.0 * loss;
            }
            if above.len() % 2 == 1 {
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
            grads[0] = Some(b.push1(PreferenceGrad { of }, &operands));
        }
        grads
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

/// Losses of texts, the text of each token, a scale, and a reference.
#[cfg(test)]
pub(super) fn operands(texts: usize) -> Vec<super::Tensor> {
    use super::fixtures::{ids, list, random, scalar};
    let sequences: Vec<u32> = (0..texts as u32)
        .flat_map(|text| std::iter::repeat_n(text, 1 + text as usize % 3))
        .collect();
    let reference = list(71, texts);
    let reference =
        super::Tensor::new(reference.slice::<f32>().expect("f32").to_vec(), &[texts, 1]);
    vec![
        random(70, &[texts, 1]),
        ids(&sequences),
        scalar(0.25),
        reference,
    ]
}

/// Every loss.
#[cfg(test)]
pub(super) fn kinds() -> Vec<Preference> {
    use PreferenceLoss::{Hinge, Ipo, Orpo, Robust, Sigmoid, Simpo};
    let of = |loss, smoothing| Preference {
        loss,
        beta: Real::new(0.5),
        smoothing: Real::new(smoothing),
        gamma: Real::new(0.75),
        alpha: Real::new(0.0),
    };
    let with = |loss, alpha| Preference {
        alpha: Real::new(alpha),
        ..of(loss, 0.125)
    };
    vec![
        of(Sigmoid, 0.0),
        of(Sigmoid, 0.25),
        of(Robust, 0.125),
        of(Hinge, 0.0),
        of(Ipo, 0.0),
        of(Simpo, 0.125),
        of(Orpo, 0.0),
        with(Sigmoid, 1.0),
        with(Simpo, 0.5),
    ]
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, narrow};
    let mut all = Fixtures::new();
    for op in kinds() {
        all.sample(op.clone(), operands(6));
        all.sample(op.clone(), operands(2)[..3].to_vec());
        all.case(op, operands(700).iter().map(narrow).collect::<Vec<_>>());
    }
    all
}
