//! `matmul`: `alpha · op(a) · op(b)`, with a bias or a sum folded in.

use gemm::Parallelism;

use super::super::types::Real;
use super::scratch::{Extent, scratch};
use super::tile::Strided;
use super::{At, Builder, Compute, Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, SumRows, TensorType, Value};

/// What is added to the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// A row vector, on every row.
    Bias,
    /// A matrix; in place where it dies here.
    Accumulate,
}

/// `(a, b[, bias | c]) → alpha · op(a) · op(b) [+ bias | + c]`: `[m, k] · [k, n] → [m, n]`, where
/// `op` transposes if asked. No transposed copy is ever made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatMul {
    /// `a` is stored `[k, m]`.
    pub a_t: bool,
    /// `b` is stored `[n, k]`.
    pub b_t: bool,
    /// Factor of the product.
    pub alpha: Real,
    /// What is added.
    pub epilogue: Epilogue,
}

impl MatMul {
    const fn plain(a_t: bool, b_t: bool, alpha: Real) -> Self {
        Self { a_t, b_t, alpha, epilogue: Epilogue::None }
    }
}

/// `dst[m, n] = beta · dst + alpha · lhs · rhs`, with `dst` of row stride `dst_row`.
///
/// # Panics
/// If a matrix reaches beyond its elements (a bug).
fn product<T: Compute>(
    (m, n, k): (usize, usize, usize),
    dst: &mut [T],
    dst_row: usize,
    lhs: Strided<'_, T>,
    rhs: Strided<'_, T>,
    (alpha, beta): (T, T),
    threads: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    let reach = |rows: usize, columns: usize, row: usize, column: usize| (rows - 1) * row + (columns - 1) * column;
    assert!(reach(m, n, dst_row, 1) < dst.len());
    if k == 0 {
        for row in dst.chunks_mut(dst_row).take(m) {
            row.iter_mut().take(n).for_each(|x| *x = if beta == T::zero() { T::zero() } else { *x * beta });
        }
        return;
    }
    assert!(reach(m, k, lhs.row, lhs.column) < lhs.data.len() && reach(k, n, rhs.row, rhs.column) < rhs.data.len());
    static PACKING: std::sync::Once = std::sync::Once::new();
    PACKING.call_once(|| gemm::set_rhs_packing_threshold(super::scratch::PACKED_FROM as usize));
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // SAFETY: all three matrices were just checked to lie within their slices; `dst` is exclusive.
    #[expect(unsafe_code, reason = "gemm takes raw pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_row as isize,
            beta != T::zero(),
            lhs.data.as_ptr(),
            lhs.column as isize,
            lhs.row as isize,
            rhs.data.as_ptr(),
            rhs.column as isize,
            rhs.row as isize,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

impl OpRule for MatMul {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let wanted = if self.epilogue == Epilogue::None { 2 } else { 3 };
        let [a, b, rest @ ..] = x else { return Err("two matrices are wanted".into()) };
        let (Some((ar, ac)), Some((br, bc))) = (a.matrix(), b.matrix()) else { return Err("two matrices are wanted".into()) };
        let (m, k) = if self.a_t { (ac, ar) } else { (ar, ac) };
        let (k2, n) = if self.b_t { (bc, br) } else { (br, bc) };
        if x.len() != wanted || k != k2 || a.dtype != b.dtype || !a.dtype.is_compute() {
            return Err(format!("inner sizes {k} and {k2} must agree, in one compute type, with {wanted} inputs"));
        }
        let out = TensorType::new(a.dtype, [m, n]);
        let fits = match (self.epilogue, rest) {
            (Epilogue::None, []) => true,
            (Epilogue::Bias, [bias]) => **bias == TensorType::new(a.dtype, [n]),
            (Epilogue::Accumulate, [c]) => **c == out,
            _ => false,
        };
        if fits { Ok(vec![out]) } else { Err("what is added has the wrong shape".into()) }
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io));
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else { return vec![None; at.inputs.len()] };
        let (x, y) = (at.inputs[0], at.inputs[1]);
        let want = |i: usize| at.needs.get(i).copied().unwrap_or(false);
        // C = op(A) op(B):  dop(A) = up op(B)ᵀ,  dop(B) = op(A)ᵀ up
        let da = want(0).then(|| {
            if self.a_t {
                b.push1(Self::plain(self.b_t, true, self.alpha), &[y, up])
            } else {
                b.push1(Self::plain(false, !self.b_t, self.alpha), &[up, y])
            }
        });
        let db = want(1).then(|| {
            if self.b_t {
                b.push1(Self::plain(true, self.a_t, self.alpha), &[up, x])
            } else {
                b.push1(Self::plain(!self.a_t, false, self.alpha), &[x, up])
            }
        });
        let mut grads = vec![da, db];
        match self.epilogue {
            Epilogue::None => {}
            Epilogue::Bias => grads.push(want(2).then(|| b.push1(SumRows, &[up]))),
            Epilogue::Accumulate => grads.push(want(2).then_some(up)),
        }
        grads
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let (m, n, k) = self.sizes(cx);
        Cost { flops: 2 * m * n * k, bytes: cx.traffic() }
    }

    fn in_place(&self) -> &'static [usize] {
        if self.epilogue == Epilogue::Accumulate { &[2] } else { &[] }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let (m, n, k) = self.sizes(cx);
        let size = cx.outputs.first().map_or(4, |o| if o.dims.iter().product::<usize>() as u64 * 8 == o.bytes { 8 } else { 4 });
        scratch(self.extent(m, n, k, size), machine)
    }
}

impl MatMul {
    /// The product as `gemm` sees it: transposed, since our result is row-major.
    const fn extent(&self, m: u64, n: u64, k: u64, size: u64) -> Extent {
        Extent { m: n, n: m, k, size, lhs_contiguous: !self.b_t }
    }

    fn sizes(&self, cx: &SizedCx) -> (u64, u64, u64) {
        let dim = |s: &super::Sized, i: usize| s.dims.get(i).copied().unwrap_or(1) as u64;
        match (cx.inputs.first(), cx.outputs.first()) {
            (Some(a), Some(out)) => (dim(out, 0), dim(out, 1), dim(a, usize::from(!self.a_t))),
            _ => (0, 0, 0),
        }
    }

    fn compute<T: super::math::Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) {
        let (a, b) = (io.input(0), io.input(1));
        let (m, n) = (io.outputs[0].dims[0], io.outputs[0].dims[1]);
        let k = if self.a_t { a.dims[0] } else { a.dims[1] };
        let extra = (self.epilogue != Epilogue::None && io.taken.is_none()).then(|| io.input(2).slice::<T>());
        let out = io.outputs[0].slice::<T>();
        let beta = match self.epilogue {
            Epilogue::None => T::zero(),
            Epilogue::Bias => {
                let bias = extra.unwrap_or_default();
                super::math::for_chunks_of_rows(out, n, |_, rows| rows.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)));
                T::one()
            }
            Epilogue::Accumulate => {
                if let Some(c) = extra {
                    out.copy_from_slice(c);
                }
                T::one()
            }
        };
        let (ar, ac) = if self.a_t { (1, m) } else { (k, 1) };
        let (br, bc) = if self.b_t { (1, k) } else { (n, 1) };
        let lhs = Strided { data: a.slice::<T>(), row: ar, column: ac };
        let rhs = Strided { data: b.slice::<T>(), row: br, column: bc };
        let bytes = scratch(self.extent(m as u64, n as u64, k as u64, size_of::<T>() as u64), cx.machine);
        cx.scratch(bytes, || product((m, n, k), out, n, lhs, rhs, (T::of(self.alpha.get()), beta), cx.machine.threads));
    }
}
