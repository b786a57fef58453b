//! Programs that run beside one another: each with its own rows, and what products they can do together once for all.
//!
//! **Invariant:** rows of a product do not depend on each other, so a row becomes what it becomes where its program runs alone.

use super::{Frame, Outputs, Runner};
use crate::exec::backend::{Applied, Block, Blocks};
use crate::files::RunError;
use crate::files::tensorfile::{bytes_of, bytes_of_mut};
use crate::program::meetings::{Turn, of_rows};
use crate::program::op::Tensor;
use crate::program::op::launch::Launches;
use crate::program::{Bindings, Feed, Node, TensorType, Value, Verified};

/// A program with its batch.
#[derive(Debug)]
pub struct Run<'a> {
    /// The program.
    pub program: &'a Verified,
    /// Its inputs.
    pub feeds: Vec<(Feed, Tensor)>,
    /// Its sizes.
    pub sizes: &'a Bindings,
}

/// A program on its way.
struct Walker<'a> {
    frame: Frame<'a>,
    /// The node that comes next.
    at: usize,
}

fn bug() -> RunError {
    RunError::bug("programs that run beside one another have lost a value")
}

impl Runner {
    /// Whether programs can run beside one another: where the host sees what they make.
    #[must_use]
    pub fn walks_beside(&self) -> bool {
        self.residents.backend.is_host()
    }

    /// Runs several programs, each on a batch of its own, that do some products together. Must be called inside the
    /// executor's thread pool, and where [`Self::walks_beside`] is true.
    ///
    /// # Errors
    /// As of [`Self::run`].
    pub fn run_beside(
        &mut self,
        runs: Vec<Run<'_>>,
        turns: &[Turn],
    ) -> Result<Vec<Outputs>, RunError> {
        let mut walkers = Vec::with_capacity(runs.len());
        let made = self.all(runs, turns, &mut walkers);
        for walker in walkers {
            self.end(walker.frame);
        }
        made
    }

    fn all<'a>(
        &mut self,
        runs: Vec<Run<'a>>,
        turns: &[Turn],
        walkers: &mut Vec<Walker<'a>>,
    ) -> Result<Vec<Outputs>, RunError> {
        for run in runs {
            let frame = self.frame(run.program, run.sizes)?;
            walkers.push(Walker { frame, at: 0 });
            let walker = walkers.last_mut().ok_or_else(bug)?;
            self.feed(&mut walker.frame, run.feeds)?;
        }
        for turn in turns {
            for &(place, node) in turn {
                let walker = walkers.get_mut(place).ok_or_else(bug)?;
                self.advance(walker, node)?;
            }
            self.meet(walkers, turn)?;
        }
        let mut all = Vec::with_capacity(walkers.len());
        for walker in walkers {
            let end = walker.frame.program().nodes.len();
            self.advance(walker, end)?;
            all.push(self.hand_back(&mut walker.frame)?);
            // Its batch is of no more use.
            for slot in &mut walker.frame.slots {
                if let Some(block) = slot.take() {
                    self.release(block);
                }
            }
        }
        Ok(all)
    }

    /// One program runs up to a node.
    fn advance(&mut self, walker: &mut Walker<'_>, to: usize) -> Result<(), RunError> {
        for node in walker.at..to {
            self.apply(&mut walker.frame, &(node..node + 1))?;
            self.free_behind(&mut walker.frame, node..node + 1);
        }
        walker.at = to;
        Ok(())
    }

    /// Some do the product that they stand before: of copies of their rows, into a result that is parted.
    fn meet(&mut self, walkers: &mut [Walker<'_>], turn: &Turn) -> Result<(), RunError> {
        let (made, each) = self.product(walkers, turn)?;
        let parted = self.part(walkers, turn, (&made, &each));
        self.meter.device().free(made.bytes());
        parted?;
        for &(place, node) in turn {
            let walker = walkers.get_mut(place).ok_or_else(bug)?;
            self.free_behind(&mut walker.frame, node..node + 1);
            walker.at = node + 1;
        }
        Ok(())
    }

    /// The product of the rows of all, and how many bytes of it each has. It is still metered.
    fn product(
        &mut self,
        walkers: &[Walker<'_>],
        turn: &Turn,
    ) -> Result<(Tensor, Vec<usize>), RunError> {
        let (mut blocks, mut counts) = (Vec::new(), Vec::new());
        for &(place, node) in turn {
            let frame = &walkers.get(place).ok_or_else(bug)?.frame;
            let (left, _) = operands(frame, node)?;
            let block = self.operand(frame, left, false).ok_or_else(bug)?;
            let rows = frame.program().ty(left).dims(frame.sizes);
            counts.push(rows.first().copied().unwrap_or(0));
            blocks.push(block);
        }
        let &(place, index) = turn.first().ok_or_else(bug)?;
        let frame = &walkers.get(place).ok_or_else(bug)?.frame;
        let (left, node) = operands(frame, index)?;
        let result = *node.outputs.first().ok_or_else(bug)?;
        let rows: usize = counts.iter().sum();
        let joined = self.joined(&of_rows(frame.program().ty(left), rows as u64), &blocks)?;
        let mut inputs = vec![joined];
        for &value in node.inputs.get(1..).unwrap_or_default() {
            inputs.push(self.operand(frame, value, false).ok_or_else(bug)?);
        }
        let ty = of_rows(frame.program().ty(result), rows as u64);
        let out = self.residents.backend.alloc(&ty, &Bindings::default())?;
        self.meter.device().alloc(out.bytes);
        let label = frame.program().labels.get(node.label as usize);
        let applied = Applied {
            op: &node.op,
            inputs: inputs.len(),
            outputs: 1,
            takes: None,
            site: label.map_or("", String::as_str),
        };
        let blocks = Blocks {
            inputs: &inputs,
            outputs: &[out],
            scratch: &[],
        };
        let backend = &mut self.residents.backend;
        let scratch = backend.apply(&[applied], &Launches::default(), &blocks);
        if let Ok(bytes) = scratch {
            self.meter.device().scratch(bytes);
        }
        self.release(joined);
        let made = self.residents.backend.take(out);
        if let Err(why) = scratch {
            self.meter.device().free(out.bytes);
            return Err(why);
        }
        let made = made.ok_or_else(bug)?;
        let row = bytes_of(&made).len() / rows.max(1);
        Ok((made, counts.into_iter().map(|n| n * row).collect()))
    }

    /// A block with the rows of several, one after another.
    fn joined(&mut self, ty: &TensorType, blocks: &[Block]) -> Result<Block, RunError> {
        let mut joined = Tensor::zeros(ty.stored, &ty.dims(&Bindings::default()));
        let mut rest = bytes_of_mut(&mut joined);
        for block in blocks {
            let own = self.residents.backend.host(*block).ok_or_else(bug)?;
            let own = bytes_of(own);
            let (here, behind) = rest.split_at_mut_checked(own.len()).ok_or_else(bug)?;
            here.copy_from_slice(own);
            rest = behind;
        }
        let adopted = self.residents.backend.adopt(joined);
        let block = adopted.map_err(|_| bug())?;
        self.meter.device().alloc(block.bytes);
        Ok(block)
    }

    /// Gives each its rows of a result.
    fn part(
        &mut self,
        walkers: &mut [Walker<'_>],
        turn: &Turn,
        (made, each): (&Tensor, &[usize]),
    ) -> Result<(), RunError> {
        let mut rest = bytes_of(made);
        for (&(place, node), &bytes) in turn.iter().zip(each) {
            let frame = &mut walkers.get_mut(place).ok_or_else(bug)?.frame;
            let (_, node) = operands(frame, node)?;
            let value = *node.outputs.first().ok_or_else(bug)?;
            let (own, behind) = rest.split_at_checked(bytes).ok_or_else(bug)?;
            rest = behind;
            let block = self.block(frame, value)?;
            frame.put(value, block);
            let to = self.residents.backend.host_mut(block).ok_or_else(bug)?;
            let to = bytes_of_mut(to);
            if to.len() != own.len() {
                return Err(bug());
            }
            to.copy_from_slice(own);
        }
        Ok(())
    }
}

/// The left side of a product, and its node.
fn operands<'a>(frame: &Frame<'a>, node: usize) -> Result<(Value, &'a Node), RunError> {
    let node = frame.program().nodes.get(node).ok_or_else(bug)?;
    Ok((*node.inputs.first().ok_or_else(bug)?, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::meetings::{Alive, Walker, meetings, most_beside, turns};
    use crate::program::op::{Activation, ActivationKind, Add, Epilogue, Machine, MatMul};
    use crate::program::passes::pipeline;
    use crate::program::types::{DType, Real};
    use crate::program::{Axis, Builder, Class};

    const WIDTH: usize = 48;

    /// Two maps that are the model's, with something of its own between, and behind the second if it is a low rank.
    fn program(name: &str, low_rank: bool) -> Verified {
        let mut b = Builder::new(name);
        let x = b.feed(feed());
        let mut resident = |name: &str, dims: &[u64]| {
            b.resident(name, TensorType::fixed(DType::F32, dims), Class::Frozen)
        };
        let (wide, back) = (resident("wide", &[96, 48]), resident("back", &[48, 96]));
        let bias = resident("bias", &[96]);
        let down = resident(&format!("{name}.down"), &[4, 96]);
        let up = resident(&format!("{name}.up"), &[48, 4]);
        let linear = |e| MatMul::linear(Real::new(1.0), e);
        let x = b.push1(linear(Epilogue::Bias), &[x, wide, bias]);
        let kind = match low_rank {
            true => ActivationKind::Gelu,
            false => ActivationKind::Tanh,
        };
        let x = b.push1(Activation { kind }, &[x]);
        let mut y = b.push1(linear(Epilogue::None), &[x, back]);
        if low_rank {
            let low = b.push1(linear(Epilogue::None), &[x, down]);
            y = b.push1(linear(Epilogue::Accumulate), &[low, up, y]);
        }
        let y = b.push1(Add, &[y, y]);
        b.output("scores", y);
        pipeline(b.finish()).expect("a program")
    }

    const fn feed() -> Feed {
        Feed::Feature {
            index: 0,
            width: WIDTH as u32,
            of: Axis::Tokens,
            stored: DType::F32,
        }
    }

    fn floats(n: usize, by: u32) -> Vec<f32> {
        let each = (0..n as u32).map(|i| (i.wrapping_mul(by) >> 9 & 1023) as f32 * 1.7e-3 - 0.8);
        each.collect()
    }

    #[test]
    fn programs_beside_one_another_make_what_each_makes_alone_in_the_memory_that_is_told() {
        let machine = Machine::cpu(2);
        let programs = [program("a", true), program("b", false), program("c", true)];
        let is_own = |name: &str| name.contains('.');
        let met: Vec<_> = programs.iter().map(|own| meetings(own, &is_own)).collect();
        assert!(met.iter().all(|list| list.len() == 2));
        let lists: Vec<_> = met.iter().map(Vec::as_slice).collect();
        let order = turns(&lists);
        assert_eq!(order.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
        for tokens in [[1, 1, 1], [17, 3, 40], [2, 120, 5]] {
            let sizes = tokens.map(|n| Bindings::of_lengths([n]));
            let mut runner = Runner::new(machine);
            for resident in programs.iter().flat_map(|own| &own.program().residents) {
                let dims = resident.ty.dims(&Bindings::default());
                let values = floats(dims.iter().product(), 91_381 + resident.name.len() as u32);
                if !runner.residents.holds(&resident.name) {
                    let meter = &mut crate::exec::interpreter::Meter::default();
                    let tensor = Tensor::new(values, &dims);
                    runner
                        .residents
                        .insert(&resident.name, Class::Frozen, tensor, meter);
                }
            }
            let feeds = |i: usize| {
                let rows = floats(tokens[i] * WIDTH, 77_777 + i as u32);
                vec![(feed(), Tensor::new(rows, &[tokens[i], WIDTH]))]
            };
            let runs = programs.iter().zip(&sizes).enumerate();
            let runs = runs.map(|(i, (program, sizes))| Run {
                program,
                feeds: feeds(i),
                sizes,
            });
            let runs: Vec<Run<'_>> = runs.collect();
            let together = runner.run_beside(runs, &order).expect("runs");
            let alive = [0, 1, 2].map(|i| Alive::of(&programs[i], &sizes[i], &machine));
            let walkers = [0, 1, 2].map(|i| Walker {
                program: &programs[i],
                sizes: &sizes[i],
                alive: &alive[i],
            });
            let told = most_beside(&walkers, &order, &machine);
            assert_eq!(
                (runner.peak(), runner.meter.live()),
                (told, 0),
                "{tokens:?}"
            );
            for (i, made) in together.iter().enumerate() {
                let alone = runner.run(&programs[i], feeds(i), &sizes[i]).expect("runs");
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(made.floats("scores")), bits(alone.floats("scores")));
            }
        }
    }

    #[test]
    fn what_is_met_in_another_order_is_done_alone() {
        let list = |program: &Verified| meetings(program, &|name| name.contains('.'));
        let whole = list(&program("a", true));
        let turned: Vec<_> = whole.iter().rev().cloned().collect();
        let order = turns(&[&whole, &turned, &[]]);
        assert_eq!(order.len(), 1, "{order:?}");
    }
}
