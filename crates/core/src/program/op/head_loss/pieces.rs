//! The head's loss on a GPU: launches for a piece of the vocabulary at a time.

use super::super::super::format::{Format, Packed};
use super::super::super::types::{DType, Real};
use super::super::launch::{
    Arg, Call, Launch, Launches,
    Operand::{self, Fault, In, Out},
    Product, args,
};
use super::super::{Precision, Sized, SizedCx};
use super::{HeadLoss, StatesGradient, sizes};

/// Numbers of a piece's row that a thread holds in its registers (`head_loss.cu`).
const HELD: u64 = 16;
/// Most columns of a piece, which 512 threads hold, and about how many logits it has.
const COLUMNS: u64 = 8192;
const LOGITS: u64 = 1 << 24;

/// A piece of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Piece {
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
pub(in super::super) struct Pieces {
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
    /// What the head is stored in, and which input the states are.
    stored: Format,
    first: usize,
}

impl Pieces {
    /// Of the states in input `first` and the head behind it; `None` if no kernel takes these operands.
    pub fn of(op: &HeadLoss, cx: &SizedCx, first: usize, list: &mut Launches) -> Option<Self> {
        let (rows, vocabulary, width) = sizes(cx, first);
        let stored_in = cx.inputs.get(first + 1)?.stored;
        let others = cx
            .inputs
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != first + 1);
        let mut others = others.map(|(_, x)| x).chain(&cx.outputs);
        let single = |x: &Sized| matches!(x.computed, DType::F32 | DType::U32) && !x.is_narrow();
        if !others.all(single) {
            return None;
        }
        let rounds = op.precision == Precision::Bf16;
        let load = match (stored_in, rounds) {
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
            stored: stored_in,
            first,
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

    /// The rows of the head that the targets name. Those of a head in blocks are copied out of the decoded pieces.
    fn targets(&self, list: &mut Launches) -> Targets {
        let rounds = self.precision == Precision::Bf16;
        let kind = match (self.load, rounds) {
            (None | Some((_, Load::Kernel(_))), _) => {
                let narrow = self.stored == DType::BF16;
                return Targets {
                    rows: In(self.first + 1),
                    kind: if narrow { Kind::Half } else { Kind::of(rounds) },
                    copied: None,
                };
            }
            (Some((_, Load::Decoded(_))), true) => Kind::Half,
            (Some((_, Load::Decoded(_))), false) => Kind::Single,
        };
        let size = if rounds { 2 } else { 4 };
        let bytes = (size * self.rows * self.width).next_multiple_of(4);
        Targets {
            rows: list.scratch(bytes),
            kind,
            copied: Some(size * self.width / 4),
        }
    }

    /// Adds a piece's weights times its rows of the head to the states' gradient. Where products are in bf16 the weights lie
    /// at the beginning of the rows of the logits.
    fn add_weighted(&self, list: &mut Launches, piece: Piece, to: Operand) {
        let rounds = self.precision == Precision::Bf16;
        let sizes = (self.rows as u32, self.width as u32, piece.columns as u32);
        let (b, b_t, first) = self.head(piece, false);
        let beta = if piece.first == 0 { 0.0 } else { 1.0 };
        let own = Product::of_rows(sizes, (self.logits, false), (b, b_t), self.alpha, beta);
        list.list.push(Launch::Product(Product {
            precision: self.precision,
            c: to,
            first,
            ldb: own.ldb * if rounds { 2 } else { 1 },
            ..own
        }));
    }
}

/// In which numbers a row of the head is read at a target.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Single = 0,
    /// f32 that is rounded to bf16, as products do it.
    Rounded = 1,
    Half = 2,
}

impl Kind {
    const fn of(rounds: bool) -> Self {
        if rounds { Self::Rounded } else { Self::Single }
    }
}

/// The rows of the head that the targets name.
#[derive(Clone, Copy, Debug)]
struct Targets {
    rows: Operand,
    kind: Kind,
    /// Words of a row, if each is copied out of its piece; else they are all of the head.
    copied: Option<u64>,
}

/// What the launches of a loss have told of the rows.
#[derive(Clone, Copy, Debug)]
struct OfRows {
    /// Sums of exponentials, in doubles; then the rows' losses.
    sums: Operand,
    /// The targets' logits, the largest ones, and their tokens.
    owns: Operand,
    highs: Operand,
    bests: Operand,
    /// The states' gradient, if it is made, and the rows of the head that it reads.
    states: Option<(Operand, Targets)>,
}

/// The launches of a loss; `None` if no kernel takes its operands.
pub(super) fn forward(op: &HeadLoss, cx: &SizedCx) -> Option<Launches> {
    let mut list = Launches::default();
    let pieces = Pieces::of(op, cx, 0, &mut list)?;
    let rows = pieces.rows;
    if rows == 0 {
        list.fours("fill", "fill", 1, args![Out(0), 1_u64, 0.0_f32]);
        return Some(list);
    }
    let sums = list.scratch(8 * rows);
    let [owns, highs, bests] = [(); 3].map(|()| list.scratch(4 * rows));
    let targets = op.makes_gradient().then(|| pieces.targets(&mut list));
    let of_rows = OfRows {
        sums,
        owns,
        highs,
        bests,
        states: targets.map(|targets| (Out(3), targets)),
    };
    for piece in pieces.each() {
        pieces.make(&mut list, piece);
        pieces.tell(&mut list, piece, of_rows);
        if let Some((states, _)) = of_rows.states {
            pieces.add_weighted(&mut list, piece, states);
        }
    }
    pieces.finish(&mut list, of_rows, op.gradient);
    Some(list)
}

impl Pieces {
    /// Adds a piece's logits to what is told of the rows, and turns them into weights where the states' gradient is made.
    fn tell(&self, list: &mut Launches, piece: Piece, of_rows: OfRows) {
        let (source, n) = ("head_loss", piece.columns);
        let weights = match (of_rows.states, self.precision) {
            (None, _) => 0_u32,
            (Some(_), Precision::Bf16) => 2,
            (Some(_), _) => 1,
        };
        if let Some((
            _,
            Targets {
                rows,
                copied: Some(words),
                ..
            },
        )) = of_rows.states
        {
            let args = args![
                self.head,
                rows,
                In(2),
                words as u32,
                piece.first as u32,
                n as u32
            ];
            list.rows(source, "head_loss_targets", self.rows, words, args);
        }
        let states = of_rows.states.map_or(Arg::Null, |(to, _)| Arg::At(to));
        let args = args![
            self.logits,
            weights,
            self.bias,
            In(2),
            of_rows.sums,
            of_rows.owns,
            of_rows.highs,
            of_rows.bests,
            states,
            Fault,
            n as u32,
            piece.first as u32,
            self.vocabulary as u32,
            self.width as u32,
            self.cap
        ];
        list.call(Call {
            source,
            kernel: "head_loss_piece",
            stored_in: list.stored_in,
            grid: [self.rows as u32, 1],
            block: n.div_ceil(HELD).next_multiple_of(32) as u32,
            shared: 0,
            args,
        });
    }

    /// What is told of all pieces as results.
    fn finish(&self, list: &mut Launches, of_rows: OfRows, gradient: StatesGradient) {
        let (source, rows) = ("head_loss", self.rows);
        let OfRows {
            sums,
            owns,
            highs,
            bests,
            states,
        } = of_rows;
        let factors = states.map(|_| list.scratch(8 * rows));
        let args = args![
            sums,
            owns,
            highs,
            bests,
            Out(1),
            Out(2),
            factors.map_or(Arg::Null, Arg::At),
            self.cap,
            rows
        ];
        list.each(source, "head_loss_rows", rows, args);
        list.once(
            source,
            "head_loss_sum",
            args![sums, In(3), Out(0), rows as u32],
        );
        let (Some((to, targets)), Some(factors)) = (states, factors) else {
            return;
        };
        let is_scaled = gradient == StatesGradient::Loss;
        let args = args![
            to,
            factors,
            targets.rows,
            targets.kind as u32,
            if targets.copied.is_none() {
                Arg::At(In(2))
            } else {
                Arg::Null
            },
            if is_scaled { Arg::At(In(3)) } else { Arg::Null },
            self.vocabulary as u32,
            self.width as u32,
            self.alpha
        ];
        list.rows(source, "head_loss_states", rows, self.width, args);
    }
}
