//! `matmul`: `alpha · op(a) · op(b)`, with a bias or a sum folded in.

use half::bf16;

use super::super::format::Format;
use super::super::types::{DType, Real};
use super::launch::{
    KernelSource, Launch, Launches,
    Operand::{self, In, Out},
    Product, args, source,
};
use super::product::{
    InBlocks, Source, Start, product, product_of_rounded, product_with_blocks, product_with_plain,
    scratch, scratch_of_rounded,
};
use super::tile::Strided;
use super::{
    At, Builder, Cost, Io, Kernel, Machine, OpError, OpRule, Sized, SizedCx, Storage, SumRows,
    TensorType, Value, thin_product,
};

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

/// In what numbers products are formed; sums are f32 in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As the operands are.
    #[default]
    F32,
    /// Of both operands in TF32, eight bits of exponent and ten of mantissa, where a GPU has it; as they are
    /// elsewhere, which is more exact.
    Tf32,
    /// Of both operands rounded to bf16.
    Bf16,
}

/// `(a, b[, bias | c]) → alpha · op(a) · op(b) [+ bias | + c]`: `[m, k] · [k, n] → [m, n]`, where
/// `op` transposes if asked. No transposed copy is ever made; nor is a widened one of what is stored in bf16, or of a right side
/// in blocks.
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
    /// `a` counts as a constant: no gradient goes through the product to it (Side-LoRA).
    pub detached: bool,
    /// In what numbers; [`Builder`] sets it.
    pub precision: Precision,
}

impl MatMul {
    /// The product alone.
    #[must_use]
    pub const fn plain(a_t: bool, b_t: bool, alpha: Real) -> Self {
        Self {
            a_t,
            b_t,
            alpha,
            epilogue: Epilogue::None,
            detached: false,
            precision: Precision::F32,
        }
    }

    /// `alpha · a bᵀ` with something added, as linear layers are written.
    #[must_use]
    pub const fn linear(alpha: Real, epilogue: Epilogue) -> Self {
        Self {
            epilogue,
            ..Self::plain(false, true, alpha)
        }
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("matmul"));

impl OpRule for MatMul {
    fn kernel(&self) -> Option<&'static str> {
        (self.precision == Precision::Bf16).then_some("matmul_bf16")
    }

    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let wanted = if self.epilogue == Epilogue::None {
            2
        } else {
            3
        };
        let [a, b, rest @ ..] = x else {
            return Err("two matrices are wanted".into());
        };
        let (Some((ar, ac)), Some((br, bc))) = (a.matrix(), b.matrix()) else {
            return Err("two matrices are wanted".into());
        };
        let (m, k) = if self.a_t { (ac, ar) } else { (ar, ac) };
        let (k2, n) = if self.b_t { (bc, br) } else { (br, bc) };
        let stored = a.dtype == b.dtype || (a.dtype, b.dtype) == (DType::F32, DType::BF16);
        if x.len() != wanted || k != k2 || !stored || !a.dtype.is_compute() {
            return Err(format!(
                "inner sizes {k} and {k2} must agree, in one compute type or with a right side in bf16, with {wanted} inputs"
            ));
        }
        let out = TensorType::new(a.dtype, [m, n]);
        let fits = match (self.epilogue, rest) {
            (Epilogue::None, []) => true,
            (Epilogue::Bias, [bias]) => **bias == TensorType::new(a.dtype, [n]),
            (Epilogue::Accumulate, [c]) => **c == out,
            _ => false,
        };
        if fits {
            Ok(vec![out])
        } else {
            Err("what is added has the wrong shape".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = self.without_bias(cx)?;
        let (m, n, _) = self.sizes(cx);
        if self.epilogue == Epilogue::Bias && m * n > 0 {
            list.rows("matmul", "add_bias", m, n, args![Out(0), In(2), n as u32]);
        }
        Some(list)
    }

    fn reads(&self, i: usize, stored: Format) -> bool {
        i < 2 && stored == DType::BF16 || i == 1 && stored.blocks().is_some()
    }

    fn mixes_rows(&self) -> bool {
        self.a_t
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        if io.outputs[0].dtype() == DType::F64 {
            self.right::<f64, f64, f64>(cx, io, product, product);
        } else {
            match io.input(0).dtype() {
                DType::BF16 => self.single::<bf16>(cx, io),
                _ => self.single::<f32>(cx, io),
            }
        }
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None; at.inputs.len()];
        };
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

    fn differentiable(&self, input: usize) -> bool {
        input > 0 || !self.detached
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let (m, n, k) = self.sizes(cx);
        Cost {
            flops: 2 * m * n * k,
            bytes: cx.traffic(),
        }
    }

    fn in_place(&self) -> &'static [usize] {
        if self.epilogue == Epilogue::Accumulate {
            &[2]
        } else {
            &[]
        }
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let (m, n, k) = self.sizes(cx);
        let size = cx.outputs.first().map_or(4, |o| {
            if o.dims.iter().product::<usize>() as u64 * 8 == o.bytes {
                8
            } else {
                4
            }
        });
        self.scratch((m, n, k), size)
    }
}

/// An operand rounded to bf16, in scratch. Scratch is of whole words.
fn round(list: &mut Launches, input: usize, n: u64) -> Operand {
    let rounded = list.scratch((2 * n).next_multiple_of(4));
    list.cast("narrow_bf16", In(input), rounded, n);
    rounded
}

/// [`product`] or [`product_of_rounded`].
type Multiply<T, A, B> = fn((usize, usize, usize), &mut [T], A, B, T, Start<'_, T>);

impl MatMul {
    fn sizes(&self, cx: &SizedCx) -> (u64, u64, u64) {
        let dim = |s: &Sized, i: usize| s.dims.get(i).copied().unwrap_or(1) as u64;
        match (cx.inputs.first(), cx.outputs.first()) {
            (Some(a), Some(out)) => (dim(out, 0), dim(out, 1), dim(a, usize::from(!self.a_t))),
            _ => (0, 0, 0),
        }
    }

    /// What is launched for the product, and for a sum that it is added to.
    pub(super) fn without_bias(&self, cx: &SizedCx) -> Option<Launches> {
        let (left, right, out) = (cx.inputs.first()?, cx.inputs.get(1)?, cx.outputs.first()?);
        let narrow = right.stored == DType::BF16;
        let rounds = self.precision == Precision::Bf16;
        // Blocks are decoded to what the product reads; otherwise they are widened around this.
        let blocks = right.stored.blocks().filter(|_| rounds);
        // What products in bf16 read is as well stored so, and so is what they make.
        let fits = |x: &Sized| {
            x.computed == DType::F32
                && (x.stored == DType::F32 || rounds && x.stored == DType::BF16)
        };
        let added = cx.inputs.get(2).is_none_or(|x| match self.epilogue {
            Epilogue::Accumulate => x.stored == out.stored,
            Epilogue::None | Epilogue::Bias => x.stored == DType::F32,
        });
        let reads = narrow || blocks.is_some() || right.stored == DType::F32;
        if !reads || !fits(left) || !fits(out) || !added {
            return None;
        }
        let mut list = Launches::of(out.stored.plain()?);
        let (m, n, k) = self.sizes(cx);
        if m * n == 0 {
            return Some(list);
        }
        if let Some(own) = thin_product::launches(self, (m, n, k), cx) {
            return Some(own);
        }
        let left = if rounds && left.stored == DType::F32 {
            round(&mut list, 0, m * k)
        } else {
            In(0)
        };
        let right = match (narrow, self.precision, blocks) {
            (_, _, Some(packed)) => {
                let rounded = list.scratch((2 * n * k).next_multiple_of(4));
                list.decode(packed, (In(1), rounded), (0, n * k), true)?;
                rounded
            }
            (true, Precision::Bf16, _) | (false, Precision::F32 | Precision::Tf32, _) => In(1),
            (false, Precision::Bf16, _) => round(&mut list, 1, n * k),
            (true, Precision::F32 | Precision::Tf32, _) => {
                let wide = list.scratch(4 * n * k);
                list.cast("widen_bf16", In(1), wide, n * k);
                wide
            }
        };
        let beta = if self.epilogue == Epilogue::Accumulate {
            1.0
        } else {
            0.0
        };
        if self.epilogue == Epilogue::Accumulate {
            list.list.push(Launch::Copy {
                from: In(2),
                to: Out(0),
            });
        }
        let sizes = (m as u32, n as u32, k as u32);
        list.list.push(Launch::Product(Product {
            precision: self.precision,
            narrow: out.stored == DType::BF16,
            ..Product::of_rows(
                sizes,
                (left, self.a_t),
                (right, self.b_t),
                self.alpha.get() as f32,
                beta,
            )
        }));
        Some(list)
    }

    fn scratch(&self, (m, n, k): (u64, u64, u64), size: u64) -> u64 {
        match self.precision {
            Precision::F32 | Precision::Tf32 => scratch(m, n, k, size),
            Precision::Bf16 => scratch_of_rounded(m, n, k),
        }
    }

    /// The product in f32 with a left operand of `A`s, by what its right operand is stored as.
    fn single<A: Source<f32> + super::Element>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) {
        let rounds = self.precision == Precision::Bf16;
        match (io.input(1).dtype(), rounds) {
            (DType::BF16, false) => {
                self.right::<f32, A, bf16>(cx, io, product_with_plain, product_with_blocks);
            }
            (_, false) => {
                self.right::<f32, A, f32>(cx, io, product_with_plain, product_with_blocks);
            }
            (DType::BF16, true) => {
                self.right::<f32, A, bf16>(cx, io, product_of_rounded, product_of_rounded);
            }
            (_, true) => {
                self.right::<f32, A, f32>(cx, io, product_of_rounded, product_of_rounded);
            }
        }
    }

    /// The product with a right operand of `B`s, or in blocks.
    fn right<'a, T, A, B>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'a>,
        plain: Multiply<T, Strided<'a, A>, Strided<'a, B>>,
        packed: Multiply<T, Strided<'a, A>, InBlocks<'a>>,
    ) where
        T: super::math::Elementary,
        A: Source<T> + super::Element,
        B: Source<T> + super::Element,
    {
        let (k, n) = self.right_sizes(io);
        let right = io.input(1);
        if let Storage::Blocks(format, data) = right.storage {
            let right = InBlocks {
                format: *format,
                data,
                width: right.dims[1],
                first: 0,
                transposed: self.b_t,
            };
            return self.compute(cx, io, right, packed);
        }
        let (row, column) = if self.b_t { (1, k) } else { (n, 1) };
        let right = Strided {
            data: right.slice::<B>(),
            row,
            column,
        };
        self.compute(cx, io, right, plain);
    }

    /// Rows and columns of the right operand, as it is multiplied.
    fn right_sizes(&self, io: &Io<'_>) -> (usize, usize) {
        let dims = io.input(1).dims;
        if self.b_t {
            (dims[1], dims[0])
        } else {
            (dims[0], dims[1])
        }
    }

    fn compute<'a, T, A, B>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'a>,
        rhs: B,
        multiply: Multiply<T, Strided<'a, A>, B>,
    ) where
        T: super::math::Elementary,
        A: Source<T> + super::Element,
    {
        let (a, (k, n)) = (io.input(0), self.right_sizes(io));
        let m = io.outputs[0].dims[0];
        let extra = (self.epilogue != Epilogue::None && io.taken.is_none())
            .then(|| io.input(2).slice::<T>());
        let out = io.outputs[0].slice::<T>();
        let start = match (self.epilogue, extra) {
            (Epilogue::None, _) => Start::Zero,
            (Epilogue::Bias, bias) => Start::Row(bias.unwrap_or_default()),
            (Epilogue::Accumulate, None) => Start::Out,
            (Epilogue::Accumulate, Some(c)) => {
                out.copy_from_slice(c);
                Start::Out
            }
        };
        let (row, column) = if self.a_t { (1, m) } else { (k, 1) };
        let lhs = Strided {
            data: a.slice::<A>(),
            row,
            column,
        };
        let bytes = self.scratch((m as u64, n as u64, k as u64), size_of::<T>() as u64);
        cx.scratch(bytes, || {
            multiply((m, n, k), out, lhs, rhs, T::of(self.alpha.get()), start)
        });
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
pub(super) use samples::fixtures;
