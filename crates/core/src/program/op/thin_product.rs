//! Products in bf16 of which one size is small, as LoRA's are, by kernels of their own: cuBLAS has few blocks for them.

use super::super::types::DType;
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{In, Out},
    args, source,
};
use super::{Epilogue, MatMul, Precision, SizedCx};

pub(super) const SOURCE: KernelSource = source!("thin_product" with "tensor_core.cuh");

/// The largest size that is small: two tiles of a fragment, or the inner size of one.
const THIN: u64 = 16;

/// Blocks that keep the largest GPUs busy, two for each multiprocessor.
const BLOCKS: u64 = 264;

/// Rows that are worth a run of a sum over rows.
const RUN: u64 = 512;

// How operands and results are stored, as the kernels have it.
const THIN_NARROW: u32 = 1;
const TURNED: u32 = 2;
const OUT_NARROW: u32 = 4;
const LEFT_NARROW: u32 = 8;

const fn flag(flag: u32, set: bool) -> u32 {
    if set { flag } else { 0 }
}

/// A product by its sizes, and which of its operands and its result are stored in bf16.
struct Thin {
    m: u64,
    n: u64,
    k: u64,
    left: bool,
    right: bool,
    out: bool,
    alpha: f32,
    added: Arg,
}

/// What is launched for `op` without its bias; `None` where that is for cuBLAS. Neither which it is nor the order
/// in which a row's products are added depends on the number of rows.
pub(super) fn launches(op: &MatMul, (m, n, k): (u64, u64, u64), cx: &SizedCx) -> Option<Launches> {
    let (left, right, out) = (cx.inputs.first()?, cx.inputs.get(1)?, cx.outputs.first()?);
    if op.precision != Precision::Bf16 || right.stored.blocks().is_some() {
        return None;
    }
    let [left, right, out] = [left, right, out].map(|x| x.stored == DType::BF16);
    let own = Thin {
        m,
        n,
        k,
        left,
        right,
        out,
        alpha: op.alpha.get() as f32,
        added: match op.epilogue {
            Epilogue::Accumulate => Arg::At(In(2)),
            Epilogue::None | Epilogue::Bias => Arg::Null,
        },
    };
    match (op.a_t, op.b_t) {
        (false, turned) if k <= THIN => Some(own.outer(turned)),
        (false, turned) if n <= THIN => Some(own.inner(turned)),
        (true, false) if m.min(n) <= THIN => Some(own.over_rows()),
        _ => None,
    }
}

impl Thin {
    fn list(&self) -> Launches {
        Launches::of(if self.out { DType::BF16 } else { DType::F32 })
    }

    /// Adds a kernel whose activations are in bf16 or not.
    fn call(
        list: &mut Launches,
        (kernel, narrow): (&'static str, bool),
        grid: [u64; 2],
        block: u32,
        args: Vec<Arg>,
    ) {
        list.call(Call {
            source: SOURCE.name,
            kernel,
            stored_in: if narrow { DType::BF16 } else { DType::F32 },
            grid: grid.map(|n| n as u32),
            block,
            shared: 0,
            args,
        });
    }

    /// Over a short inner size.
    fn outer(&self, turned: bool) -> Launches {
        let (wide, high) = (self.n.div_ceil(256), self.m.div_ceil(16));
        let tiles = (wide * high / (2 * BLOCKS)).clamp(1, 2);
        let stored =
            flag(THIN_NARROW, self.right) | flag(TURNED, turned) | flag(LEFT_NARROW, self.left);
        let mut args = args![In(0), In(1), Out(0), self.added];
        args.extend([self.m, self.n, self.k].map(|n| Arg::U32(n as u32)));
        args.extend(args![stored, tiles as u32, self.alpha]);
        let mut list = self.list();
        let grid = [wide * high.div_ceil(tiles), 1];
        Self::call(&mut list, ("thin_outer", self.out), grid, 128, args);
        list
    }

    /// Over a long inner size.
    fn inner(&self, turned: bool) -> Launches {
        let stored =
            flag(THIN_NARROW, self.right) | flag(TURNED, turned) | flag(OUT_NARROW, self.out);
        let mut args = args![In(0), In(1), Out(0), self.added];
        args.extend([self.m, self.k, self.n].map(|n| Arg::U32(n as u32)));
        args.extend(args![stored, self.alpha]);
        let mut list = self.list();
        let grid = [self.m.div_ceil(16), 1];
        Self::call(&mut list, ("thin_inner", self.left), grid, 512, args);
        list
    }

    /// Over the rows of both operands.
    fn over_rows(&self) -> Launches {
        // The thin operand is the right one, or the left one and the result is turned.
        let turned = self.n > THIN;
        let (columns, width) = if turned {
            (self.n, self.m)
        } else {
            (self.m, self.n)
        };
        let (long, thin) = if turned { (1, 0) } else { (0, 1) };
        let narrow = [self.left, self.right];
        let stored = flag(THIN_NARROW, narrow[thin]) | flag(TURNED, turned);
        let tiles = columns.div_ceil(64);
        let runs = self.k.div_ceil(RUN).min(BLOCKS / tiles).max(1);
        let plain = !self.out && self.alpha.to_bits() == 1.0_f32.to_bits();
        let all = self.m * self.n;
        let mut list = self.list();
        let direct = runs == 1 && plain && self.added == Arg::Null;
        let sums = if direct {
            Out(0)
        } else {
            list.scratch(4 * all * runs)
        };
        let mut args = args![In(long), In(thin), sums];
        let run = self.k.div_ceil(runs);
        args.extend([self.k, run, columns, width].map(|n| Arg::U32(n as u32)));
        args.push(Arg::U32(stored));
        Self::call(
            &mut list,
            ("thin_rows", narrow[long]),
            [tiles, runs],
            256,
            args,
        );
        if !direct {
            let stored = flag(OUT_NARROW, self.out);
            let args = args![
                sums,
                Out(0),
                self.added,
                all,
                runs as u32,
                stored,
                self.alpha
            ];
            let blocks = all.div_ceil(256).min(1 << 14);
            Self::call(&mut list, ("thin_runs", false), [blocks, 1], 256, args);
        }
        list
    }
}

/// Shapes that reach each kernel, in eights and not, with every width, and what is added.
#[cfg(test)]
pub(super) fn fixtures(all: &mut super::fixtures::Fixtures) {
    use super::super::types::Real;
    use super::fixtures::matrix;
    // Rows of the result, its columns, the inner size; whether each operand is stored turned.
    let outer = [
        (35, 264, 8),
        (17, 67, 3),
        (20, 136, 12),
        (1, 40, 16),
        (3, 9, 1),
    ];
    let inner = [
        (35, 8, 136),
        (17, 3, 67),
        (9, 16, 264),
        (1, 16, 1056),
        (33, 1, 40),
    ];
    let rows = [
        (72, 8, 40),
        (67, 3, 33),
        (136, 16, 30),
        (8, 16, 1),
        (130, 1, 600),
    ];
    let mut shapes = Vec::new();
    for turned in [false, true] {
        shapes.extend(outer.iter().chain(&inner).map(|&s| (s, false, turned)));
    }
    for &(m, n, k) in &rows {
        shapes.extend([((m, n, k), true, false), ((n, m, k), true, false)]);
    }
    for (i, ((m, n, k), a_t, b_t)) in shapes.into_iter().enumerate() {
        let seed = 2 * i as u64 + 40;
        let a = if a_t {
            matrix(seed, k, m)
        } else {
            matrix(seed, m, k)
        };
        let b = if b_t {
            matrix(seed + 1, n, k)
        } else {
            matrix(seed + 1, k, n)
        };
        for (epilogue, alpha) in [
            (Epilogue::None, 1.0),
            (Epilogue::None, 0.25),
            (Epilogue::Accumulate, 2.0),
        ] {
            let op = MatMul {
                precision: Precision::Bf16,
                epilogue,
                ..MatMul::plain(a_t, b_t, Real::new(alpha))
            };
            let extra = (epilogue == Epilogue::Accumulate).then(|| matrix(seed, m, n));
            for b in [b.clone(), b.cast(DType::BF16)] {
                let inputs = [a.clone(), b].into_iter().chain(extra.clone());
                all.case(op.clone(), inputs.collect::<Vec<_>>());
            }
        }
    }
}
