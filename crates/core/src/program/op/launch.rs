//! What an op launches on a GPU: kernels with their grids and arguments, products for cuBLAS, scratch.
//!
//! Plain data, in every build, so that it can be counted and tested where there is no GPU: a test runs
//! these very lists through an emulation of the kernels' sources and compares with the CPU.

use super::super::format::{Format, Packed};
use super::super::types::DType;
use super::{Precision, SizedCx};

mod missing;

pub use missing::{Missing, without_launches};

/// The line that says what activations are stored in, for in front of a source.
#[must_use]
pub const fn storage_line(stored_in: DType) -> &'static str {
    match stored_in {
        DType::F16 => "#define HELD 1\n",
        DType::BF16 => "#define HELD 2\n",
        _ => "#define HELD 0\n",
    }
}

/// A kernel source, with what all share in front; [`storage_line`] is to go before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSource {
    /// Its file's stem.
    pub name: &'static str,
    /// CUDA C++.
    pub text: &'static str,
}

/// The source of a file's stem, with what all share and what other files share in front.
macro_rules! source {
    ($name:literal $(with $($shared:literal),+)?) => {
        $crate::program::op::launch::KernelSource {
            name: $name,
            text: concat!(include_str!("common.cuh"), include_str!("held.cuh"), $($(include_str!($shared),)+)? include_str!(concat!($name, ".cu"))),
        }
    };
}
pub(super) use source;

/// A buffer of one application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// An input; the same buffer as output 0 where that took it over.
    In(usize),
    /// An output.
    Out(usize),
    /// Scratch, by its place in [`Launches::scratch`].
    Scratch(usize),
    /// Three words: whether an index was outside its table, which, and the table's rows.
    Fault,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// A buffer's address.
    At(Operand),
    /// No buffer.
    Null,
    /// A 32-bit word.
    U32(u32),
    /// A 64-bit word.
    U64(u64),
    /// A single float.
    F32(f32),
    /// A double.
    F64(f64),
}

macro_rules! from {
    ($($t:ty => $variant:ident),+) => {
        $(impl From<$t> for Arg { fn from(x: $t) -> Self { Self::$variant(x) } })+
    };
}
impl Arg {
    /// The word it is passed as: a 32-bit argument is the first half of it.
    ///
    /// # Errors
    /// What `address` says of an operand.
    pub fn word<E>(self, address: impl FnOnce(Operand) -> Result<u64, E>) -> Result<u64, E> {
        Ok(match self {
            Self::At(operand) => address(operand)?,
            Self::Null => 0,
            Self::U32(x) => u64::from(x),
            Self::U64(x) => x,
            Self::F32(x) => u64::from(x.to_bits()),
            Self::F64(x) => x.to_bits(),
        })
    }
}

from!(Operand => At, u32 => U32, u64 => U64, f32 => F32, f64 => F64);

/// A kernel's arguments, each by its own type.
macro_rules! args {
    ($($x:expr),* $(,)?) => { vec![$($crate::program::op::launch::Arg::from($x)),*] };
}
pub(super) use args;

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Name of its source.
    pub source: &'static str,
    /// The kernel in it.
    pub kernel: &'static str,
    /// What the activations it knows are stored in.
    pub stored_in: DType,
    /// Blocks, in two dimensions.
    pub grid: [u32; 2],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory, bytes.
    pub shared: u32,
    /// Arguments in order.
    pub args: Vec<Arg>,
}

/// `c ← alpha · op(a) · op(b) + beta · c` in the column-major terms of `cublasGemmEx`: `op(a)` is `m × k`,
/// `c` is `m × n` with columns `ldc` apart. Sums are f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// In what numbers: `a` and `b` are stored as f32, and as bf16 for [`Precision::Bf16`].
    pub precision: Precision,
    /// Whether `a` is transposed.
    pub a_t: bool,
    /// Whether `b` is.
    pub b_t: bool,
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Inner size.
    pub k: u32,
    /// Factor of the product.
    pub alpha: f32,
    /// Left operand.
    pub a: Operand,
    /// Between its columns.
    pub lda: u32,
    /// Its first element that is read.
    pub first: u64,
    /// Right operand.
    pub b: Operand,
    /// Between its columns.
    pub ldb: u32,
    /// Factor of what is there.
    pub beta: f32,
    /// The result.
    pub c: Operand,
    /// Between its columns.
    pub ldc: u32,
    /// Whether `c` is bf16, not f32.
    pub narrow: bool,
}

impl Product {
    /// `out[m, n] = alpha · op(a) · op(b) + beta · out` of row-major matrices: the transpose of it, since a
    /// row-major matrix is its own transpose read by columns.
    #[must_use]
    pub fn of_rows(
        (m, n, k): (u32, u32, u32),
        (a, a_t): (Operand, bool),
        (b, b_t): (Operand, bool),
        alpha: f32,
        beta: f32,
    ) -> Self {
        let across = |t: bool, rows: u32, columns: u32| (if t { rows } else { columns }).max(1);
        Self {
            precision: Precision::F32,
            a_t: b_t,
            b_t: a_t,
            m: n,
            n: m,
            k,
            alpha,
            a: b,
            lda: across(b_t, k, n),
            first: 0,
            b: a,
            ldb: across(a_t, m, k),
            beta,
            c: Operand::Out(0),
            ldc: n.max(1),
            narrow: false,
        }
    }
}

/// One thing done on the device.
#[derive(Clone, Debug, PartialEq)]
pub enum Launch {
    /// A kernel.
    Call(Call),
    /// A product of matrices.
    Product(Product),
    /// A buffer copied to another of its size; nothing if they are one.
    Copy {
        /// From.
        from: Operand,
        /// To.
        to: Operand,
    },
    /// Words from the host.
    Upload {
        /// To.
        to: Operand,
        /// The words.
        words: Vec<u32>,
    },
    /// Words of 64 bits, addresses of buffers among them.
    Table {
        /// To.
        to: Operand,
        /// The words.
        words: Vec<Arg>,
    },
}

impl Launch {
    /// Every operand that it names.
    pub fn operands_mut(&mut self) -> Vec<&mut Operand> {
        fn of_args(args: &mut [Arg]) -> impl Iterator<Item = &mut Operand> {
            args.iter_mut().filter_map(|arg| match arg {
                Arg::At(operand) => Some(operand),
                _ => None,
            })
        }
        match self {
            Self::Call(call) => of_args(&mut call.args).collect(),
            Self::Product(p) => vec![&mut p.a, &mut p.b, &mut p.c],
            Self::Copy { from, to } => vec![from, to],
            Self::Upload { to, .. } => vec![to],
            Self::Table { to, words } => std::iter::once(to).chain(of_args(words)).collect(),
        }
    }
}

/// Everything one application does, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Launches {
    /// Launches.
    pub list: Vec<Launch>,
    /// Bytes of each scratch buffer.
    pub scratch: Vec<u64>,
    /// What activations are stored in for the kernels that are added.
    pub stored_in: DType,
}

/// Threads of an elementwise block, and most blocks of one: the rest is a loop in the kernel.
const THREADS: u32 = 256;
const MOST_BLOCKS: u64 = 1 << 14;

/// Rows of a run of a column sum, as on the CPU.
pub(super) const RUN: u64 = super::math::SUM_ROWS as u64;

impl Call {
    /// The kernel's name in its source: with what activations are stored in, where that is not f32.
    #[must_use]
    pub fn name(&self) -> String {
        match self.stored_in {
            DType::F32 => self.kernel.to_owned(),
            stored_in => format!("{}_as_{stored_in}", self.kernel),
        }
    }
}

impl Launches {
    /// None yet, with activations stored so.
    #[must_use]
    pub fn of(stored_in: DType) -> Self {
        Self {
            stored_in,
            ..Self::default()
        }
    }

    /// A scratch buffer.
    pub fn scratch(&mut self, bytes: u64) -> Operand {
        self.scratch.push(bytes);
        Operand::Scratch(self.scratch.len() - 1)
    }

    /// Any kernel. A grid of nothing is no launch.
    pub fn call(&mut self, call: Call) {
        if call.grid.iter().all(|&n| n > 0) {
            self.list.push(Launch::Call(call));
        }
    }

    /// A thread an element.
    pub fn each(&mut self, source: &'static str, kernel: &'static str, n: u64, args: Vec<Arg>) {
        let blocks = n.div_ceil(u64::from(THREADS)).min(MOST_BLOCKS) as u32;
        self.call(Call {
            source,
            kernel,
            stored_in: self.stored_in,
            grid: [blocks, 1],
            block: THREADS,
            shared: 0,
            args,
        });
    }

    /// A thread four neighbours, as kernels take them (`in_fours`), or an element where four do not divide them.
    pub fn fours(&mut self, source: &'static str, kernel: &'static str, n: u64, args: Vec<Arg>) {
        let threads = if n.is_multiple_of(4) { n / 4 } else { n };
        self.each(source, kernel, threads, args);
    }

    /// A cast of so many elements, by the name of its kernel.
    pub fn cast(&mut self, kernel: &'static str, from: Operand, to: Operand, n: u64) {
        let stored_in = std::mem::take(&mut self.stored_in);
        self.fours("cast", kernel, n, args![from, to, n]);
        self.stored_in = stored_in;
    }

    /// What is stored in 16 bits or in blocks as so many numbers in f32; `None` where there is no kernel that does it.
    pub fn widen(&mut self, stored: Format, from: Operand, to: Operand, n: u64) -> Option<()> {
        match stored {
            Format::Plain(dtype) => self.cast(super::cast_kernel(dtype, DType::F32)?, from, to, n),
            Format::Blocks(packed) => self.decode(packed, (from, to), (0, n), false)?,
        }
        Some(())
    }

    /// So many numbers of a tensor in blocks, from the first one named on, in f32, or in bf16 if they are rounded; `None` where
    /// there is no kernel that does it.
    pub fn decode(
        &mut self,
        packed: Packed,
        (from, to): (Operand, Operand),
        (first, n): (u64, u64),
        rounded: bool,
    ) -> Option<()> {
        let (source, [single, half]) = packed.rule().kernels()?;
        let kernel = if rounded { half } else { single };
        let stored_in = std::mem::take(&mut self.stored_in);
        self.fours(source.name, kernel, n, args![from, to, first, n]);
        self.stored_in = stored_in;
        Some(())
    }

    /// A block a row, with threads for `width` elements.
    #[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
    pub fn rows(
        &mut self,
        source: &'static str,
        kernel: &'static str,
        rows: u64,
        width: u64,
        args: Vec<Arg>,
    ) {
        let block = width.next_multiple_of(32).clamp(32, THREADS.into()) as u32;
        self.call(Call {
            source,
            kernel,
            stored_in: self.stored_in,
            grid: [rows as u32, 1],
            block,
            shared: 0,
            args,
        });
    }

    /// One block.
    pub fn once(&mut self, source: &'static str, kernel: &'static str, args: Vec<Arg>) {
        self.once_of(THREADS, source, kernel, args);
    }

    /// One block of so many threads, 1,024 at most.
    pub fn once_of(
        &mut self,
        block: u32,
        source: &'static str,
        kernel: &'static str,
        args: Vec<Arg>,
    ) {
        self.call(Call {
            source,
            kernel,
            stored_in: self.stored_in,
            grid: [1, 1],
            block,
            shared: 0,
            args,
        });
    }

    /// A column sum: `kernel` sums runs of rows into each of `outs` (its arguments are `inputs`, a buffer for
    /// each of `outs`, rows, width), then the runs are added in order.
    pub fn column_sums(
        &mut self,
        (source, kernel): (&'static str, &'static str),
        (rows, width): (u64, u64),
        inputs: &[Operand],
        outs: &[Operand],
    ) {
        let combine = ("sum_rows", "sum_runs");
        self.column_runs((source, kernel), combine, (rows, width), inputs, outs);
    }

    /// The same of any reduction, whose second kernel combines the runs.
    #[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
    pub fn column_runs(
        &mut self,
        (source, kernel): (&'static str, &'static str),
        combine: (&'static str, &'static str),
        (rows, width): (u64, u64),
        inputs: &[Operand],
        outs: &[Operand],
    ) {
        let runs = rows.div_ceil(RUN).max(1);
        let to: Vec<Operand> = match runs {
            1 => outs.to_vec(),
            _ => outs
                .iter()
                .map(|_| self.scratch(runs * width * 4))
                .collect(),
        };
        let mut args: Vec<Arg> = inputs.iter().chain(&to).map(|&x| Arg::At(x)).collect();
        args.extend([Arg::U32(rows as u32), Arg::U32(width as u32)]);
        let blocks = width.div_ceil(128) as u32;
        self.call(Call {
            source,
            kernel,
            stored_in: self.stored_in,
            grid: [blocks, runs as u32],
            block: 128,
            shared: 0,
            args,
        });
        if runs > 1 {
            for (&sums, &out) in to.iter().zip(outs) {
                let args = args![sums, out, runs as u32, width as u32];
                self.call(Call {
                    source: combine.0,
                    kernel: combine.1,
                    stored_in: DType::F32,
                    grid: [blocks, 1],
                    block: 128,
                    shared: 0,
                    args,
                });
            }
        }
    }
}

/// What the operands with these numbers are all stored in, if kernels know it: f32, or the same 16 bits. All others
/// are stored as they are computed, in f32 and indices.
pub(super) fn stored_in(cx: &SizedCx, inputs: &[usize], outputs: &[usize]) -> Option<DType> {
    let mut found: Option<DType> = None;
    let all = [(&cx.inputs, inputs), (&cx.outputs, outputs)];
    for (list, own) in all {
        for (i, x) in list.iter().enumerate() {
            let good = matches!(x.computed, DType::F32 | DType::U32);
            let own_type = x.stored.plain();
            let same = own_type.is_some() && (found.is_none() || found == own_type);
            match own.contains(&i) {
                true if good && same => found = own_type,
                false if good && !x.is_narrow() => {}
                _ => return None,
            }
        }
    }
    Some(found.unwrap_or(DType::F32))
}

/// Whether every float operand is stored as f32.
pub(super) fn is_single(cx: &SizedCx) -> Option<()> {
    stored_in(cx, &[], &[]).map(drop)
}
