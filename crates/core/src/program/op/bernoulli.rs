//! `bernoulli`: a random mask of a step, a bit an element.

use super::super::types::{DType, Real};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source,
};
use super::math::for_chunks;
use super::random::{GROUP, group_of_words, threshold};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `step u32[1] → u32[⌈numbers / 32⌉]`: bit `i % 32` of word `i / 32` is set with probability `keep`, as a function of stream,
/// step and `i` alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bernoulli {
    /// Key of the random stream.
    pub stream: [u32; 2],
    /// Probability of a set bit.
    pub keep: Real,
    /// How many bits count.
    pub numbers: u64,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("bernoulli"));

impl OpRule for Bernoulli {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [step] if **step == TensorType::scalar(DType::U32) => {
                let words = self.numbers.div_ceil(32);
                Ok(vec![TensorType::fixed(DType::U32, &[words])])
            }
            _ => Err("a step is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let (n, [k0, k1]) = (cx.outputs.first()?.elements(), self.stream);
        let args = args![In(0), Out(0), n, k0, k1, threshold(self.keep.get())];
        list.each("bernoulli", "bernoulli", n, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let step = io.input(0).slice::<u32>()[0];
        let (stream, limit) = (self.stream, threshold(self.keep.get()));
        for_chunks(io.outputs[0].slice::<u32>(), |start, words| {
            for (pair, out) in words.chunks_mut(GROUP / 32).enumerate() {
                let block = (start as u64 * 32 + (pair * GROUP) as u64) / 4;
                let drawn = group_of_words(stream, block as u32, [(block >> 32) as u32, step, 0]);
                for (word, drawn) in out.iter_mut().zip(drawn.chunks_exact(32)) {
                    let bits = drawn.iter().enumerate();
                    *word = bits.fold(0, |w, (bit, &x)| w | u32::from(x < limit) << bit);
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids};
    let mut all = Fixtures::with_same_bits();
    let op = |numbers| Bernoulli {
        stream: [3, 9],
        keep: Real::new(0.3),
        numbers,
    };
    all.sample(op(100), [ids(&[4])]);
    all.large(op(700_000), [ids(&[5])]);
    all.case(op(1), [ids(&[0])]);
    all.case(op(70_001), [ids(&[9])]);
    all
}

#[cfg(test)]
mod tests {
    use super::super::Op;
    use super::super::fixtures::{eval, ids};
    use super::*;

    #[test]
    fn as_many_bits_are_set_as_are_asked_for_and_steps_differ() {
        let op: Op = Bernoulli {
            stream: [1, 2],
            keep: Real::new(0.3),
            numbers: 64_000,
        }
        .into();
        let bits = |step: u32| {
            eval(&op, &[ids(&[step])], 1)[0]
                .slice::<u32>()
                .expect("u32")
                .to_vec()
        };
        let (one, other) = (bits(0), bits(1));
        let set: u32 = one.iter().map(|w| w.count_ones()).sum();
        assert!((f64::from(set) / 64_000.0 - 0.3).abs() < 0.01, "{set}");
        let both: u32 = one
            .iter()
            .zip(&other)
            .map(|(a, b)| (a & b).count_ones())
            .sum();
        assert!((f64::from(both) / 64_000.0 - 0.09).abs() < 0.01, "{both}");
    }
}
