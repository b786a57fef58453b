//! `window_grad`: gradients of positions and features that stood side by side.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{add_to, column_sums, column_sums_scratch, for_chunks_of_rows};
use super::{Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};
use crate::program::Dim;

/// `up[k·T, d] → (dp[k, d], df…[T, d])`: `dp[c]` sums the rows of slot `c`; a feature's gradient adds up
/// the slots it is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowGrad {
    /// For each slot which feature is in it.
    pub slots: Vec<Option<u32>>,
    /// Number of features.
    pub features: u32,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("window_grad"));

impl OpRule for WindowGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let k = self.slots.len() as u64;
        let [up] = x else {
            return Err("one matrix is wanted".into());
        };
        let Some((rows, d)) = up.matrix() else {
            return Err("a matrix is wanted".into());
        };
        let whole = rows.constant % k == 0 && rows.factors.iter().all(|f| f % k == 0);
        if !whole || !up.dtype.is_compute() {
            return Err(format!("rows must come {k} a token"));
        }
        let tokens = Dim {
            constant: rows.constant / k,
            factors: rows.factors.map(|f| f / k),
        };
        let feature = TensorType::new(up.dtype, [tokens, d]);
        let mut outs = vec![TensorType::new(up.dtype, [Dim::from(k), d])];
        outs.extend((0..self.features).map(|_| feature.clone()));
        Ok(outs)
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let features: Vec<usize> = (1..cx.outputs.len()).collect();
        let stored_in = stored_in(cx, &[0], &features)?;
        // A feature of two slots is added up where it is stored.
        let shared = |i| self.slots.iter().filter(|&&slot| slot == Some(i)).count() > 1;
        if stored_in.is_half() && (0..self.features).any(shared) {
            return None;
        }
        let mut list = Launches::of(stored_in);
        let (k, d) = (self.slots.len() as u64, cx.width(0));
        let tokens = cx.rows(0) / k.max(1);
        list.column_sums(
            ("sum_rows", "sum_rows"),
            (tokens, k * d),
            &[In(0)],
            &[Out(0)],
        );
        for i in 0..self.features {
            let mut own = (0..k as u32)
                .filter(|&c| self.slots[c as usize] == Some(i))
                .peekable();
            let out = Out(i as usize + 1);
            if own.peek().is_none() {
                list.fours("fill", "fill", tokens * d, args![out, tokens * d, 0.0_f32]);
            }
            for (n, c) in own.enumerate() {
                list.rows(
                    "window_grad",
                    "window_slot_grad",
                    tokens,
                    d,
                    args![In(0), out, k as u32, c, d as u32, u32::from(n == 0)],
                );
            }
        }
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (k, d) = (self.slots.len(), io.input(0).dims[1]);
            let up = io.input(0).slice::<T>();
            let rows = up.len() / (k * d).max(1);
            let Some((dp, features)) = io.outputs.split_first_mut() else { unreachable!("an output: inferred") };
            let bytes = column_sums_scratch(rows as u64, (k * d) as u64, size_of::<T>() as u64);
            cx.scratch(bytes, || {
                column_sums(rows, k * d, dp.slice::<T>(), |range, sums| {
                    for row in up[range.start * k * d..range.end * k * d].chunks_exact(k * d) {
                        add_to(sums, row);
                    }
                });
            });
            for (i, out) in features.iter_mut().enumerate() {
                let slots: Vec<usize> = (0..k).filter(|&c| self.slots[c] == Some(i as u32)).collect();
                for_chunks_of_rows(out.slice::<T>(), d, |first, rows| {
                    for (t, row) in rows.chunks_exact_mut(d).enumerate() {
                        row.fill(num_traits::Zero::zero());
                        for c in &slots {
                            add_to(row, &up[((first + t) * k + c) * d..][..d]);
                        }
                    }
                });
            }
        });
        Ok(())
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let k = self.slots.len() as u64;
        let (rows, d) = cx
            .inputs
            .first()
            .map_or((0, 0), |x| (x.dims[0] as u64, x.dims[1] as u64));
        let size = cx.inputs.first().map_or(4, |x| x.bytes / (rows * d).max(1));
        column_sums_scratch(rows / k.max(1), k * d, size)
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|op, _| match op {
        super::Op::WindowGrad(op) => (vec![0], (1..=op.features as usize).collect()),
        other => panic!("{other:?}"),
    });
    let slots = vec![None, Some(1), Some(0), Some(1)];
    all.sample(WindowGrad { slots, features: 2 }, [random(39, &[280, 5])]);
    for (rows, d) in SHAPES {
        for last in [Some(1), None] {
            let slots = vec![Some(1), None, Some(0), last];
            all.case(WindowGrad { slots, features: 3 }, [matrix(26, 4 * rows, d)]);
        }
    }
    all
}
