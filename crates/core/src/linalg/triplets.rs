//! The first singular triplets of a matrix, and what they leave.
//!
//! **Invariant:** the same bits at any number of threads: work is cut into pieces of fixed size, and
//! each piece is computed by one thread.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::krylov::{Weight, krylov, stack_bytes, thin};

/// Rows (or columns) of a weight that one task multiplies.
pub(super) const PIECE: usize = 64;
/// Vectors iterated beyond those wanted.
const SURPLUS: usize = 8;
/// Most blocks in a basis before it is condensed and started again.
const DEPTH: usize = 8;

/// Singular triplets: `u` is `[out, n]`, `s` is `[n]`, `v` is `[n, input]`, all row-major.
type Triplets = (Vec<f32>, Vec<f32>, Vec<f32>);

/// The first triplets of `W = U diag(S) V`, largest first. The element of largest magnitude of each
/// column of U is positive, which fixes the signs.
#[derive(Clone, Debug)]
pub struct Decomposition {
    /// Left vectors `[out, rank]`.
    pub u: Vec<f32>,
    /// Singular values `[rank]`.
    pub s: Vec<f32>,
    /// Right vectors `[rank, input]`.
    pub v: Vec<f32>,
    /// Triplets `rank..keep`, if only `keep` are kept in all.
    tail: Option<Triplets>,
}

impl Decomposition {
    /// Singular values `[rank]`.
    pub fn values(&self) -> &[f32] {
        &self.s
    }
}

/// How [`decompose`] goes about a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The whole decomposition.
    Full,
    /// A Krylov basis of `depth` blocks of `block` vectors, restarted.
    Krylov { block: usize, depth: usize },
}

impl Way {
    fn of(size: usize, wanted: usize) -> Self {
        let block = wanted + SURPLUS;
        let depth = (size / (3 * block)).min(DEPTH);
        if depth < 2 {
            Self::Full
        } else {
            Self::Krylov { block, depth }
        }
    }
}

/// Does something with matrices in threads of its own: those of the product's library keep room for its operands, several
/// MiB each, for as long as they live, and that room is gone with them.
pub fn in_own_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let mut threads = Vec::new();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .spawn_handler(|thread| {
            let spawned = std::thread::Builder::new().spawn(move || thread.run())?;
            threads.push(spawned);
            Ok(())
        })
        .build();
    let Ok(pool) = pool else {
        // No more threads can be had: those that there are do it.
        return work();
    };
    let done = pool.install(work);
    drop(pool);
    for thread in threads {
        // What a thread keeps is gone once it has ended; that it ended badly has been told by what it did.
        let _ = thread.join();
    }
    done
}

/// Decomposes a row-major `[out, input]` weight. `rank` and `keep` are clamped to its size. The error
/// says what is wrong with the weight.
pub fn decompose(
    weight: &[f32],
    out: usize,
    input: usize,
    rank: usize,
    keep: Option<usize>,
) -> Result<Decomposition, &'static str> {
    if out.checked_mul(input) != Some(weight.len()) {
        return Err("its length is not that of its shape");
    }
    if !weight.iter().all(|x| x.is_finite()) {
        return Err("it holds numbers that are not finite, so it has no singular values");
    }
    let size = out.min(input);
    let rank = rank.min(size);
    let keep = keep.map(|d| d.clamp(rank, size));
    let wanted = keep.unwrap_or(rank);
    // In f32 neither way reaches five digits, so both end in f64.
    let wide: Vec<f64> = weight
        .par_iter()
        .with_min_len(1 << 14)
        .map(|&x| f64::from(x))
        .collect();
    let w = MatRef::from_row_major_slice(&wide, out, input);
    if let Way::Krylov { block, depth } = Way::of(size, wanted)
        && let Some((u, s, v)) = krylov(
            Weight {
                wide: w,
                narrow: MatRef::from_row_major_slice(weight, out, input),
            },
            wanted,
            block,
            depth,
        )
    {
        return Ok(split(u.as_ref(), &s, v.as_ref(), rank, keep));
    }
    let (u, s, v) = thin(w).ok_or("its singular value decomposition does not converge")?;
    Ok(split(u.as_ref(), &s, v.as_ref(), rank, keep))
}

/// Turns `W` into what its triplets leave: `W − (U∘S)V` if all triplets are kept, else the tail.
pub fn rest(weight: &mut [f32], d: &Decomposition) {
    match &d.tail {
        None => subtract(weight, &d.u, &d.s, &d.v),
        Some((u, s, v)) if !s.is_empty() => product(weight, (u, s, v), Accum::Replace, 1.0),
        Some(_) => weight.fill(0.0),
    }
}

/// `W ← W − (U∘S)V`.
pub fn subtract(weight: &mut [f32], u: &[f32], s: &[f32], v: &[f32]) {
    product(weight, (u, s, v), Accum::Add, -1.0);
}

/// `W ← U Uᵀ W`, the part of a matrix in the span of orthonormal columns.
pub fn keep_span(weight: &mut [f32], u: &[f32], (out, rank): (usize, usize)) {
    if out == 0 || rank == 0 {
        return weight.fill(0.0);
    }
    let input = weight.len() / out;
    let left = MatRef::from_row_major_slice(u, out, rank);
    let own = MatRef::from_row_major_slice(&*weight, out, input);
    let mut along = vec![0.0_f32; rank * input];
    along
        .par_chunks_mut(PIECE * input)
        .enumerate()
        .for_each(|(i, z)| {
            let rows = z.len() / input;
            matmul(
                MatMut::from_row_major_slice_mut(z, rows, input),
                Accum::Replace,
                left.subcols(i * PIECE, rows).transpose(),
                own,
                1.0,
                Par::Seq,
            );
        });
    product(weight, (u, &vec![1.0; rank], &along), Accum::Replace, 1.0);
}

/// `α (U∘S)V`, put in the place of `weight` or added to it.
fn product(weight: &mut [f32], (u, s, v): (&[f32], &[f32], &[f32]), accum: Accum, alpha: f32) {
    let rank = s.len();
    if rank == 0 {
        return;
    }
    let input = v.len() / rank;
    let scaled: Vec<f32> = u
        .chunks_exact(rank)
        .flat_map(|row| row.iter().zip(s).map(|(u, s)| u * s))
        .collect();
    let right = MatRef::from_row_major_slice(v, rank, input);
    weight
        .par_chunks_mut(PIECE * input)
        .zip(scaled.par_chunks(PIECE * rank))
        .for_each(|(w, u)| {
            let rows = u.len() / rank;
            let left = MatRef::from_row_major_slice(u, rows, rank);
            matmul(
                MatMut::from_row_major_slice_mut(w, rows, input),
                accum,
                left,
                right,
                alpha,
                Par::Seq,
            );
        });
}

/// An upper bound of the heap bytes `decompose` and `rest` hold at once, result included, weight
/// excluded, whichever way the decomposition goes.
#[must_use]
pub fn svd_scratch_bytes(out: u64, input: u64, rank: u64, keep: Option<u64>) -> u64 {
    let size = out.min(input);
    let wanted = keep.unwrap_or(rank).max(rank).min(size);
    let (m, n) = (out as usize, input as usize);
    let result = 4 * wanted * (out + input + 1);
    // faer pads columns to whole vectors.
    let matrix = |rows: u64, cols: u64| 8 * (rows + 8) * cols;
    let wide = 8 * out * input;
    let full = matrix(out, size) + matrix(input, size) + 8 * size + stack_bytes(m, n);
    let krylov = match Way::of(size as usize, wanted as usize) {
        Way::Full => 0,
        Way::Krylov { block, depth } => {
            let (b, k) = (block as u64, (block * depth) as u64);
            let bases = matrix(out, k) + matrix(input, k);
            // A factor and a product of theirs in f32.
            let rough = matrix(out.max(input), b);
            let grow = 3 * matrix(input, b) + matrix(k, b) + rough;
            let condense = matrix(out, k) + 2 * matrix(k, k) + stack_bytes(m, block * depth);
            bases
                + matrix(input, b)
                + grow.max(condense + matrix(out, b) + 2 * matrix(input, b) + matrix(b, b) + rough)
        }
    };
    result + wide + full.max(krylov) + 4096
}

/// Fixes signs, turns to row-major and cuts at `rank` and `keep`.
fn split(
    u: MatRef<'_, f64>,
    s: &[f64],
    v: MatRef<'_, f64>,
    rank: usize,
    keep: Option<usize>,
) -> Decomposition {
    let wanted = keep.unwrap_or(rank);
    let signs: Vec<f64> = (0..wanted)
        .map(|j| {
            let largest = u
                .col(j)
                .iter()
                .copied()
                .fold(0.0f64, |a, b| if b.abs() > a.abs() { b } else { a });
            if largest < 0.0 { -1.0 } else { 1.0 }
        })
        .collect();
    let sign = |j: usize| signs.get(j).copied().unwrap_or(1.0);
    let cut = |from: usize, to: usize| -> Triplets {
        let mut left = Vec::with_capacity(u.nrows() * (to - from));
        for i in 0..u.nrows() {
            left.extend((from..to).map(|j| (u[(i, j)] * sign(j)) as f32));
        }
        let mut right = Vec::with_capacity(v.nrows() * (to - from));
        for j in from..to {
            right.extend(v.col(j).iter().map(|x| (x * sign(j)) as f32));
        }
        (
            left,
            s.get(from..to)
                .unwrap_or_default()
                .iter()
                .map(|&x| x as f32)
                .collect(),
            right,
        )
    };
    let (left, values, right) = cut(0, rank);
    Decomposition {
        u: left,
        s: values,
        v: right,
        tail: keep.map(|d| cut(rank, d)),
    }
}

#[cfg(test)]
#[path = "triplets_tests.rs"]
mod tests;
