//! `identity`: the identity matrix of a size.

use super::super::types::DType;
use super::launch::{KernelSource, Launches, Operand::Out, args, is_single, source};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `→ [n, n]`: 1 on the diagonal, 0 elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Rows and columns.
    pub n: u32,
    /// `f32` or `f64`.
    pub dtype: DType,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("identity"));

impl OpRule for Identity {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if x.is_empty() && self.dtype.is_compute() {
            let n = u64::from(self.n);
            Ok(vec![TensorType::fixed(self.dtype, &[n, n])])
        } else {
            Err("no input and a compute type are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let all = u64::from(self.n) * u64::from(self.n);
        list.each("identity", "identity", all, args![Out(0), all, self.n]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let out = io.outputs[0].slice::<T>();
            out.fill(0.0);
            out.iter_mut().step_by(self.n as usize + 1).for_each(|x| *x = 1.0);
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::Fixtures;
    let mut all = Fixtures::with_same_bits();
    let op = |dtype| Identity { n: 5, dtype };
    all.sample_of(op(DType::F64), op(DType::F32), []);
    all
}
