//! `add_at`: numbers added to a matrix at given places.

use super::launch::{
    Arg, KernelSource, Launch, Launches,
    Operand::{Fault, In, Out},
    args, is_single, source,
};
use super::places::Places;
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TakeAt, TensorType, Value};

/// `(w[rows, columns], values, ids u32[n][, bounds u32]) → w + S`, where `S` has the values at the places, which are distinct.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AddAt {
    /// Where the values are.
    pub places: Places,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("add_at"));

impl OpRule for AddAt {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [w, values, rest @ ..] = x else {
            return Err("a matrix, numbers and places are wanted".into());
        };
        let wanted = self.places.infer(rest)?;
        let fits = w.dtype.is_compute()
            && **w == self.places.matrix(w.dtype)
            && values.dtype == w.dtype
            && values.shape == wanted;
        if fits {
            Ok(vec![(*w).clone()])
        } else {
            Err("a matrix of the size of the places, and a number for each are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (from, to) = (In(0), Out(0));
        list.list.push(Launch::Copy { from, to });
        let Places {
            rows,
            columns,
            side,
            segment,
        } = self.places;
        let mut args = args![Out(0), In(1), In(2)];
        args.push(segment.map_or(Arg::Null, |_| Arg::At(In(3))));
        args.extend(args![
            Fault,
            rows,
            columns,
            side,
            segment.unwrap_or(0),
            cx.elements(2) as u32
        ]);
        list.each("add_at", "add_at", cx.elements(1), args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let ids = io.input(2).slice::<u32>();
        let bounds = self.places.segment.map(|_| io.input(3).slice::<u32>());
        let range = self.places.range(ids.len(), bounds)?;
        let ids = &ids[range.clone()];
        self.places.check(ids)?;
        let (side, width) = (self.places.side as usize, self.places.columns as usize);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let w = (io.taken != Some(0)).then(|| io.input(0).slice::<T>());
            let values = io.input(1).slice::<T>();
            let out = io.outputs[0].slice::<T>();
            if let Some(w) = w {
                out.copy_from_slice(w);
            }
            let area = side * side;
            let values = values[range.start * area..range.end * area].chunks_exact(area);
            for (&id, values) in ids.iter().zip(values) {
                let (row, column) = self.places.corner(id);
                for (a, values) in values.chunks_exact(side).enumerate() {
                    let to = &mut out[(row + a) * width + column..][..side];
                    to.iter_mut().zip(values).for_each(|(o, &x)| *o += x);
                }
            }
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut made = vec![None; at.inputs.len()];
        let Some(up) = at.up[0] else { return made };
        if at.needs[0] {
            made[0] = Some(up);
        }
        if at.needs[1] {
            let mut inputs = vec![up];
            inputs.extend(&at.inputs[2..]);
            made[1] = Some(b.push1(
                TakeAt {
                    places: self.places,
                },
                &inputs,
            ));
        }
        made
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 2
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, matrix, random};
    let mut all = Fixtures::with_same_bits();
    let own = |side, segment| AddAt {
        places: Places {
            rows: 6,
            columns: 4,
            side,
            segment,
        },
    };
    let w = || random(1, &[6, 4]);
    all.sample(own(1, None), [w(), random(3, &[4]), ids(&[0, 23, 7, 14])]);
    all.sample(own(2, None), [w(), random(3, &[6, 2]), ids(&[5, 0, 3])]);
    all.sample(
        own(1, Some(1)),
        [w(), random(3, &[4]), ids(&[0, 23, 7, 14]), ids(&[0, 1, 3])],
    );
    let many: Vec<u32> = (0..4000).map(|i| i * 7919 % 30_000).collect();
    let large = AddAt {
        places: Places::entries(200, 150),
    };
    all.case(large, [matrix(1, 200, 150), list(2, 4000), ids(&many)]);
    all.fault(own(1, None), [matrix(1, 6, 4), list(2, 1), ids(&[24])]);
    all
}
