//! The program that gives what enters linear maps, before a training whose pairs begin with its principal components (EVA).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::derive::components::{Claim, Components, Eva, Half, Pca};
use super::super::method::Tuning;
use super::super::net::{Init, Mode, Net, Param};
use super::super::task::Reads;
use super::job::{Fit, batch_sizes};
use super::network::{measured, options, verified};
use super::{Diag, StageCx};
use crate::library::error::{BAD_METHOD_VALUES, CONFLICTING_KEYS};
use crate::program::passes::remove_dead;
use crate::program::{Bindings, Builder, Sym, Value, Verified};

/// What is run before such a training.
#[derive(Debug)]
pub struct Activations {
    /// The bare backbone over a batch. Its outputs are what enters the maps.
    pub program: Verified,
    /// The network it is of.
    pub params: Vec<Param>,
    /// How components are found.
    pub how: Eva,
    /// Inputs that have components of their own.
    pub sources: Vec<Source>,
    /// The maps, in the order of the network, each with what it claims of them.
    pub maps: Vec<(Arc<Components>, Claim)>,
    /// The tensors that begin with them: names with the place of their map.
    pub tensors: Vec<(String, Half, usize)>,
}

/// What enters one or several maps.
#[derive(Debug)]
pub struct Source {
    /// Names of outputs: one each time that the maps are used.
    pub outputs: Vec<String>,
    /// Its width.
    pub width: u64,
    /// The most components of its maps.
    pub room: u64,
}

impl Source {
    /// An upper bound of the bytes that a batch of so many rows takes beside its components.
    #[must_use]
    pub fn scratch_bytes(&self, rows: u64) -> u64 {
        Pca::scratch_bytes(self.width, self.room, rows)
    }
}

impl Activations {
    /// Ranks to share out.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.maps.iter().map(|(by, _)| by.rank).sum()
    }

    /// Bytes that all of the components take while they are sought.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let all = self.sources.iter();
        all.map(|s| Pca::bytes(s.width, s.room)).sum()
    }

    /// An upper bound of the bytes that a batch of so many rows takes beside them.
    #[must_use]
    pub fn scratch_bytes(&self, rows: u64) -> u64 {
        let all = self.sources.iter();
        all.map(|s| s.scratch_bytes(rows)).max().unwrap_or(0)
    }

    /// Bytes of what the tensors begin with.
    #[must_use]
    pub fn made_bytes(&self) -> u64 {
        let all = self.tensors.iter();
        let each = all.filter_map(|(_, half, map)| {
            let (by, _) = self.maps.get(*map)?;
            Some(match half {
                Half::Rows => 4 * by.room() * by.input,
                Half::Factors => 4 * by.room(),
            })
        });
        each.sum()
    }

    /// Bytes of the program's outputs for sizes.
    #[must_use]
    pub fn output_bytes(&self, sizes: &Bindings) -> u64 {
        output_bytes(&self.program, sizes)
    }

    /// An upper bound of the rows that count of an output for sizes.
    #[must_use]
    pub fn rows(&self, sizes: &Bindings, reads: Option<&Reads>) -> u64 {
        let all = sizes.get(Sym::Tokens).max(sizes.get(Sym::SourceTokens));
        let read = sizes.get(Sym::Read);
        match reads.filter(|_| self.how.learned) {
            Some(Reads::Masked(_) | Reads::Labelled(_)) => read,
            // A text's first token may count, too.
            Some(Reads::Next(_)) => all.min(read + sizes.get(Sym::Sequences)),
            Some(
                Reads::Parts(_) | Reads::Options | Reads::Anchors { .. } | Reads::Targets { .. },
            )
            | None => all,
        }
    }
}

/// Bytes of a program's outputs for sizes.
pub(super) fn output_bytes(of: &Verified, sizes: &Bindings) -> u64 {
    let program = of.program();
    let all = program.outputs.iter();
    all.map(|(_, value)| program.ty(*value).bytes(sizes)).sum()
}

/// A batch of the pass.
#[derive(Debug)]
pub struct Part {
    /// Its examples.
    pub examples: Vec<u32>,
    /// Its sizes.
    pub sizes: Bindings,
}

/// The batches of the pass in its order, and how many of them it looks at in any case: the micro-batches of the first epoch.
/// First come those that no other is as large as in every size, which are looked at whatever is known by then. So the pass
/// always reaches the memory that it is planned with. Among these and among the others the order is the epoch's.
#[must_use]
pub fn pass(fit: &Fit, lengths: &[u32]) -> (Vec<Part>, usize) {
    let order = fit.order(lengths.len(), 0);
    let length = |example: u32| lengths.get(example as usize).map_or(0, |&n| u64::from(n));
    let batches = fit.batches(&order, &length).into_iter();
    let batches = batches.filter_map(|range| order.get(range));
    let parts = batches.flat_map(|batch| {
        let sizes = batch_sizes(lengths, batch, fit.micro_batch, fit.reads.as_ref());
        let examples = batch.chunks(fit.micro_batch.max(1) as usize);
        examples.zip(sizes).map(|(examples, sizes)| Part {
            examples: examples.to_vec(),
            sizes,
        })
    });
    largest_first(parts.collect())
}

/// Batches with those first that no other is as large as in every size, and how many those are.
fn largest_first(parts: Vec<Part>) -> (Vec<Part>, usize) {
    let mut largest = Bindings::pareto(parts.iter().map(|part| part.sizes), 0);
    let (mut first, rest): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|part| {
        let own = largest.iter().position(|sizes| *sizes == part.sizes);
        own.map(|place| largest.swap_remove(place)).is_some()
    });
    let certain = first.len();
    first.extend(rest);
    (first, certain)
}

/// A parameter that begins with components.
type Asked = (String, Arc<Components>, Half);

/// The program, if any of a stage's parameters begins with components.
///
/// # Errors
/// Two methods of the stage find them in different ways, gradients are measured too (`is_measured`), or the backbone
/// alone does not show what enters a map.
pub(super) fn activations(
    cx: &StageCx<'_>,
    params: &[Param],
    is_measured: bool,
) -> Result<Option<Activations>, Vec<Diag>> {
    let asked = |param: &Param| match &param.init {
        Init::Component { by, half } => Some((param.name.clone(), by.clone(), *half)),
        _ => None,
    };
    let asked: Vec<Asked> = params.iter().filter_map(asked).collect();
    let Some(how) = asked.first().map(|(_, by, _)| by.how) else {
        return Ok(None);
    };
    if asked.iter().any(|(_, by, _)| by.how != how) {
        let message =
            "two methods of this stage begin with components that are found in different ways";
        let help = "write the same `eva_…` keys in both";
        return Err(vec![
            Diag::error(&CONFLICTING_KEYS, cx.span, message).help(help),
        ]);
    }
    if cx.tuning.marking().virtual_tokens > 0 {
        let message = "`init = eva` begins with what enters the maps of the backbone alone, and another method of this stage puts virtual tokens into the texts";
        let help = "write another `init`, or train the virtual tokens in a stage of their own";
        return Err(vec![
            Diag::error(&CONFLICTING_KEYS, cx.span, message).help(help),
        ]);
    }
    if is_measured {
        let message = "`init = eva` and another method of this stage both begin with what is measured of the backbone, and only one of them can";
        let help = "write another `init`, or train the other method in a stage of its own";
        return Err(vec![
            Diag::error(&CONFLICTING_KEYS, cx.span, message).help(help),
        ]);
    }
    let paths: BTreeSet<String> = asked.iter().map(|(_, by, _)| by.site.clone()).collect();
    let bare = Tuning::bare(cx.tuning.n_layers);
    let mut b = Builder::with_numbers("activations", measured(cx));
    let (found, own) = inputs(&mut b, cx, (&bare, paths));
    let (sources, maps) = grouped(&mut b, &found, &asked);
    let mut tensors = Vec::new();
    for (name, by, half) in asked {
        let Some(map) = maps.iter().position(|(own, _)| own.site == by.site) else {
            let message = format!(
                "`{name}` is to begin with components of what enters `{}`, and nothing enters it in the backbone alone",
                by.site
            );
            let help = "write another `init`, or place the method on maps of the blocks";
            return Err(vec![
                Diag::error(&BAD_METHOD_VALUES, cx.span, message).help(help),
            ]);
        };
        tensors.push((name, half, map));
    }
    Ok(Some(Activations {
        program: verified(remove_dead(&b.finish())),
        params: own,
        how,
        sources,
        maps,
        tensors,
    }))
}

/// What enters the linear maps of these paths in the bare backbone, all tokens of it, and the network's parameters.
fn inputs(
    b: &mut Builder,
    cx: &StageCx<'_>,
    (bare, paths): (&Tuning, BTreeSet<String>),
) -> (Vec<(String, Value)>, Vec<Param>) {
    let options = options(cx, bare, Mode::Evaluate);
    let mut net = Net::new(b, bare, options);
    net.note(paths);
    cx.model.encode(&mut net);
    let inputs = net.inputs().to_vec();
    (inputs, net.finish().0)
}

/// Maps that read the same have their components together: what enters them becomes outputs of the program.
fn grouped(
    b: &mut Builder,
    found: &[(String, Value)],
    asked: &[Asked],
) -> (Vec<Source>, Vec<(Arc<Components>, Claim)>) {
    let mut entering: Vec<Vec<Value>> = Vec::new();
    let (mut sources, mut maps) = (Vec::<Source>::new(), Vec::<(Arc<Components>, Claim)>::new());
    for (path, _) in found {
        let Some((_, by, _)) = asked.iter().find(|(_, by, _)| by.site == *path) else {
            continue;
        };
        if maps.iter().any(|(by, _)| by.site == *path) {
            continue;
        }
        let own = found.iter().filter(|(other, _)| other == path);
        let values: Vec<Value> = own.map(|(_, value)| *value).collect();
        let known = entering.iter().position(|other| *other == values);
        let of = known.unwrap_or(entering.len());
        if known.is_none() {
            let outputs = values.iter().enumerate().map(|(i, value)| {
                let name = format!("input.{of}.{i}");
                b.output(&name, *value);
                name
            });
            sources.push(Source {
                outputs: outputs.collect(),
                width: by.input,
                room: 0,
            });
            entering.push(values);
        }
        if let Some(source) = sources.get_mut(of) {
            source.room = source.room.max(by.room());
        }
        let room = by.room() as usize;
        maps.push((by.clone(), Claim { of, room }));
    }
    (sources, maps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batches_come_first_and_the_others_keep_their_order() {
        let part = |(i, lengths): (usize, &[usize])| Part {
            examples: vec![i as u32],
            sizes: Bindings::of_lengths(lengths.iter().copied()),
        };
        let all: [&[usize]; 6] = [&[3, 3], &[1, 9], &[6, 6], &[2, 9], &[6, 6], &[1]];
        let (parts, certain) = largest_first(all.into_iter().enumerate().map(part).collect());
        // Most tokens, and the longest text; of two that are alike the first.
        let order: Vec<u32> = parts.iter().flat_map(|p| p.examples.clone()).collect();
        assert_eq!((order, certain), (vec![2, 3, 0, 1, 4, 5], 2));
        assert_eq!(largest_first(Vec::new()).1, 0);
    }
}
