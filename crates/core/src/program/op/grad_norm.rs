//! `grad_norm`: the global L2 norm of all gradients.

use rayon::prelude::*;

use super::super::types::DType;
use super::launch::{
    Arg, Call, KernelSource, Launch, Launches,
    Operand::{In, Out},
    args, source,
};
use super::math::{CHUNK, Elementary, simd};
use super::{Cost, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(g₁, …, gₙ) → √Σ g²: f32[1]`; sums of fixed chunks, combined in order in f64.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GradNorm;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("grad_norm"));

impl OpRule for GradNorm {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if x.iter().all(|t| t.dtype == DType::F32) {
            Ok(vec![TensorType::scalar(DType::F32)])
        } else {
            Err("f32 gradients are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        // Parts are of whole fours, so that a thread can read as many at once.
        let blocks = |n: u64| {
            let part = n.div_ceil(2 * PARTS as u64).max(CHUNK as u64);
            let part = part.next_multiple_of(4);
            (part, n.div_ceil(part))
        };
        let count: u64 = (0..cx.inputs.len()).map(|i| blocks(cx.elements(i)).1).sum();
        let parts = list.scratch(8 * count);
        let mut first = 0;
        // Of small gradients an adapter has hundreds: one launch for all of them.
        let (mut words, mut most) = (Vec::<Arg>::new(), 0);
        for i in 0..cx.inputs.len() {
            let n = cx.elements(i);
            let (part, number) = blocks(n);
            if number <= SMALL {
                words.extend(args![In(i), n, u64::from(first)]);
                most = number.max(most);
            } else {
                let args = args![In(i), parts, n, part, first];
                list.rows("grad_norm", "square_sums", number, 256, args);
            }
            first += number as u32;
        }
        for words in words.chunks(3 * ROWS) {
            let table = list.scratch(8 * words.len() as u64);
            let (to, words) = (table, words.to_vec());
            let tensors = (words.len() / 3) as u32;
            list.list.push(Launch::Table { to, words });
            list.call(Call {
                source: "grad_norm",
                kernel: "square_sums_together",
                stored_in: DType::F32,
                grid: [most as u32, tensors],
                block: 256,
                shared: 0,
                args: args![table, parts, CHUNK as u64],
            });
        }
        list.once("grad_norm", "root_of_sum", args![parts, Out(0), first]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let mut sum = 0.0;
        for i in 0..io.arity() {
            let g = io.input(i).slice::<f32>();
            // Chunks by the gradient's size, never by the number of threads.
            let mut parts = [0.0; PARTS];
            let chunk = g.len().div_ceil(PARTS).max(CHUNK);
            if g.len() <= 2 * CHUNK {
                parts[0] = squares(g);
            } else {
                parts
                    .par_iter_mut()
                    .zip(g.par_chunks(chunk))
                    .for_each(|(part, g)| *part = squares(g));
            }
            sum += parts.iter().sum::<f64>();
        }
        io.outputs[0].slice::<f32>()[0] = sum.sqrt() as f32;
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 2 * (0..cx.inputs.len()).map(|i| cx.elements(i)).sum::<u64>(),
            bytes: cx.traffic(),
        }
    }
}

/// Most chunks of one gradient.
/// Most gradients of one launch, and parts of one of them.
const ROWS: usize = 4096;
const SMALL: u64 = 32;
const PARTS: usize = 256;

fn squares<T: Elementary>(g: &[T]) -> f64 {
    simd!(<T> (g: &'a [T] = g) -> f64 {
        let mut lanes = [0.0_f64; 32];
        let chunks = g.chunks_exact(32);
        for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane += x.wide() * x.wide();
        }
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += x.wide() * x.wide();
            }
        }
        lanes.iter().sum()
    })
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, matrix, narrow, small};
    let mut all = Fixtures::new();
    all.sample(GradNorm, [narrow(&small(4)), list(28, 20_000)]);
    all.case(GradNorm, [list(20, 1), list(21, 300_001), list(22, 9)]);
    for (rows, d) in SHAPES {
        all.case(
            GradNorm,
            [matrix(10, rows, d), list(18, 1), list(19, 20_000)],
        );
    }
    all
}
