//! `hard_concrete`: gates between 0 and 1 that are exactly 0 or 1 with some probability (Louizos et al. 2018,
//! arXiv 1712.01312).

use super::super::types::{DType, Real};
use super::launch::{
    Arg, KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, for_chunks, part, simd};
use super::random::{GROUP, group_of_words};
use super::{
    At, Builder, HardConcreteGrad, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value,
};

/// `(a[, step u32[1]]) → clamp(s · (high − low) + low, 0, 1)` with `s = σ((ln u − ln(1 − u) + a) / temperature)`, any shape.
/// `u` is uniform, at least `margin` from 0 and 1, and a function of stream, step and place; without a stream there is
/// none of it, nor a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HardConcrete {
    /// Lower end before the clamp.
    pub low: Real,
    /// Upper end.
    pub high: Real,
    /// How soft the gates are.
    pub temperature: Real,
    /// How near to 0 and 1 a draw comes.
    pub margin: Real,
    /// Key of the random stream.
    pub stream: Option<[u32; 2]>,
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("hard_concrete" with "hard_concrete.cuh"));

impl OpRule for HardConcrete {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match (x, self.stream) {
            ([a], None) if a.dtype.is_compute() => Ok(vec![(*a).clone()]),
            ([a, step], Some(_))
                if a.dtype.is_compute() && **step == TensorType::scalar(DType::U32) =>
            {
                Ok(vec![(*a).clone()])
            }
            _ => Err("a float is wanted, and a step where there is a stream".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let n = cx.elements(0);
        let mut args = args![In(0), Out(0)];
        args.extend(self.args(1));
        args.push(Arg::from(n));
        list.each("hard_concrete", "hard_concrete", n.div_ceil(4), args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let step = self.stream.map(|_| io.input(1).slice::<u32>()[0]);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let a = (io.taken != Some(0)).then(|| io.input(0).slice::<T>());
            for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                if let Some(a) = a {
                    out.copy_from_slice(part(a, start, out.len()));
                }
                self.walk(step, start, out, None);
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut made = vec![None; at.inputs.len()];
        if let (Some(up), true) = (at.up[0], at.needs[0]) {
            let mut inputs = vec![at.inputs[0], up];
            inputs.extend(&at.inputs[1..]);
            made[0] = Some(b.push1(HardConcreteGrad { of: *self }, &inputs));
        }
        made
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

/// What one application computes with.
#[derive(Clone, Copy)]
struct Gate<T> {
    low: T,
    wide: T,
    slope: T,
    margin: T,
}

impl HardConcrete {
    /// The kernels' arguments: step, key, numbers.
    pub(super) fn args(&self, step: usize) -> Vec<Arg> {
        let [k0, k1] = self.stream.unwrap_or_default();
        let mut list = vec![self.stream.map_or(Arg::Null, |_| Arg::At(In(step)))];
        let wide = (self.high.get() - self.low.get()) as f32;
        list.extend(args![
            k0,
            k1,
            self.low.get() as f32,
            wide,
            (1.0 / self.temperature.get()) as f32,
            self.margin.get() as f32
        ]);
        list
    }

    /// Gates of `a`, in place; or, with a gradient, the gradient by `a`. `start` is a multiple of a group.
    pub(super) fn walk<T: Elementary>(
        &self,
        step: Option<u32>,
        start: usize,
        a: &mut [T],
        up: Option<&[T]>,
    ) {
        let gate = Gate {
            low: T::of(self.low.get()),
            wide: T::of(self.high.get() - self.low.get()),
            slope: T::of(1.0 / self.temperature.get()),
            margin: T::of(self.margin.get()),
        };
        let stream = self.stream.unwrap_or_default();
        simd!(<T> (gate: Gate<T> = gate, stream: [u32; 2] = stream, step: Option<u32> = step, start: usize = start, a: &'a mut [T] = a, up: Option<&'a [T]> = up) {
            for (group, a) in a.chunks_mut(GROUP).enumerate() {
                let block = (start + group * GROUP) / 4;
                let mut noise = [T::zero(); GROUP];
                if let Some(step) = step {
                    let words = group_of_words(stream, block as u32, [(block >> 32) as u32, step, 0]);
                    for (x, word) in noise.iter_mut().zip(words) {
                        let u = T::of((f64::from(word >> 9) + 0.5) * (1.0 / 8_388_608.0));
                        let u = if u < gate.margin { gate.margin } else { u };
                        let most = T::one() - gate.margin;
                        let u = if u > most { most } else { u };
                        *x = u.log_fast() - (T::one() - u).log_fast();
                    }
                }
                let up = up.map(|up| &up[group * GROUP..][..a.len()]);
                for (i, (a, noise)) in a.iter_mut().zip(noise).enumerate() {
                    let s = T::one() / (T::one() + (-(noise + *a) * gate.slope).exp_fast());
                    let z = s * gate.wide + gate.low;
                    let inside = z > T::zero() && z < T::one();
                    *a = match up {
                        Some(up) if inside => up[i] * (s * (T::one() - s) * gate.wide * gate.slope),
                        Some(_) => T::zero(),
                        None if inside => z,
                        None if z >= T::one() => T::one(),
                        None => T::zero(),
                    };
                }
            }
        });
    }
}

#[cfg(test)]
pub(super) fn gates() -> [HardConcrete; 2] {
    [Some([3, 4]), None].map(|stream| HardConcrete {
        low: Real::new(-1.5),
        high: Real::new(1.5),
        temperature: Real::new(0.8),
        margin: Real::new(1e-4),
        stream,
    })
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, small};
    let mut all = Fixtures::new();
    let [drawn, still] = gates();
    all.sample(drawn, [small(4), ids(&[7])]);
    all.sample(still, [small(4)]);
    all.large(drawn, [list(5, 30_000), ids(&[7])]);
    all.case(drawn, [list(5, 20_001), ids(&[8])]);
    all.case(still, [list(5, 20_001)]);
    all
}
