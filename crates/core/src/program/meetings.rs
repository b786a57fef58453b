//! Products that programs on the same weights do together, each once over the rows of all of them: where they are, in which
//! order they come, and what memory it takes.
//!
//! Between two such products each program goes on with its own rows, so a method needs to know nothing of it: what it adds
//! to a product, or makes of its rows before, is in its own program.

use std::collections::BTreeMap;

use super::graph::{Class, Node, Program, Value};
use super::memory::{cost, sized};
use super::op::{Epilogue, Machine, MatMul, Op, SizedCx};
use super::stored::workspace;
use super::types::{Bindings, TensorType};
use super::verify::Verified;

/// A product of rows with frozen weights that other programs read as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The node.
    pub node: usize,
    /// What is done with which weights: products of one name can be done together.
    name: String,
}

/// A product that is done once for several programs: the place of each among them, and its node.
pub type Turn = Vec<(usize, usize)>;

/// A program with rows, beside others.
#[derive(Clone, Copy, Debug)]
pub struct Walker<'a> {
    /// The program.
    pub program: &'a Verified,
    /// Its sizes.
    pub sizes: &'a Bindings,
    /// What it has alive, under these sizes.
    pub alive: &'a Alive,
}

/// Bytes that a program has alive on the processor, its residents not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alive {
    /// Before each node.
    before: Vec<u64>,
    /// While it runs, its scratch included.
    during: Vec<u64>,
}

/// The products of a program that others on the same weights can do together with it, in their order. `is_own` tells
/// which residents are the model's own.
#[must_use]
pub fn meetings(verified: &Verified, is_own: &dyn Fn(&str) -> bool) -> Vec<Meeting> {
    let program = verified.program();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let each = program.nodes.iter().enumerate().filter_map(|(node, own)| {
        let name = product(program, own, is_own)?;
        // Layers may share their weights.
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        let name = format!("{count} {name}");
        Some(Meeting { node, name })
    });
    each.collect()
}

/// Whether these are at least half of a program's operations under sizes.
#[must_use]
pub fn are_most(verified: &Verified, meetings: &[Meeting], sizes: &Bindings) -> bool {
    let program = verified.program();
    let nodes = meetings.iter().filter_map(|m| program.nodes.get(m.node));
    let each = nodes.map(|node| node.op.rule().cost(&sized(program, node, sizes)).flops);
    2 * each.sum::<u64>() >= cost(program, sizes).flops
}

/// The products that several of these programs do together, in an order in which each comes to its own. Those that they
/// come to in another order are done by each for itself.
#[must_use]
pub fn turns(programs: &[&[Meeting]]) -> Vec<Turn> {
    let places: Vec<BTreeMap<&str, usize>> = programs
        .iter()
        .map(|list| list.iter().map(|m| m.name.as_str()).zip(0..).collect())
        .collect();
    let mut heads = vec![0_usize; programs.len()];
    let mut turns = Vec::new();
    loop {
        let next = |p: usize| programs.get(p)?.get(*heads.get(p)?);
        let here: Vec<&Meeting> = (0..programs.len()).filter_map(next).collect();
        // How many programs come to it only later.
        let late = |name: &str| {
            let all = places.iter().zip(&heads);
            all.filter(|(own, head)| own.get(name).is_some_and(|at| at > head))
                .count()
        };
        let Some(chosen) = here.iter().min_by_key(|m| late(&m.name)) else {
            return turns;
        };
        let is_here = |p: &usize| next(*p).is_some_and(|m| m.name == chosen.name);
        let members: Vec<usize> = (0..programs.len()).filter(is_here).collect();
        let turn = members.iter().filter_map(|&p| Some((p, next(p)?.node)));
        let turn: Turn = turn.collect();
        for p in members {
            if let Some(head) = heads.get_mut(p) {
                *head += 1;
            }
        }
        if turn.len() > 1 {
            turns.push(turn);
        }
    }
}

/// The most bytes that programs have alive on the processor, residents not counted, where they take these turns and end
/// one after another.
#[must_use]
pub fn most_beside(walkers: &[Walker<'_>], turns: &[Turn], machine: &Machine) -> u64 {
    let mut beside = Beside {
        live: walkers.iter().map(|own| own.alive.at(0)).collect(),
        heads: vec![0; walkers.len()],
        walkers,
        most: 0,
    };
    for turn in turns {
        for &(place, node) in turn {
            beside.advance(place, node);
        }
        beside.meet(turn, machine);
    }
    for (place, own) in walkers.iter().enumerate() {
        beside.advance(place, own.alive.before.len());
    }
    beside.most
}

/// The name of a node that is such a product.
fn product(program: &Program, node: &Node, is_own: &dyn Fn(&str) -> bool) -> Option<String> {
    let Op::MatMul(op) = &node.op else {
        return None;
    };
    let (&left, right) = node.inputs.split_first()?;
    if op.a_t || op.epilogue == Epilogue::Accumulate || program.resident(left).is_some() {
        return None;
    }
    let op = MatMul {
        detached: false,
        ..op.clone()
    };
    let mut name = format!("{op:?}");
    for &value in right {
        let of = program.resident(value)?;
        if of.class != Class::Frozen || is_own(&of.name) {
            return None;
        }
        name.push_str(&format!(" {} {}", of.name, of.ty));
    }
    for &value in [left].iter().chain(&node.outputs) {
        let ty = program.ty(value);
        let (_, columns) = ty.matrix()?;
        name.push_str(&format!(" {columns} {} {}", ty.dtype, ty.stored));
    }
    Some(name)
}

/// A type of so many rows.
#[must_use]
pub fn of_rows(ty: &TensorType, rows: u64) -> TensorType {
    let dims = ty.shape.iter().enumerate();
    let dims = dims.map(|(i, dim)| if i == 0 { rows.into() } else { *dim });
    TensorType::new(ty.dtype, dims).stored_as(ty.stored)
}

impl Alive {
    /// Of a program under sizes.
    #[must_use]
    pub fn of(verified: &Verified, sizes: &Bindings, machine: &Machine) -> Self {
        let (program, schedule) = (verified.program(), verified.schedule());
        let bytes = |value: &Value| program.ty(*value).bytes(sizes);
        let mut live: u64 = program.feeds().map(|(_, value)| bytes(&value)).sum();
        let mut own = Self::default();
        for (node, step) in program.nodes.iter().zip(&schedule.steps) {
            own.before.push(live);
            let taken = step.takes.and_then(|i| node.inputs.get(i));
            live = live.saturating_sub(taken.map_or(0, bytes));
            live += node.outputs.iter().map(bytes).sum::<u64>();
            let scratch = workspace(&node.op, &sized(program, node, sizes), step.takes, machine);
            own.during.push(live + scratch);
            live = live.saturating_sub(step.frees.iter().map(bytes).sum());
        }
        own
    }

    /// Before a node; nothing behind the last, where all is handed back.
    fn at(&self, node: usize) -> u64 {
        self.before.get(node).copied().unwrap_or(0)
    }

    /// The most at once.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.during.iter().copied().max().unwrap_or(0)
    }
}

/// Programs on their way.
struct Beside<'a> {
    walkers: &'a [Walker<'a>],
    live: Vec<u64>,
    heads: Vec<usize>,
    most: u64,
}

impl Beside<'_> {
    /// One program runs up to a node.
    fn advance(&mut self, place: usize, to: usize) {
        let (Some(own), Some(head), Some(live)) = (
            self.walkers.get(place),
            self.heads.get(place).copied(),
            self.live.get(place).copied(),
        ) else {
            return;
        };
        let others = self.live.iter().sum::<u64>() - live;
        let during = own.alive.during.get(head..to).unwrap_or_default();
        let most = during.iter().max().map_or(0, |most| others + most);
        self.most = self.most.max(most);
        self.stand(place, to);
    }

    /// One program stands before a node.
    fn stand(&mut self, place: usize, node: usize) {
        let at = self.walkers.get(place).map_or(0, |own| own.alive.at(node));
        if let (Some(head), Some(live)) = (self.heads.get_mut(place), self.live.get_mut(place)) {
            (*head, *live) = (node, at);
        }
    }

    /// Some do a product together: of copies of their rows, into a result that is parted.
    fn meet(&mut self, turn: &Turn, machine: &Machine) {
        let mut rows = 0;
        let mut of: Option<(&Program, &Node)> = None;
        for &(place, node) in turn {
            let Some(own) = self.walkers.get(place) else {
                continue;
            };
            let program = own.program.program();
            let Some(node) = program.nodes.get(node) else {
                continue;
            };
            if let Some(rows_of) = node.outputs.first().map(|v| program.ty(*v).dims(own.sizes)) {
                rows += rows_of.first().copied().unwrap_or(0) as u64;
            }
            of = Some((program, node));
        }
        if let Some((program, node)) = of {
            let (left, out, scratch) = all_rows(program, node, rows, machine);
            let live: u64 = self.live.iter().sum();
            let most = live + (left + out + scratch).max(2 * out);
            self.most = self.most.max(most);
        }
        for &(place, node) in turn {
            self.stand(place, node + 1);
        }
    }
}

/// Bytes of the left side, the result and the scratch of a product of so many rows.
fn all_rows(program: &Program, node: &Node, rows: u64, machine: &Machine) -> (u64, u64, u64) {
    let types = |values: &[Value], joined: usize| -> Vec<TensorType> {
        let each = values.iter().enumerate();
        each.map(|(i, v)| match i < joined {
            true => of_rows(program.ty(*v), rows),
            false => program.ty(*v).clone(),
        })
        .collect()
    };
    let (inputs, outputs) = (types(&node.inputs, 1), types(&node.outputs, 1));
    let none = Bindings::default();
    let first = |list: &[TensorType]| list.first().map_or(0, |ty| ty.bytes(&none));
    let cx = SizedCx::new(
        &inputs.iter().collect::<Vec<_>>(),
        &outputs.iter().collect::<Vec<_>>(),
        &none,
    );
    let scratch = workspace(&node.op, &cx, None, machine);
    (first(&inputs), first(&outputs), scratch)
}
