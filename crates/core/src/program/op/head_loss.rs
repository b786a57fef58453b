//! `head_loss`: the head of a language model, its softmax and the cross-entropy, without the logits in memory.

use super::super::format::{Format, Packed};
use super::super::types::{DType, Dim, Real};
use super::launch::{
    Arg, KernelSource, Launch, Launches,
    Operand::{self, Fault, In, Out},
    Product, args, source,
};
use super::{
    Add, At, Builder, Cost, HeadLossGrad, Io, Kernel, Machine, OpError, OpRule, Precision, SizedCx,
    TensorType, Value,
};

mod kernel;
mod table;

pub(super) use kernel::{Products, backward, backward_scratch, by_types, sizes};
pub(super) use table::Numbers;

/// `(x [R, d], head [V, d], targets u32[R], scale f32[1][, bias [V]]) → (loss [1], lse [R], rows [R, 2])`.
///
/// The logits of a row are `cap(alpha · x headᵀ + bias)`, with `cap(z) = c · tanh(z / c)` if there is a soft cap `c`. The bias is
/// a constant.
/// `lse` is the logarithm of the sum of their exponentials, `loss = scale · Σ (lse − logit[target])`, and `rows` has
/// of each row that difference, which is minus the logarithm of the target's probability, and the number of the
/// token with the largest logit, the first of equals; no number where the logits are none.
///
/// The logits are made and used a piece at a time, and made anew by the gradient (Wijmans et al. 2024, arXiv
/// 2411.09009). A row's results do not depend on the other rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeadLoss {
    /// Factor of the logits.
    pub alpha: Real,
    /// Bound that logits approach (Gemma 2, arXiv 2408.00118, section 2).
    pub softcap: Option<Real>,
    /// Whether a bias is added to the logits.
    pub bias: bool,
    /// In what numbers products are formed; [`Builder`] sets it.
    pub precision: Precision,
}

/// Numbers of tokens are results in f32, which holds all whole numbers up to here.
const LARGEST: u64 = 1 << 24;

impl HeadLoss {
    /// Without a soft cap and without a bias.
    #[must_use]
    pub const fn plain(alpha: Real) -> Self {
        Self {
            alpha,
            softcap: None,
            bias: false,
            precision: Precision::F32,
        }
    }

    /// Checks the operands; gives the rows of the first.
    pub(super) fn check(&self, x: &[&TensorType]) -> Result<Dim, String> {
        let [x, head, targets, scale, bias @ ..] = x else {
            return Err("states, a head, targets and a scale are wanted".into());
        };
        let (Some((rows, d)), Some((vocabulary, width))) = (x.matrix(), head.matrix()) else {
            return Err("states and a head are matrices".into());
        };
        let stored = head.dtype == x.dtype || (x.dtype, head.dtype) == (DType::F32, DType::BF16);
        if !x.dtype.is_compute() || !stored || d != width || d.as_const().is_none() {
            return Err(format!(
                "states of {d} and a head of {width} must agree, in one compute type or with a head in bf16"
            ));
        }
        if !vocabulary.as_const().is_some_and(|v| v > 0 && v <= LARGEST) {
            return Err(format!("a vocabulary of 1 to {LARGEST} tokens is wanted"));
        }
        if self
            .softcap
            .is_some_and(|c| !(c.get() > 0.0 && c.get().is_finite()))
        {
            return Err("a soft cap must be above 0".into());
        }
        if **targets != TensorType::new(DType::U32, [rows])
            || **scale != TensorType::scalar(DType::F32)
        {
            return Err("a u32 target for each row and an f32 scale are wanted".into());
        }
        let fits = match bias {
            [] => !self.bias,
            [bias] => self.bias && **bias == TensorType::new(x.dtype, [vocabulary]),
            _ => false,
        };
        if !fits {
            return Err("a bias has a number for each token".into());
        }
        Ok(rows)
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("head_loss"));

impl OpRule for HeadLoss {
    fn kernel(&self) -> Option<&'static str> {
        (self.precision == Precision::Bf16).then_some("head_loss_bf16")
    }

    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let rows = self.check(x)?;
        let dtype = x.first().map_or(DType::F32, |x| x.dtype);
        Ok(vec![
            TensorType::scalar(dtype),
            TensorType::new(dtype, [rows]),
            TensorType::new(dtype, [rows, 2.into()]),
        ])
    }

    fn is_exact(&self, _: usize) -> bool {
        true
    }

    fn reads(&self, i: usize, stored: Format) -> bool {
        i == 1 && (stored == DType::BF16 || stored.blocks().is_some())
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let pieces = Pieces::of(self, cx, 0, &mut list)?;
        let rows = pieces.rows;
        if rows == 0 {
            list.fours("fill", "fill", 1, args![Out(0), 1_u64, 0.0_f32]);
            return Some(list);
        }
        let [lses, owns] = [(); 2].map(|()| list.scratch(8 * rows));
        let [highs, bests] = [(); 2].map(|()| list.scratch(4 * rows));
        for piece in pieces.each() {
            pieces.make(&mut list, piece);
            list.rows(
                "head_loss",
                "head_loss_piece",
                rows,
                piece.columns,
                args![
                    pieces.logits,
                    pieces.bias,
                    In(2),
                    lses,
                    owns,
                    highs,
                    bests,
                    Fault,
                    piece.columns as u32,
                    piece.first as u32,
                    pieces.vocabulary as u32,
                    pieces.cap
                ],
            );
        }
        list.each(
            "head_loss",
            "head_loss_rows",
            rows,
            args![lses, owns, bests, Out(1), Out(2), rows],
        );
        list.once(
            "head_loss",
            "head_loss_sum",
            args![lses, In(3), Out(0), rows as u32],
        );
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (x, head) = (io.input(0).dtype(), io.input(1).format());
        by_types!((x, head, self.precision), products => kernel::forward(self, products, cx, io))
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut grads = vec![None; at.inputs.len()];
        let (input, head) = (at.needs[0], at.needs[1]);
        if !(input || head) {
            return grads;
        }
        // That of the sum, and those of the rows.
        for up in [at.up[0], at.up[2]].into_iter().flatten() {
            let of = self.clone();
            let mut operands = vec![up];
            operands.extend(at.inputs);
            operands.push(at.outputs[1]);
            let mut made = b
                .push(HeadLossGrad { of, input, head }, &operands)
                .into_iter();
            for (slot, wanted) in grads.iter_mut().zip([input, head]) {
                let own = if wanted { made.next() } else { None };
                *slot = match (*slot, own) {
                    (Some(one), Some(other)) => Some(b.push1(Add, &[one, other])),
                    (one, other) => one.or(other),
                };
            }
        }
        grads
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 2
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let (rows, vocabulary, d) = sizes(cx, 0);
        Cost {
            flops: rows * vocabulary * (2 * d + 5),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        kernel::forward_scratch(self, sizes(cx, 0), size)
    }
}

/// Most columns of a piece on a GPU, and about how many logits it has.
const COLUMNS: u64 = 8192;
const LOGITS: u64 = 1 << 24;

/// A piece of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Its first token.
    pub first: u64,
    /// How many it has.
    pub columns: u64,
}

/// What makes a piece of the head as products read it.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// A kernel that copies it.
    Kernel(&'static str),
    /// The decoder of blocks.
    Decoded(Packed),
}

/// The logits as a GPU makes them: of all rows, for a piece of the vocabulary at a time.
pub(super) struct Pieces {
    pub rows: u64,
    pub vocabulary: u64,
    pub width: u64,
    /// Factor of the logits, and their soft cap, 0 for none.
    pub alpha: f32,
    pub cap: f32,
    /// In what numbers products are.
    pub precision: Precision,
    /// States, the head or a piece of it, and a piece's logits, as products read them.
    pub x: Operand,
    head: Operand,
    pub logits: Operand,
    /// What kernels add to the logits, or nothing.
    pub bias: Arg,
    /// The whole head, and what makes a piece of it; none where products read the head as it is.
    load: Option<(Operand, Load)>,
    columns: u64,
}

impl Pieces {
    /// Of the states in input `first` and the head behind it; `None` if no kernel takes these operands.
    pub fn of(op: &HeadLoss, cx: &SizedCx, first: usize, list: &mut Launches) -> Option<Self> {
        let (rows, vocabulary, width) = sizes(cx, first);
        let held = cx.inputs.get(first + 1)?.stored;
        let others = cx
            .inputs
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != first + 1);
        let mut others = others.map(|(_, x)| x).chain(&cx.outputs);
        let single =
            |x: &super::Sized| matches!(x.computed, DType::F32 | DType::U32) && !x.is_narrow();
        if !others.all(single) {
            return None;
        }
        let rounds = op.precision == Precision::Bf16;
        let load = match (held, rounds) {
            (Format::Plain(DType::F32), false) | (Format::Plain(DType::BF16), true) => None,
            (Format::Plain(DType::F32), true) => Some(Load::Kernel("head_piece_narrow")),
            (Format::Plain(DType::BF16), false) => Some(Load::Kernel("head_piece_wide")),
            (Format::Blocks(packed), _) => {
                packed.rule().kernels()?;
                Some(Load::Decoded(packed))
            }
            _ => return None,
        };
        let columns = (LOGITS / rows.max(1) / 256 * 256).clamp(256, COLUMNS);
        let columns = columns.min(vocabulary);
        let size = |n: u64| {
            if rounds {
                (2 * n).next_multiple_of(4)
            } else {
                4 * n
            }
        };
        let whole = In(first + 1);
        let (head, load) = match load {
            None => (whole, None),
            Some(load) => (list.scratch(size(columns * width)), Some((whole, load))),
        };
        let mut x = In(first);
        if rounds && rows > 0 {
            x = list.scratch(size(rows * width));
            list.cast("narrow_bf16", In(first), x, rows * width);
        }
        Some(Self {
            rows,
            vocabulary,
            width,
            alpha: op.alpha.get() as f32,
            cap: op.softcap.map_or(0.0, Real::get) as f32,
            precision: op.precision,
            x,
            head,
            logits: list.scratch(4 * rows * columns),
            bias: match op.bias {
                true => Arg::At(In(first + 4)),
                false => Arg::Null,
            },
            load,
            columns,
        })
    }

    /// Scratch for so many slopes in bf16, if products read them so.
    pub fn rounded(&self, list: &mut Launches, n: u64) -> Option<Operand> {
        let rounds = self.precision == Precision::Bf16;
        rounds.then(|| list.scratch((2 * n).next_multiple_of(4)))
    }

    /// The pieces in order.
    pub fn each(&self) -> impl Iterator<Item = Piece> {
        let (vocabulary, most) = (self.vocabulary, self.columns);
        (0..vocabulary.div_ceil(most.max(1))).map(move |i| Piece {
            first: i * most,
            columns: most.min(vocabulary - i * most),
        })
    }

    /// Makes a piece of the head, and its logits before the bias and the soft cap.
    pub fn make(&self, list: &mut Launches, piece: Piece) {
        let Piece { first, columns } = piece;
        let n = columns * self.width;
        match self.load {
            None => {}
            Some((from, Load::Kernel(kernel))) => {
                let args = args![from, self.head, first * self.width, n];
                list.fours("head_loss", kernel, n, args);
            }
            Some((from, Load::Decoded(packed))) => {
                let range = (first * self.width, n);
                // That there is a kernel was looked at first.
                let rounds = self.precision == Precision::Bf16;
                let _there = list.decode(packed, (from, self.head), range, rounds);
            }
        }
        let sizes = (self.rows, columns, self.width);
        self.product(
            list,
            sizes,
            ((self.x, false), self.head(piece, true)),
            (0.0, self.logits),
        );
    }

    /// A piece of the head as a right operand, transposed or not, and its first element.
    pub fn head(&self, piece: Piece, transposed: bool) -> (Operand, bool, u64) {
        let first = match self.load {
            None => piece.first * self.width,
            Some(_) => 0,
        };
        (self.head, transposed, first)
    }

    /// `to ← alpha · op(a) · op(b) + beta · to`, of `m × n` with inner size `k`.
    pub fn product(
        &self,
        list: &mut Launches,
        (m, n, k): (u64, u64, u64),
        (a, (b, b_t, first)): ((Operand, bool), (Operand, bool, u64)),
        (beta, c): (f32, Operand),
    ) {
        let sizes = (m as u32, n as u32, k as u32);
        list.list.push(Launch::Product(Product {
            precision: self.precision,
            c,
            first,
            ..Product::of_rows(sizes, a, (b, b_t), self.alpha, beta)
        }));
    }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
pub(super) use fixtures::{biased, cases, fixtures, kinds, operands, with_bias};
#[cfg(test)]
mod tests;
