//! `elementwise`: arithmetic of two operands, the second of which may be broadcast.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks_of_rows, for_operands, part, simd};
use super::{
    At, Builder, Io, Kernel, OpError, OpRule, Over, Reduce, ReduceKind, SizedCx, SumRowsProduct,
    TensorType, Unary, UnaryKind, Value,
};

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryKind {
    /// `a + b`
    Add,
    /// `a − b`
    Sub,
    /// `a · b`
    Mul,
    /// `a / b`
    Div,
    /// 1 where `a = b`, else 0. It has no gradient.
    Equal,
}

impl BinaryKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Add, Self::Sub, Self::Mul, Self::Div, Self::Equal];

    #[inline(always)]
    fn apply<T: Elementary>(self, a: T, b: T) -> T {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Equal => {
                if a == b {
                    T::one()
                } else {
                    T::zero()
                }
            }
        }
    }

    /// The kernels: of two tensors of one shape, of a tensor and a vector, of a tensor and a number.
    const fn kernels(self) -> [&'static str; 3] {
        match self {
            Self::Add => [
                "elementwise_add",
                "elementwise_add_vector",
                "elementwise_add_scalar",
            ],
            Self::Sub => [
                "elementwise_sub",
                "elementwise_sub_vector",
                "elementwise_sub_scalar",
            ],
            Self::Mul => [
                "elementwise_mul",
                "elementwise_mul_vector",
                "elementwise_mul_scalar",
            ],
            Self::Div => [
                "elementwise_div",
                "elementwise_div_vector",
                "elementwise_div_scalar",
            ],
            Self::Equal => [
                "elementwise_equal",
                "elementwise_equal_vector",
                "elementwise_equal_scalar",
            ],
        }
    }
}

/// How the second operand meets the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broadcast {
    /// Element by element: both have one shape.
    Full,
    /// `[d]` meets every row of `[N, d]`.
    Row,
    /// `[N]` meets every column of `[N, d]`.
    Column,
    /// `[1]` meets every element.
    Scalar,
}

impl Broadcast {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Full, Self::Row, Self::Column, Self::Scalar];

    /// What the second operand's gradient is summed over.
    const fn summed(self) -> Option<Over> {
        match self {
            Self::Full => None,
            Self::Row => Some(Over::Rows),
            Self::Column => Some(Over::Columns),
            Self::Scalar => Some(Over::All),
        }
    }
}

/// `(a, b) → a ∘ b`, of `a`'s shape. The broadcast is an attribute, because the shapes of a square matrix and a
/// vector do not tell which one is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elementwise {
    /// Which operation.
    pub kind: BinaryKind,
    /// How `b` meets `a`.
    pub broadcast: Broadcast,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("elementwise"));

impl OpRule for Elementwise {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [a, b] = x else {
            return Err("two floats are wanted".into());
        };
        if a.dtype != b.dtype || !a.dtype.is_compute() {
            return Err("two floats of one type are wanted".into());
        }
        let good = match (self.broadcast, a.matrix()) {
            (Broadcast::Full, _) => a.shape == b.shape,
            (Broadcast::Row, Some((_, d))) => b.shape == [d],
            (Broadcast::Column, Some((n, _))) => b.shape == [n],
            (Broadcast::Scalar, _) => **b == TensorType::scalar(a.dtype),
            (Broadcast::Row | Broadcast::Column, None) => false,
        };
        if good {
            return Ok(vec![(*a).clone()]);
        }
        Err(match self.broadcast {
            Broadcast::Full => "two tensors of one shape are wanted".into(),
            Broadcast::Row => "a matrix and a vector of its width are wanted".into(),
            Broadcast::Column => "a matrix and a vector of its height are wanted".into(),
            Broadcast::Scalar => "a tensor and one number are wanted".into(),
        })
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let n = cx.elements(0);
        let [full, vector, scalar] = self.kind.kernels();
        let operands: &[usize] = match self.broadcast {
            Broadcast::Full => &[0, 1],
            Broadcast::Row | Broadcast::Column | Broadcast::Scalar => &[0],
        };
        let mut list = Launches::of(stored_in(cx, operands, &[0])?);
        let steps = match self.broadcast {
            Broadcast::Full => {
                list.fours("elementwise", full, n, args![In(0), In(1), Out(0), n]);
                return Some(list);
            }
            Broadcast::Scalar => {
                list.fours("elementwise", scalar, n, args![In(0), In(1), Out(0), n]);
                return Some(list);
            }
            Broadcast::Row => (0_u32, 1_u32),
            Broadcast::Column => (1, 0),
        };
        let (rows, d) = (cx.rows(0), cx.width(0));
        let args = args![In(0), In(1), Out(0), d as u32, steps.0, steps.1];
        list.rows("elementwise", vector, rows, d, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (kind, broadcast) = (self.kind, self.broadcast);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            if broadcast == Broadcast::Full {
                for_operands::<T>(io, |a, b| apply(kind, a, b));
                return Ok(());
            }
            let b = io.input(1).slice::<T>();
            let a = io.taken.is_none().then(|| io.input(0).slice::<T>());
            let d = io.outputs[0].dims.get(1).copied().unwrap_or(1);
            for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, rows| {
                if let Some(a) = a {
                    rows.copy_from_slice(part(a, first * d, rows.len()));
                }
                let each = rows.chunks_exact_mut(d);
                match broadcast {
                    Broadcast::Column => each.zip(&b[first..]).for_each(|(row, &b)| apply_one(kind, row, b)),
                    Broadcast::Scalar => apply_one(kind, rows, b[0]),
                    Broadcast::Row | Broadcast::Full => each.for_each(|row| apply(kind, row, b)),
                }
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None, None];
        };
        let (a, by, out) = (at.inputs[0], at.inputs[1], at.outputs[0]);
        let first = at.needs[0].then(|| match self.kind {
            BinaryKind::Mul | BinaryKind::Div => b.push1(self.clone(), &[up, by]),
            _ => up,
        });
        let second = at.needs[1].then(|| match self.kind {
            BinaryKind::Sub => {
                let sum = self.sum(b, up);
                negative(b, sum)
            }
            BinaryKind::Mul => self.sum_of_product(b, up, a),
            // By the quotient, which is kept more often than the first operand.
            BinaryKind::Div => {
                let sum = self.sum_of_product(b, up, out);
                let quotient = Self {
                    kind: BinaryKind::Div,
                    broadcast: Broadcast::Full,
                };
                let slope = b.push1(quotient, &[sum, by]);
                negative(b, slope)
            }
            _ => self.sum(b, up),
        });
        vec![first, second]
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn differentiable(&self, _: usize) -> bool {
        self.kind != BinaryKind::Equal
    }

    fn in_place(&self) -> &'static [usize] {
        match self.broadcast {
            Broadcast::Full => &[0, 1],
            Broadcast::Row | Broadcast::Column | Broadcast::Scalar => &[0],
        }
    }
}

impl Elementwise {
    /// A gradient of the result's shape, summed to that of the second operand.
    fn sum(&self, b: &mut Builder, up: Value) -> Value {
        let kind = ReduceKind::Sum;
        let sum = |over| b.push1(Reduce { kind, over }, &[up]);
        self.broadcast.summed().map_or(up, sum)
    }

    /// `up · x`, so summed.
    fn sum_of_product(&self, b: &mut Builder, up: Value, x: Value) -> Value {
        if self.broadcast == Broadcast::Row {
            return b.push1(SumRowsProduct, &[up, x]);
        }
        let product = Self {
            kind: BinaryKind::Mul,
            broadcast: Broadcast::Full,
        };
        let product = b.push1(product, &[up, x]);
        self.sum(b, product)
    }
}

fn negative(b: &mut Builder, x: Value) -> Value {
    let kind = UnaryKind::Neg;
    b.push1(Unary { kind }, &[x])
}

/// Runs a loop for one kind, so that each vectorises.
macro_rules! each_kind {
    ($kind:expr, $run:ident) => {
        match $kind {
            BinaryKind::Add => $run!(BinaryKind::Add),
            BinaryKind::Sub => $run!(BinaryKind::Sub),
            BinaryKind::Mul => $run!(BinaryKind::Mul),
            BinaryKind::Div => $run!(BinaryKind::Div),
            BinaryKind::Equal => $run!(BinaryKind::Equal),
        }
    };
}

/// `out ← out ∘ b`
fn apply<T: Elementary>(kind: BinaryKind, out: &mut [T], b: &[T]) {
    macro_rules! run {
        ($kind:expr) => {
            simd!(<T> (out: &'a mut [T] = out, b: &'a [T] = b) {
                for (o, &b) in out.iter_mut().zip(b) {
                    *o = $kind.apply(*o, b);
                }
            })
        };
    }
    each_kind!(kind, run);
}

/// `out ← out ∘ b` for one number.
fn apply_one<T: Elementary>(kind: BinaryKind, out: &mut [T], b: T) {
    macro_rules! run {
        ($kind:expr) => {
            simd!(<T> (out: &'a mut [T] = out, b: T = b) {
                for o in out.iter_mut() {
                    *o = $kind.apply(*o, b);
                }
            })
        };
    }
    each_kind!(kind, run);
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random, random_positive};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|op, _| match op {
        super::Op::Elementwise(op) if op.broadcast == Broadcast::Full => (vec![0, 1], vec![0]),
        _ => (vec![0], vec![0]),
    });
    let second = |broadcast, rows: usize, d: usize| match broadcast {
        Broadcast::Full => vec![rows, d],
        Broadcast::Row => vec![d],
        Broadcast::Column => vec![rows],
        Broadcast::Scalar => vec![1],
    };
    for kind in BinaryKind::ALL {
        for broadcast in Broadcast::ALL {
            let op = Elementwise { kind, broadcast };
            // A square matrix too, whose rows and columns have one length.
            for (rows, d) in [(6, 5), (4, 4)] {
                let b = random_positive(5, &second(broadcast, rows, d));
                all.sample(op.clone(), [random(4, &[rows, d]), b]);
            }
            let few = if kind == BinaryKind::Mul {
                SHAPES.len()
            } else {
                2
            };
            for (rows, d) in SHAPES.into_iter().rev().take(few) {
                let b = super::fixtures::narrow(&random_positive(5, &second(broadcast, rows, d)));
                all.case(op.clone(), [matrix(4, rows, d), b]);
            }
            let b = random_positive(7, &second(broadcast, 300, 128));
            all.large(op, [random(6, &[300, 128]), b]);
        }
        let op = |broadcast| Elementwise { kind, broadcast };
        all.sample(
            op(Broadcast::Full),
            [random(8, &[7]), random_positive(9, &[7])],
        );
        all.sample(
            op(Broadcast::Scalar),
            [random(8, &[7]), random_positive(9, &[1])],
        );
    }
    // Equal elements, and what is no number.
    let x = super::Tensor::new(
        vec![1.0_f32, 2.0, f32::NAN, -0.0, f32::INFINITY, 3.0],
        &[2, 3],
    );
    let y = super::Tensor::new(
        vec![1.0_f32, 2.5, f32::NAN, 0.0, f32::INFINITY, 4.0],
        &[2, 3],
    );
    for kind in BinaryKind::ALL {
        let broadcast = Broadcast::Full;
        all.case(Elementwise { kind, broadcast }, [x.clone(), y.clone()]);
    }
    all
}
