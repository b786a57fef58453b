//! `hold`: takes an update back where a mask of bits says so.

use super::launch::{KernelSource, Launches, Operand::In, args, is_single, source};
use super::masked::{covers, is_set};
use super::math::{for_chunks, part};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(w, before, bits u32)`, in place: `w ← before` where bit `i % 32` of word `i / 32` is not set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hold;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("hold"));

impl OpRule for Hold {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [w, before, bits] if w.dtype.is_compute() && w == before && covers(w, bits) => {
                Ok(vec![])
            }
            _ => {
                Err("two floats of one constant shape and a bit for each element are wanted".into())
            }
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let n = cx.elements(0);
        list.each("hold", "hold", n, args![In(0), In(1), In(2), n]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let bits = io.input(2).slice::<u32>();
        super::kernel::float!(io.updates[0].dtype(), T => {
            let before = io.input(1).slice::<T>();
            for_chunks(io.updates[0].slice::<T>(), |start, w| {
                let before = part(before, start, w.len());
                for (i, (w, &before)) in w.iter_mut().zip(before).enumerate() {
                    if !is_set(bits, start + i) {
                        *w = before;
                    }
                }
            });
        });
        Ok(())
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, small};
    let mut all = Fixtures::with_same_bits();
    all.sample(Hold, [small(4), small(5), ids(&[0x2f0f_1234])]);
    let bits: Vec<u32> = (0..626_u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect();
    all.case(Hold, [list(1, 20_001), list(2, 20_001), ids(&bits)]);
    all
}
