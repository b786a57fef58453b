//! One application that is compared.

use super::fixtures::{eval, floats, sizes, ty};
use super::*;

/// One application to run.
pub(super) struct Case {
    pub(super) op: Op,
    pub(super) inputs: Vec<Tensor>,
    pub(super) taken: Option<usize>,
    /// Whether an index is outside its table.
    pub(super) bad: bool,
    /// What is launched, if it is no single application.
    pub(super) given: Option<Launches>,
    /// Which inputs and outputs are stored in 16 bits, and in which.
    pub(super) stored_in: Option<(DType, Vec<usize>, Vec<usize>)>,
    /// The input that holds the offsets of sequences.
    pub(super) offsets: Option<usize>,
}

impl Case {
    pub(super) fn new(op: impl Into<Op>, inputs: Vec<Tensor>) -> Self {
        Self {
            op: op.into(),
            inputs,
            taken: None,
            bad: false,
            given: None,
            stored_in: None,
            offsets: None,
        }
    }

    /// The same with some operands stored in 16 bits.
    pub(super) fn stored_in(&self, dtype: DType, inputs: &[usize], outputs: &[usize]) -> Self {
        let own = self.inputs.iter().enumerate();
        let own = own.map(|(i, x)| match inputs.contains(&i) {
            true => x.cast(dtype),
            false => x.clone(),
        });
        Self {
            stored_in: Some((dtype, inputs.to_vec(), outputs.to_vec())),
            offsets: self.offsets,
            ..Self::new(self.op.clone(), own.collect())
        }
    }

    /// Types of the inputs, as computed and stored.
    pub(super) fn types(&self) -> Vec<TensorType> {
        let all = self.inputs.iter().enumerate();
        all.map(|(i, x)| match &self.stored_in {
            Some((dtype, inputs, _)) if inputs.contains(&i) => TensorType {
                dtype: DType::F32,
                ..ty(x)
            }
            .stored_as(*dtype),
            _ => ty(x),
        })
        .collect()
    }

    /// What the CPU makes of the inputs: of those stored in 16 bits, widened; what is so stored, rounded.
    pub(super) fn expected(&self) -> Vec<Tensor> {
        let Some((dtype, inputs, outputs)) = &self.stored_in else {
            return eval(&self.op, &self.inputs, 2);
        };
        let wide = self.inputs.iter().enumerate();
        let wide = wide.map(|(i, x)| match inputs.contains(&i) {
            true => x.cast(DType::F32),
            false => x.clone(),
        });
        let made = eval(&self.op, &wide.collect::<Vec<_>>(), 2)
            .into_iter()
            .enumerate();
        made.map(|(i, x)| match outputs.contains(&i) {
            true => x.cast(*dtype),
            false => x,
        })
        .collect()
    }

    /// In what numbers its product is, if it is one.
    pub(super) fn precision(&self) -> Precision {
        match &self.op {
            Op::MatMul(product) => product.precision,
            _ => Precision::F32,
        }
    }

    /// The largest difference of a product from that of the same operands, rounded to bf16, in f64, relative to
    /// the sum of its terms' sizes.
    pub(super) fn off_from_rounded(&self, got: &[f64]) -> f64 {
        let Op::MatMul(op) = &self.op else {
            panic!("no product");
        };
        let wide = |t: &Tensor| -> Vec<f64> {
            match (t.slice::<f32>(), t.slice::<bf16>()) {
                (Some(x), _) => x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect(),
                (_, Some(x)) => x.iter().map(|x| x.to_f64()).collect(),
                _ => floats(&t.cast(DType::F32))
                    .iter()
                    // Not from f64 at once, which drops bits that decide a tie.
                    .map(|&x| bf16::from_f32(x as f32).to_f64())
                    .collect(),
            }
        };
        let (a, b) = (wide(&self.inputs[0]), wide(&self.inputs[1]));
        let added = self.inputs.get(2).map(|t| t.slice::<f32>().expect("f32"));
        let dims = &self.outputs()[0].dims(&Bindings::default());
        let (m, n) = (dims[0], dims[1]);
        let k = a.len() / m;
        let mut most = 0.0_f64;
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let terms = (0..k).map(|p| {
                let x = a[if op.a_t { p * m + i } else { i * k + p }];
                x * b[if op.b_t { j * k + p } else { p * n + j }]
            });
            let (sum, size) = terms.fold((0.0, 0.0), |(s, z): (f64, f64), t| (s + t, z + t.abs()));
            let more = match (op.epilogue, added) {
                (Epilogue::Bias, Some(x)) => f64::from(x[j]),
                (Epilogue::Accumulate, Some(x)) => f64::from(x[i * n + j]),
                _ => 0.0,
            };
            let want = op.alpha.get() * sum + more;
            most = most.max((got[i * n + j] - want).abs() / (size + more.abs() + 1e-6));
        }
        most
    }

    pub(super) fn outputs(&self) -> Vec<TensorType> {
        if self.given.is_some() {
            return Vec::new();
        }
        let types: Vec<TensorType> = self.types().iter().map(TensorType::computed).collect();
        let made = self
            .op
            .rule()
            .infer(&types.iter().collect::<Vec<_>>())
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.op));
        let stored_in = |(i, ty): (usize, TensorType)| match &self.stored_in {
            Some((dtype, _, outputs)) if outputs.contains(&i) => ty.stored_as(*dtype),
            _ => ty,
        };
        made.into_iter().enumerate().map(stored_in).collect()
    }

    /// The batch, as the offsets say.
    fn sizes(&self) -> Bindings {
        sizes(&self.op, &self.inputs, self.offsets)
    }

    pub(super) fn launches(&self) -> Launches {
        if let Some(given) = &self.given {
            return given.clone();
        }
        let (inputs, outputs) = (self.types(), self.outputs());
        let cx = SizedCx::new(
            &inputs.iter().collect::<Vec<_>>(),
            &outputs.iter().collect::<Vec<_>>(),
            &self.sizes(),
        );
        let found = stored::launches(&self.op, &cx);
        found.unwrap_or_else(|| panic!("{:?} has no launches", self.op))
    }
}

pub(super) fn bytes(t: &Tensor) -> Vec<u8> {
    assert!(t.dtype() != DType::F64, "no type of a device");
    t.storage.bytes().to_vec()
}
