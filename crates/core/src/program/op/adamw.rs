//! `adamw`: one AdamW update in place (Loshchilov and Hutter 2019, arXiv 1711.05101).

use rayon::prelude::*;

use super::super::types::{DType, Real};
use super::launch::{Call, KernelSource, Launch, Launches, Operand::In, args, source};
use super::math::{CHUNK, Elementary, simd};
use super::{Cost, Io, Kernel, Op, OpError, OpRule, SizedCx, TensorType};

/// `(θ, g, m, v, lr f32[1], step u32[1], factor f32[1])`, updating θ, m, v, in the order of
/// operations of `torch.optim.AdamW`: decay, moments, `θ −= lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)`, with
/// `t = step + 1 − since` and `g` times `factor`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: Real,
    /// Decay of the second moment.
    pub beta2: Real,
    /// Added to the root of the second moment.
    pub eps: Real,
    /// Decoupled weight decay.
    pub weight_decay: Real,
    /// Steps before the first of its updates.
    pub since: u32,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("adamw"));

impl OpRule for AdamW {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let one = TensorType::scalar(DType::F32);
        match x {
            [p, g, m, v, lr, step, factor]
                if p == g
                    && g == m
                    && m == v
                    && p.dtype == DType::F32
                    && **lr == one
                    && **factor == one
                    && **step == TensorType::scalar(DType::U32) =>
            {
                Ok(vec![])
            }
            _ => {
                Err("four f32 tensors of one shape, a rate, a step and a factor are wanted".into())
            }
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
            self.weight_decay.get(),
            self.since
        ];
        list.each("adamw", "adamw", n, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let g = io.input(1).slice::<f32>();
        let (lr, step, factor) = (
            io.input(4).slice::<f32>()[0],
            io.input(5).slice::<u32>()[0],
            io.input(6).slice::<f32>()[0],
        );
        let now = self.now(lr, step, factor);
        let [p, m, v] = io.updates.as_mut_slice() else {
            unreachable!("three tensors are updated")
        };
        let work = |(((p, m), v), g): (((&mut [f32], &mut [f32]), &mut [f32]), &[f32])| {
            update(now, p, m, v, g)
        };
        let (p, m, v) = (p.slice::<f32>(), m.slice::<f32>(), v.slice::<f32>());
        p.par_chunks_mut(CHUNK)
            .zip(m.par_chunks_mut(CHUNK))
            .zip(v.par_chunks_mut(CHUNK))
            .zip(g.par_chunks(CHUNK))
            .for_each(work);
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 12 * cx.elements(0),
            bytes: 7 * 4 * cx.elements(0),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 2, 3]
    }
}

impl AdamW {
    /// The coefficients of a step at a rate, with the factor of its gradient.
    pub(super) fn now(&self, lr: f32, step: u32, factor: f32) -> Now<f32> {
        let t = f64::from(step.saturating_sub(self.since)) + 1.0;
        let (b1, b2) = (self.beta1.get(), self.beta2.get());
        Now {
            keep: (1.0 - f64::from(lr) * self.weight_decay.get()) as f32,
            c1: (1.0 - b1) as f32,
            b2: b2 as f32,
            c2: (1.0 - b2) as f32,
            root: (1.0 - libm::pow(b2, t)).sqrt() as f32,
            eps: self.eps.get() as f32,
            step_size: (f64::from(lr) / (1.0 - libm::pow(b1, t))) as f32,
            factor,
        }
    }

    /// Most tensors of one launch: a row of the grid each.
    pub const MOST_TOGETHER: usize = 4096;

    /// Whether both can be applied by one launch: all but the decay, which each tensor has for itself.
    #[must_use]
    pub fn goes_with(&self, other: &Self) -> bool {
        let own = |op: &Self| (op.beta1, op.beta2, op.eps, op.since);
        own(self) == own(other)
    }

    /// Updates of several tensors in one launch, a row of blocks each. The inputs of the `i`th are
    /// `In(7·i)` to `In(7·i + 6)`; the last three are read of the first. `None` if there are none, or other ops.
    #[must_use]
    pub fn together(ops: &[(&Op, SizedCx)]) -> Option<Launches> {
        let own = ops.iter().map(|(op, cx)| match op {
            Op::AdamW(own) => Some((own, cx)),
            _ => None,
        });
        let updates: Vec<(&Self, &SizedCx)> = own.collect::<Option<_>>()?;
        let ((first, _), mut list) = (updates.first()?, Launches::default());
        let table = list.scratch(updates.len() as u64 * 48);
        let mut words = Vec::with_capacity(6 * updates.len());
        for (i, (op, cx)) in updates.iter().enumerate() {
            let at = |input: usize| In(7 * i + input);
            words.extend(args![
                at(0),
                at(1),
                at(2),
                at(3),
                cx.elements(0),
                op.weight_decay.get()
            ]);
        }
        list.list.push(Launch::Table { to: table, words });
        let most = updates.iter().map(|(_, cx)| cx.elements(0)).max()?;
        list.call(Call {
            stored_in: DType::F32,
            source: "adamw",
            kernel: "adamw_together",
            grid: [most.div_ceil(1024).min(64) as u32, updates.len() as u32],
            block: 256,
            shared: 0,
            args: args![
                table,
                In(4),
                In(5),
                In(6),
                first.beta1.get(),
                first.beta2.get(),
                first.eps.get() as f32,
                first.since
            ],
        });
        Some(list)
    }
}

/// The coefficients of one step.
#[derive(Clone, Copy)]
pub(super) struct Now<T> {
    keep: T,
    c1: T,
    b2: T,
    c2: T,
    root: T,
    eps: T,
    step_size: T,
    factor: T,
}

/// The update of a part of a parameter, its moments among it.
pub(super) fn update<T: Elementary>(now: Now<T>, p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
    simd!(<T> (now: Now<T> = now, p: &'a mut [T] = p, m: &'a mut [T] = m, v: &'a mut [T] = v, g: &'a [T] = g) {
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * now.factor;
            *m += (g - *m) * now.c1;
            *v = *v * now.b2 + g * g * now.c2;
            *p = *p * now.keep - now.step_size * (*m / (v.sqrt() / now.root + now.eps));
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, narrow, scalar, small};
    let mut all = Fixtures::new();
    let op = |beta2, eps, weight_decay| AdamW {
        beta1: Real::new(0.9),
        beta2: Real::new(beta2),
        eps: Real::new(eps),
        weight_decay: Real::new(weight_decay),
        since: 0,
    };
    let x = || narrow(&small(4));
    let positive = super::Tensor::new(vec![0.5_f32; 30], &[6, 5]);
    let inputs = [x(), x(), x(), positive, scalar(0.1), ids(&[3]), scalar(0.5)];
    all.sample(op(0.999, 1e-8, 0.01), inputs);
    let second: Vec<f32> = (0..513).map(|i| i as f32 * 1e-3).collect();
    let second = super::Tensor::new(second, &[513]);
    let [value, up, first] = [29, 30, 31].map(|seed| list(seed, 513));
    let inputs = [
        value,
        up,
        first,
        second,
        scalar(1e-3),
        ids(&[1000]),
        scalar(0.9),
    ];
    all.case(op(0.98, 1e-6, 0.1), inputs.clone());
    let late = AdamW {
        since: 990,
        ..op(0.98, 1e-6, 0.1)
    };
    all.case(late, inputs);
    all
}
