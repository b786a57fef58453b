//! `window`: the features of several layers side by side, as the keys of a ladder's cross-attention.

use super::launch::{
    Arg, KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{for_chunks_of_rows, part};
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value, WindowGrad};

/// `(p[k, d], f…[T, d]) → [k·T, d]`: row `k·t + c` is `p[c]` plus row `t` of the feature in slot `c`,
/// or `p[c]` alone where the slot is empty (methods A11, step 4; a sequence's rows follow each other,
/// so that attention, which does not mind the order of keys, finds them together).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// For each slot which feature is in it.
    pub slots: Vec<Option<u32>>,
}

impl Window {
    /// Checks the operands; gives the width.
    pub(super) fn check(
        slots: &[Option<u32>],
        position: &TensorType,
        features: &[&TensorType],
    ) -> Result<(), String> {
        let (Some((k, d)), [first, rest @ ..]) = (position.matrix(), features) else {
            return Err("positions and features are wanted".into());
        };
        let fits = k.as_const() == Some(slots.len() as u64)
            && first.dtype == position.dtype
            && position.dtype.is_compute()
            && first.matrix().is_some_and(|(_, width)| width == d)
            && rest.iter().all(|f| f == first)
            && slots
                .iter()
                .flatten()
                .all(|&i| (i as usize) < features.len());
        if fits {
            Ok(())
        } else {
            Err("a position a slot and features of one type and its width are wanted".into())
        }
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("window"));

impl OpRule for Window {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [position, features @ ..] = x else {
            return Err("positions are wanted".into());
        };
        Self::check(&self.slots, position, features)?;
        let (rows, d) = features
            .first()
            .and_then(|f| f.matrix())
            .ok_or("a feature is wanted")?;
        Ok(vec![TensorType::new(
            position.dtype,
            [rows.times(self.slots.len() as u64), d],
        )])
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let features: Vec<usize> = (1..cx.inputs.len()).collect();
        let mut list = Launches::of(stored_in(cx, &features, &[0])?);
        let (k, rows, d) = (self.slots.len() as u32, cx.rows(1), cx.width(0));
        for (c, slot) in self.slots.iter().enumerate() {
            let mut args = args![
                In(0),
                Out(0),
                Out(0),
                k,
                c as u32,
                d as u32,
                u32::from(slot.is_none())
            ];
            args[1] = slot.map_or(Arg::Null, |i| In(i as usize + 1).into());
            list.rows("window", "window_slot", rows, d, args);
        }
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (k, d) = (self.slots.len(), io.input(0).dims[1]);
            let position = io.input(0).slice::<T>();
            let features: Vec<&[T]> = (1..io.inputs.len()).map(|i| io.input(i).slice::<T>()).collect();
            for_chunks_of_rows(io.outputs[0].slice::<T>(), k * d, |first, rows| {
                for (t, row) in rows.chunks_exact_mut(k * d).enumerate() {
                    row.copy_from_slice(position);
                    for (slot, out) in self.slots.iter().zip(row.chunks_exact_mut(d)) {
                        if let Some(i) = slot {
                            super::math::add_to(out, part(features[*i as usize], (first + t) * d, d));
                        }
                    }
                }
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None; at.inputs.len()];
        };
        let features = at.inputs.len() as u32 - 1;
        let made = b.push(
            WindowGrad {
                slots: self.slots.clone(),
                features,
            },
            &[up],
        );
        made.into_iter()
            .zip(at.needs)
            .map(|(grad, &wanted)| wanted.then_some(grad))
            .collect()
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, inputs| ((1..inputs).collect(), vec![0]));
    let slots = vec![None, Some(1), Some(0), Some(1)];
    all.sample(Window { slots }, [random(37, &[4, 5]), small(4), small(38)]);
    for (rows, d) in SHAPES {
        for last in [Some(1), None] {
            let slots = vec![Some(1), None, Some(0), last];
            let inputs = [matrix(25, 4, d), matrix(10, rows, d), matrix(13, rows, d)];
            all.case(Window { slots }, inputs);
        }
    }
    all
}
