//! `gather`: rows of a matrix, widened if it is stored narrow or in blocks.

use half::{bf16, f16};

use super::super::format::{Format, Packed, Ranges};
use super::super::types::{DType, Dim};
use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source,
};
use super::math::{for_chunks_of_rows, part};
use super::{
    At, Builder, Io, Kernel, OpError, OpRule, Scatter, SizedCx, Storage, TensorType, Value,
};

/// `(table[rows, d], ids u32[N]) → [N, d]` in type `out`; a table `[rows]` gives `[N]`. Only the gathered rows are widened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// Type of the result.
    pub out: DType,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("gather"));

impl OpRule for Gather {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [table, ids]
                if ids.dtype == DType::U32
                    && table.dtype != DType::U32
                    && self.out.is_compute() =>
            {
                let (1 | 2, [n]) = (table.shape.len(), ids.shape.as_slice()) else {
                    return Err("a table and a list are wanted".into());
                };
                if table.dtype == self.out
                    || (self.out == DType::F32 && matches!(table.dtype, DType::F16 | DType::BF16))
                {
                    let shape: Vec<_> = std::iter::once(*n)
                        .chain(table.shape.get(1).copied())
                        .collect();
                    Ok(vec![TensorType::new(self.out, shape)])
                } else {
                    Err(format!("{} is not widened to {}", table.dtype, self.out))
                }
            }
            _ => Err("a float matrix and u32 rows are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let kernel = match (cx.inputs.first()?.stored.plain()?, self.out) {
            (DType::F32, DType::F32) => "gather_f32",
            (DType::F16, DType::F32) => "gather_f16",
            (DType::BF16, DType::F32) => "gather_bf16",
            _ => return None,
        };
        let mut list = Launches::of(cx.outputs.first()?.stored.plain()?);
        let (rows, d) = (cx.rows(0), cx.width(0));
        list.rows(
            "gather",
            kernel,
            cx.elements(1),
            d,
            args![In(0), In(1), Out(0), Fault, rows as u32, d as u32],
        );
        Some(list)
    }

    fn reads(&self, i: usize, _: Format) -> bool {
        i == 0
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (table, ids) = (io.input(0), io.input(1).slice::<u32>());
        let rows = table.dims[0];
        if let Some(&bad) = ids.iter().find(|&&id| id as usize >= rows) {
            return Err(OpError::Index {
                index: u64::from(bad),
                rows: rows as u64,
            });
        }
        let d = table.dims.get(1).copied().unwrap_or(1);
        let out = &mut io.outputs[0];
        if let Storage::Blocks(format, data) = table.storage {
            decode(*format, data, ids, d, out.slice::<f32>());
            return Ok(());
        }
        match table.dtype() {
            DType::F64 => copy(table.slice::<f64>(), ids, d, out.slice::<f64>(), |x| x),
            DType::F16 => copy(
                table.slice::<f16>(),
                ids,
                d,
                out.slice::<f32>(),
                f16::to_f32,
            ),
            DType::BF16 => copy(
                table.slice::<bf16>(),
                ids,
                d,
                out.slice::<f32>(),
                bf16::to_f32,
            ),
            _ => copy(table.slice::<f32>(), ids, d, out.slice::<f32>(), |x| x),
        }
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let rows: Dim = b.ty(at.inputs[0]).shape[0];
        let table = match (at.needs[0], at.up[0]) {
            (true, Some(up)) => Some(b.push1(Scatter { rows }, &[at.inputs[1], up])),
            _ => None,
        };
        vec![table, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

/// Rows of a table in blocks.
fn decode(format: Packed, data: &[u8], ids: &[u32], width: usize, out: &mut [f32]) {
    for_chunks_of_rows(out, width, |first, out| {
        for (&id, out) in part(ids, first, out.len() / width)
            .iter()
            .zip(out.chunks_exact_mut(width))
        {
            let row = id as usize;
            let from = Ranges {
                data,
                width,
                rows: row..row + 1,
                columns: 0..width,
            };
            format.rule().decode(&from, out);
        }
    });
}

fn copy<S: Copy + Sync, T: Copy + Send>(
    table: &[S],
    ids: &[u32],
    d: usize,
    out: &mut [T],
    widen: impl Fn(S) -> T + Sync,
) {
    for_chunks_of_rows(out, d, |first, rows| {
        for (row, &id) in rows.chunks_exact_mut(d).zip(ids.iter().skip(first)) {
            let from = &table[id as usize * d..(id as usize + 1) * d];
            row.iter_mut().zip(from).for_each(|(o, &x)| *o = widen(x));
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, ids, matrix, random, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![], vec![0]));
    let op = |out| Gather { out };
    let (wide, single) = (op(DType::F64), op(DType::F32));
    all.sample_of(wide.clone(), single.clone(), [small(4), ids(&[3, 0, 3, 5])]);
    let inputs = [random(40, &[6]), ids(&[3, 0, 3, 5])];
    all.sample_of(wide, single.clone(), inputs);
    for (rows, d) in SHAPES {
        let picked: Vec<u32> = (0..77).map(|i| i * 5 % rows as u32).collect();
        all.case(single.clone(), [matrix(10, rows, d), ids(&picked)]);
    }
    for stored_in in [DType::F16, DType::BF16] {
        let mut table = super::cast::wide().cast(stored_in);
        table.dims = vec![table.dims[0] / 2, 2];
        all.case(single.clone(), [table, ids(&[0, 5, 7, 1999])]);
    }
    all.fault(single, [matrix(1, 3, 2), ids(&[0, 3])]);
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{ids, narrow, random};
    use super::super::{Machine, Op, Tensor};
    use super::*;

    #[test]
    fn bad_indices_are_errors() {
        let gather: Op = Gather { out: DType::F32 }.into();
        let table = narrow(&random(1, &[3, 2]));
        let ids = ids(&[3]);
        let mut out = Tensor::zeros(DType::F32, &[1, 2]);
        let mut io = Io {
            inputs: vec![Some(table.view()), Some(ids.view())],
            updates: vec![],
            outputs: vec![out.view_mut()],
            taken: None,
        };
        assert!(matches!(
            gather.rule().eval(&Kernel::new(&Machine::cpu(2)), &mut io),
            Err(OpError::Index { index: 3, rows: 3 })
        ));
    }
}
