//! `aged_adamw`: AdamW in place where each number has an age of its own.

use rayon::prelude::*;

use super::super::types::{DType, Real};
use super::launch::{KernelSource, Launches, Operand::In, args, source};
use super::math::CHUNK;
use super::{Cost, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(θ, g, m, v, age, lr f32[1], factor f32[1])`, updating θ, m, v and the age, which grows by one: AdamW whose moments are
/// corrected by each number's own age, for numbers that come and go while training.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgedAdamW {
    /// Decay of the first moment.
    pub beta1: Real,
    /// Decay of the second moment.
    pub beta2: Real,
    /// Added to the root of the second moment.
    pub eps: Real,
    /// Decoupled weight decay.
    pub weight_decay: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("aged_adamw"));

impl OpRule for AgedAdamW {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let one = TensorType::scalar(DType::F32);
        match x {
            [p, rest @ .., lr, factor]
                if rest.len() == 4
                    && p.dtype == DType::F32
                    && rest.iter().all(|t| t == p)
                    && **lr == one
                    && **factor == one =>
            {
                Ok(vec![])
            }
            _ => Err("five f32 tensors of one shape, a rate and a factor are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let (n, eps) = (cx.elements(0), self.eps.get() as f32);
        let args = args![
            In(0),
            In(1),
            In(2),
            In(3),
            In(4),
            In(5),
            In(6),
            n,
            self.beta1.get(),
            self.beta2.get(),
            eps,
            self.weight_decay.get()
        ];
        list.each("aged_adamw", "aged_adamw", n, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let g = io.input(1).slice::<f32>();
        let (lr, factor) = (io.input(5).slice::<f32>()[0], io.input(6).slice::<f32>()[0]);
        let [p, m, v, age] = io.updates.as_mut_slice() else {
            unreachable!("four tensors are updated")
        };
        let (p, m, v, age) = (
            p.slice::<f32>(),
            m.slice::<f32>(),
            v.slice::<f32>(),
            age.slice::<f32>(),
        );
        let (b1, b2, eps) = (self.beta1.get(), self.beta2.get(), self.eps.get() as f32);
        let (c1, c2) = ((1.0 - b1) as f32, (1.0 - b2) as f32);
        let keep = (1.0 - f64::from(lr) * self.weight_decay.get()) as f32;
        let rates = |age: f32| {
            let t = f64::from(age);
            let size = (f64::from(lr) / (1.0 - libm::pow(b1, t))) as f32;
            (size, (1.0 - libm::pow(b2, t)).sqrt() as f32)
        };
        let all = p
            .par_chunks_mut(CHUNK)
            .zip(m.par_chunks_mut(CHUNK))
            .zip(v.par_chunks_mut(CHUNK));
        all.zip(age.par_chunks_mut(CHUNK))
            .zip(g.par_chunks(CHUNK))
            .for_each(|((((p, m), v), age), g)| {
                let mut known = (0.0_f32, rates(1.0));
                for ((((p, m), v), age), &g) in p.iter_mut().zip(m).zip(v).zip(age).zip(g) {
                    *age += 1.0;
                    if *age != known.0 {
                        known = (*age, rates(*age));
                    }
                    let (size, root) = known.1;
                    let g = g * factor;
                    *m += (g - *m) * c1;
                    *v = *v * (b2 as f32) + g * g * c2;
                    *p = *p * keep - size * (*m / (v.sqrt() / root + eps));
                }
            });
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 14 * cx.elements(0),
            bytes: 9 * 4 * cx.elements(0),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 2, 3, 4]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, list, scalar};
    let mut all = Fixtures::new();
    let op = AgedAdamW {
        beta1: Real::new(0.9),
        beta2: Real::new(0.999),
        eps: Real::new(1e-8),
        weight_decay: Real::new(0.1),
    };
    for n in [30, 20_000] {
        let [p, g, m] = [1, 2, 3].map(|seed| list(seed, n));
        let v: Vec<f32> = (0..n).map(|i| i as f32 * 1e-3).collect();
        let age: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
        let [v, age] = [v, age].map(|x| super::Tensor::new(x, &[n]));
        let inputs = [p, g, m, v, age, scalar(1e-2), scalar(0.5)];
        match n {
            30 => all.sample(op.clone(), inputs),
            _ => all.case(op.clone(), inputs),
        }
    }
    all
}
