//! `sm3`: an update of numbers at places of a matrix, with a second moment a row and a column (Anil et al. 2019,
//! arXiv 1901.11150).

use super::super::types::{DType, Real};
use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In},
    args, source,
};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, Places, SizedCx, TensorType};

/// `(δ[n], g[n], ids u32[n], R[rows], C[columns], lr f32[1], factor f32[1])`, updating δ, R and C:
/// `v = min(R_i, C_j) + g²`, `R_i ← max(R_i, v)`, `C_j ← max(C_j, v)`, `δ ← (δ − lr · g / √(v + ε)) · (1 − lr · λ)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sm3 {
    /// Where the numbers are: entries.
    pub places: Places,
    /// Added to the second moment.
    pub eps: Real,
    /// Decoupled weight decay, λ.
    pub weight_decay: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("sm3"));

impl OpRule for Sm3 {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [values, g, ids, rows, columns, lr, factor] = x else {
            return Err(
                "numbers, their gradient, places, two lists, a rate and a factor are wanted".into(),
            );
        };
        let one = TensorType::scalar(DType::F32);
        let list = |n: u32| TensorType::fixed(DType::F32, &[n.into()]);
        let fits = values.dtype == DType::F32
            && values.shape == self.places.infer(&[ids])?
            && self.places.side == 1
            && values == g
            && **rows == list(self.places.rows)
            && **columns == list(self.places.columns)
            && **lr == one
            && **factor == one;
        if fits {
            Ok(vec![])
        } else {
            Err("a number for each place, and one for each row and column, are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let n = cx.elements(0);
        let moments = list.scratch(4 * n);
        let Places { rows, columns, .. } = self.places;
        let args = args![
            In(0),
            In(1),
            In(2),
            In(3),
            In(4),
            In(5),
            In(6),
            moments,
            Fault,
            n,
            rows,
            columns,
            self.eps.get() as f32,
            self.weight_decay.get()
        ];
        list.each("sm3", "sm3", n, args);
        for (to, of, by_row) in [(In(3), rows, 1_u32), (In(4), columns, 0)] {
            let args = args![In(2), moments, to, n as u32, of, columns, by_row];
            let warps = u64::from(of).div_ceil(8);
            list.rows("sm3", "sm3_cover", warps, 256, args);
        }
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (g, ids) = (io.input(1).slice::<f32>(), io.input(2).slice::<u32>());
        let (lr, factor) = (io.input(5).slice::<f32>()[0], io.input(6).slice::<f32>()[0]);
        self.places.check(ids)?;
        let [values, rows, columns] = io.updates.as_mut_slice() else {
            unreachable!("three tensors are updated")
        };
        let (values, rows, columns) = (
            values.slice::<f32>(),
            rows.slice::<f32>(),
            columns.slice::<f32>(),
        );
        let keep = (1.0 - f64::from(lr) * self.weight_decay.get()) as f32;
        let eps = self.eps.get() as f32;
        cx.scratch(4 * ids.len() as u64, || {
            let mut moments = vec![0.0_f32; ids.len()];
            for (((value, moment), &g), &id) in values.iter_mut().zip(&mut moments).zip(g).zip(ids)
            {
                let (row, column) = self.places.corner(id);
                let g = g * factor;
                let (r, c) = (rows[row], columns[column]);
                let v = if r < c { r } else { c } + g * g;
                *moment = v;
                *value = (*value - lr * (g / (v + eps).sqrt())) * keep;
            }
            for (&v, &id) in moments.iter().zip(ids) {
                let (row, column) = self.places.corner(id);
                rows[row] = rows[row].max(v);
                columns[column] = columns[column].max(v);
            }
        });
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 10 * cx.elements(0),
            bytes: 5 * 4 * cx.elements(0),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 3, 4]
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        4 * cx.elements(0)
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, narrow, random_positive, scalar};
    let mut all = Fixtures::with_same_bits();
    let op = |rows, columns| Sm3 {
        places: Places::entries(rows, columns),
        eps: Real::new(1e-8),
        weight_decay: Real::new(0.1),
    };
    let state = |n: usize| narrow(&random_positive(n as u64, &[n]));
    let few = [
        list(1, 4),
        list(2, 4),
        ids(&[0, 23, 7, 14]),
        state(6),
        state(4),
        scalar(1e-2),
        scalar(0.5),
    ];
    all.sample(op(6, 4), few);
    let many: Vec<u32> = (0..900).map(|i| i * 7919 % 30_000).collect();
    all.case(
        op(200, 150),
        [
            list(1, 900),
            list(2, 900),
            ids(&many),
            state(200),
            state(150),
            scalar(1e-2),
            scalar(0.5),
        ],
    );
    all.fault(
        op(6, 4),
        [
            list(1, 1),
            list(2, 1),
            ids(&[24]),
            state(6),
            state(4),
            scalar(1e-2),
            scalar(0.5),
        ],
    );
    all
}
