//! `take_at`: the numbers of a matrix at given places, the gradient of `add_at`.

use super::launch::{
    Arg, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, is_single, source,
};
use super::places::Places;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(m[rows, columns], ids u32[n][, bounds u32]) → m` at the places; zero outside of the segment that counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TakeAt {
    /// Which numbers.
    pub places: Places,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("take_at"));

impl OpRule for TakeAt {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [m, rest @ ..] = x else {
            return Err("a matrix and places are wanted".into());
        };
        let shape = self.places.infer(rest)?;
        if m.dtype.is_compute() && **m == self.places.matrix(m.dtype) {
            Ok(vec![TensorType::new(m.dtype, shape)])
        } else {
            Err("a matrix of the size of the places is wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let Places {
            rows,
            columns,
            side,
            segment,
        } = self.places;
        let mut args = args![In(0), In(1)];
        args.push(segment.map_or(Arg::Null, |_| Arg::At(In(2))));
        args.extend(args![
            Out(0),
            Fault,
            rows,
            columns,
            side,
            segment.unwrap_or(0),
            cx.elements(1) as u32
        ]);
        list.each("take_at", "take_at", cx.outputs.first()?.elements(), args);
        Some(list)
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let ids = io.input(1).slice::<u32>();
        let bounds = self.places.segment.map(|_| io.input(2).slice::<u32>());
        let range = self.places.range(ids.len(), bounds)?;
        let ids = &ids[range.clone()];
        self.places.check(ids)?;
        let (side, width) = (self.places.side as usize, self.places.columns as usize);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let m = io.input(0).slice::<T>();
            let out = io.outputs[0].slice::<T>();
            out.fill(0.0);
            let area = side * side;
            let out = out[range.start * area..range.end * area].chunks_exact_mut(area);
            for (&id, out) in ids.iter().zip(out) {
                let (row, column) = self.places.corner(id);
                for (a, out) in out.chunks_exact_mut(side).enumerate() {
                    out.copy_from_slice(&m[(row + a) * width + column..][..side]);
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, matrix, random};
    let mut all = Fixtures::with_same_bits();
    let own = |side, segment| TakeAt {
        places: Places {
            rows: 6,
            columns: 4,
            side,
            segment,
        },
    };
    let m = || random(1, &[6, 4]);
    all.sample(own(1, None), [m(), ids(&[0, 23, 7, 14])]);
    all.sample(own(2, None), [m(), ids(&[5, 0, 3])]);
    all.sample(
        own(1, Some(1)),
        [m(), ids(&[0, 23, 7, 14]), ids(&[0, 1, 3])],
    );
    let many: Vec<u32> = (0..4000).map(|i| i * 7919 % 30_000).collect();
    let large = TakeAt {
        places: Places::entries(200, 150),
    };
    all.case(large, [matrix(1, 200, 150), ids(&many)]);
    all.fault(own(1, None), [matrix(1, 6, 4), ids(&[24])]);
    all
}
