//! `find`: where numbers stand in a short list, such as the tokens of a text among those whose rows are trained.

use super::super::types::DType;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source,
};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(ids u32[N], list u32[n]) → u32[N]`: one more than the place of each number in the list, the first of equal ones; 0 for
/// a number that is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Find;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("find"));

impl OpRule for Find {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [ids, list]
                if ids.dtype == DType::U32
                    && list.dtype == DType::U32
                    && ids.shape.len() == 1
                    && list.shape.len() == 1
                    && list.shape.iter().all(|n| n.as_const().is_some()) =>
            {
                Ok(vec![(*ids).clone()])
            }
            _ => Err("numbers and a list of so many are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let (n, count) = (cx.elements(0), cx.elements(1) as u32);
        list.each("find", "find", n, args![In(0), In(1), Out(0), n, count]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (ids, list) = (io.input(0).slice::<u32>(), io.input(1).slice::<u32>());
        for (out, id) in io.outputs[0].slice::<u32>().iter_mut().zip(ids) {
            let place = list.iter().position(|own| own == id);
            *out = place.map_or(0, |place| place as u32 + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids};
    let mut all = Fixtures::with_same_bits();
    all.sample(Find, [ids(&[3, 0, 7, 3, 9]), ids(&[7, 3, 7])]);
    let many: Vec<u32> = (0..3000).map(|i| i * 7919 % 300).collect();
    let list: Vec<u32> = (0..70).map(|i| i * 3 + 1).collect();
    all.case(Find, [ids(&many), ids(&list)]);
    all
}
