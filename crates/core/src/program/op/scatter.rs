//! `scatter`: sums rows into a matrix, the gradient of `gather`.

use rayon::prelude::*;

use super::super::types::{DType, Dim};
use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::{
    At, Builder, Gather, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType, Value,
};

/// `(ids u32[N], up[N, d]) → [rows, d]` (of `[N]`: `[rows]`), zero where no id points. Rows of one id are summed in
/// order, so the result does not depend on threads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scatter {
    /// Rows of the result.
    pub rows: Dim,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("scatter"));

impl OpRule for Scatter {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [ids, up] if ids.dtype == DType::U32 && up.dtype.is_compute() => match up
                .shape
                .as_slice()
            {
                [n] if ids.shape == [*n] => Ok(vec![TensorType::new(up.dtype, [self.rows])]),
                [n, d] if ids.shape == [*n] => Ok(vec![TensorType::new(up.dtype, [self.rows, *d])]),
                _ => Err("one row for each id is wanted".into()),
            },
            _ => Err("u32 rows and a float matrix are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let stored_in = stored_in(cx, &[1], &[])?;
        let mut list = Launches::default();
        let (n, rows) = (
            cx.elements(0),
            cx.outputs.first()?.dims.first().copied()? as u64,
        );
        let d = cx.outputs.first()?.dims.get(1).copied().unwrap_or(1) as u64;
        list.fours("fill", "fill", rows * d, args![Out(0), rows * d, 0.0_f32]);
        list.stored_in = stored_in;
        list.rows(
            "scatter",
            "scatter",
            n,
            256,
            args![In(0), In(1), Out(0), Fault, n as u32, rows as u32, d as u32],
        );
        Some(list)
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let ids = io.input(0).slice::<u32>();
        let (rows, d) = (
            io.outputs[0].dims[0],
            io.outputs[0].dims.get(1).copied().unwrap_or(1),
        );
        if let Some(&bad) = ids.iter().find(|&&id| id as usize >= rows) {
            return Err(OpError::Index {
                index: u64::from(bad),
                rows: rows as u64,
            });
        }
        cx.scratch(ids.len() as u64 * 8, || {
            let mut order: Vec<(u32, u32)> = ids
                .iter()
                .enumerate()
                .map(|(i, &id)| (id, i as u32))
                .collect();
            order.sort_unstable();
            super::kernel::float!(io.outputs[0].dtype(), T => {
                let up = io.input(1).slice::<T>();
                let out = io.outputs[0].slice::<T>();
                out.par_chunks_mut(d * 256).enumerate().for_each(|(block, part)| {
                    part.fill(0.0);
                    let (first, last) = ((block * 256) as u32, (block * 256 + 256) as u32);
                    let start = order.partition_point(|(id, _)| *id < first);
                    for &(id, i) in order[start..].iter().take_while(|(id, _)| *id < last) {
                        let at = (id - first) as usize * d;
                        let from = &up[i as usize * d..(i as usize + 1) * d];
                        part[at..at + d].iter_mut().zip(from).for_each(|(o, &x)| *o += x);
                    }
                });
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let dx = at.up[0].filter(|_| at.needs[1]).map(|up| {
            let out = b.ty(up).dtype;
            b.push1(Gather { out }, &[up, at.inputs[0]])
        });
        vec![None, dx]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 1
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        cx.elements(0) * 8
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, ids, matrix, random};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![1], vec![]));
    let op = |rows: u64| Scatter { rows: rows.into() };
    all.sample(op(7), [ids(&[6, 0, 6]), random(41, &[3])]);
    all.sample(op(300), [ids(&[299, 0, 7, 299]), random(9, &[4, 5])]);
    for (rows, d) in SHAPES {
        let picked: Vec<u32> = (0..77).map(|i| i * 5 % rows as u32).collect();
        all.case(op(rows as u64), [ids(&picked), matrix(15, 77, d)]);
    }
    let many: Vec<u32> = (0..700).map(|i| i * i % 11).collect();
    all.case(op(12), [ids(&many), matrix(32, 700, 5)]);
    all.fault(op(3), [ids(&[0, 3]), matrix(1, 2, 2)]);
    all
}
