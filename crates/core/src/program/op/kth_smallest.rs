//! `kth_smallest`: the threshold under which so many numbers of several vectors are.

use super::super::types::DType;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source,
};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(k f32[1], x₁, …, xₙ) → f32[1]`: the `k`-th smallest of all elements, counted from 1; −∞ where `k` is below 1, the
/// largest where there are fewer. Numbers that are none count as the largest of all. It has no gradient.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KthSmallest;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("kth_smallest"));

/// A number as a word in whose order numbers are.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        u32::MAX
    } else if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// The number of a word.
fn number(key: u32) -> f32 {
    f32::from_bits(if key == u32::MAX {
        f32::NAN.to_bits()
    } else if key >> 31 == 1 {
        key & !(1 << 31)
    } else {
        !key
    })
}

impl KthSmallest {
    fn count(cx: &SizedCx) -> u64 {
        (1..cx.inputs.len()).map(|i| cx.elements(i)).sum()
    }
}

impl OpRule for KthSmallest {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let one = TensorType::scalar(DType::F32);
        match x {
            [k, _, ..] if **k == one && x.iter().all(|t| t.dtype == DType::F32) => Ok(vec![one]),
            _ => Err("a number and f32 tensors are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let all = Self::count(cx);
        let keys = list.scratch(4 * all);
        let mut first = 0;
        for i in 1..cx.inputs.len() {
            let n = cx.elements(i);
            list.each(
                "kth_smallest",
                "ordered_keys",
                n,
                args![In(i), keys, n, first],
            );
            first += n;
        }
        list.once_of(
            1024,
            "kth_smallest",
            "kth_smallest",
            args![keys, In(0), Out(0), all as u32],
        );
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let k = io.input(0).slice::<f32>()[0];
        let all = (1..io.arity()).map(|i| io.input(i).slice::<f32>());
        let count: usize = all.clone().map(<[f32]>::len).sum();
        let found = cx.scratch(4 * count as u64, || {
            if k < 1.0 || count == 0 {
                return f32::NEG_INFINITY;
            }
            let mut keys = Vec::with_capacity(count);
            keys.extend(all.flatten().map(|&x| key(x)));
            let place = (k as usize).min(count) - 1;
            let (_, &mut kth, _) = keys.select_nth_unstable(place);
            number(kth)
        });
        io.outputs[0].slice::<f32>()[0] = found;
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 0,
            bytes: 4 * cx.traffic(),
        }
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        4 * Self::count(cx)
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, list, scalar};
    let mut all = Fixtures::with_same_bits();
    for k in [0.0, 1.0, 4.0, 9.0, 700.0] {
        if k > 0.0 {
            all.sample(KthSmallest, [scalar(k), list(3, 7), list(4, 5)]);
        }
        all.case(KthSmallest, [scalar(k), list(5, 600), list(6, 1)]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{eval, scalar};
    use super::super::{Op, Tensor};
    use super::*;

    #[test]
    fn thresholds_are_those_of_a_sorted_list() {
        let of = |k: f32| {
            let x = Tensor::new(vec![3.0_f32, -1.0, 0.0, 2.0], &[4]);
            let y = Tensor::new(vec![-5.0_f32, 2.0], &[2]);
            let made = eval(&Op::from(KthSmallest), &[scalar(k), x, y], 1);
            made[0].slice::<f32>().expect("f32")[0]
        };
        let want = [f32::NEG_INFINITY, -5.0, -1.0, 0.0, 2.0, 2.0, 3.0, 3.0];
        for (k, want) in want.into_iter().enumerate() {
            assert_eq!(of(k as f32), want, "{k}");
        }
    }

    #[test]
    fn words_are_in_the_order_of_their_numbers() {
        let list = [
            f32::NEG_INFINITY,
            -2.5,
            -1e-40,
            -0.0,
            0.0,
            1e-40,
            7.0,
            f32::INFINITY,
        ];
        for pair in list.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        for x in list {
            assert_eq!(number(key(x)).to_bits(), x.to_bits());
        }
        assert!(number(key(f32::NAN)).is_nan() && key(f32::NAN) > key(f32::INFINITY));
    }
}
