//! `waves`: cosines and sines of fixed frequencies, as rows.

use std::sync::Arc;

use super::launch::{KernelSource, Launch, Launches, Operand::Out, args, is_single, source};
use super::math::Elementary as _;
use super::{Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};
use crate::program::types::DType;

/// `→ [2n, size]`: of each of `n` frequencies `f` the row `cos 2πfj/size`, then of each the row `sin 2πfj/size`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waves {
    /// How often each wave goes around, below `size`.
    pub frequencies: Arc<[u32]>,
    /// Elements of a row.
    pub size: u32,
    /// Type of the result.
    pub dtype: DType,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("waves"));

impl OpRule for Waves {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let good = self.frequencies.iter().all(|&f| f < self.size);
        if x.is_empty() && good && self.dtype.is_compute() {
            let rows = 2 * self.frequencies.len() as u64;
            Ok(vec![TensorType::fixed(
                self.dtype,
                &[rows, self.size.into()],
            )])
        } else {
            Err("no input is wanted, frequencies below the size, and a compute type".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let frequencies = list.scratch(4 * self.frequencies.len().max(1) as u64);
        list.list.push(Launch::Upload {
            to: frequencies,
            words: self.frequencies.to_vec(),
        });
        let (n, size) = (self.frequencies.len() as u64, u64::from(self.size));
        let args = args![frequencies, Out(0), n as u32, self.size];
        list.each("waves", "waves", 2 * n * size, args);
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let size = self.size as usize;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let out = io.outputs[0].slice::<T>();
            cx.scratch(2 * (size * size_of::<T>()) as u64, || {
                let angle = |i: usize| std::f64::consts::TAU * i as f64 / size as f64;
                let table = |f: fn(f64) -> f64| -> Vec<T> {
                    (0..size).map(|i| T::of(f(angle(i)))).collect()
                };
                let tables = [table(libm::cos), table(libm::sin)];
                let rows = self.frequencies.len() * size;
                for (half, table) in out.chunks_exact_mut(rows.max(1)).zip(&tables) {
                    for (row, &f) in half.chunks_exact_mut(size).zip(self.frequencies.iter()) {
                        let mut at = 0;
                        for x in row {
                            *x = table[at];
                            at = (at + f as usize) % size;
                        }
                    }
                }
            });
        });
        Ok(())
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        2 * u64::from(self.size) * size
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::Fixtures;
    let of = |list: &[u32], size, dtype| Waves {
        frequencies: list.into(),
        size,
        dtype,
    };
    let mut all = Fixtures::new();
    let list = [0, 3, 6, 1];
    all.sample_of(of(&list, 7, DType::F64), of(&list, 7, DType::F32), []);
    all.case(of(&[5, 299, 0], 300, DType::F32), []);
    all.case(of(&[0], 1, DType::F32), []);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_that_are_not_there_are_refused() {
        let of = |f: u32| Waves {
            frequencies: [f].into(),
            size: 4,
            dtype: DType::F32,
        };
        assert!(of(3).infer(&[]).is_ok());
        assert!(of(4).infer(&[]).is_err());
    }
}
