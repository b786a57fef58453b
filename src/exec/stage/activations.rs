//! Principal components of what enters linear maps, before a training: the bare backbone over the first epoch's batches, the
//! largest first, again and again until all components that count are known.

use super::aside;
use crate::exec::interpreter::{Outputs, Runner};
use crate::exec::load::Origins;
use crate::exec::load::prune::Importances;
use crate::exec::observe::{Event, Observer};
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::batch::{Packed, pack};
use crate::library::data::tokens::EncodedSet;
use crate::library::derive::components::{Claim, Pca, share_out};
use crate::library::model::Model;
use crate::library::stage::activations::{Activations, pass};
use crate::library::stage::job::Fit;
use crate::library::task::Reads;
use crate::linalg::in_own_threads;
use crate::program::op::Tensor;
use crate::program::{Feed, Pick};

/// Batches after which components that still move are no longer waited for.
const MOST: usize = 10_000;

/// What the tensors begin with, by their names. All that is loaded for it is gone afterwards; the peak is noted with
/// `runner`, the tensors are the caller's to count.
///
/// # Errors
/// Weights that cannot be read, components that do not settle, or an interruption.
#[expect(
    clippy::too_many_arguments,
    reason = "a pass: what runs, on what, and who watches"
)]
pub(in crate::exec) fn measure(
    (of, fit): (&Activations, &Fit),
    set: &EncodedSet,
    model: &dyn Model,
    sources: &Origins,
    runner: &mut Runner,
    observer: &mut dyn Observer,
) -> Result<Importances, RunError> {
    let mut own = aside(runner, (&of.program, &of.params), model, sources)?;
    own.meter.alloc(of.held_bytes());
    let mut want: Vec<Feed> = of.program.program().feeds().map(|(f, _)| f).collect();
    let more = [Feed::Offsets, Feed::Rows(Pick::Places)].map(|f| (f, !want.contains(&f)));
    want.extend(more.iter().filter(|(_, new)| *new).map(|(f, _)| *f));
    let (parts, certain) = pass(fit, &set.lengths());
    let mut state = State::of(of);
    let mut done = 0;
    for (turn, part) in parts.iter().cycle().enumerate() {
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::interrupted(signal));
        }
        if turn >= certain && state.is_settled() {
            break;
        }
        if turn >= MOST.max(certain) || (turn >= parts.len() && !state.has_begun()) {
            return Err(unsettled(turn, &state));
        }
        let reads = fit.reads.as_ref().map(|m| m.epoch(fit.seed, 0));
        let mut packed = pack(set, &part.examples, model.facts().positions, reads, &want)?;
        let rows = rows(of, fit.reads.as_ref(), &mut packed, &more);
        let outputs = own.run(&of.program, packed.feeds, &packed.sizes)?;
        own.meter.alloc(outputs.bytes());
        let most = of.rows(&packed.sizes, fit.reads.as_ref());
        own.meter.scratch(state.scratch_bytes(of, most));
        in_own_threads(|| state.take(of, &outputs, rows.as_deref()))?;
        own.meter.free(outputs.bytes());
        done += part.examples.len() as u64;
        observer.event(Event::Scored { done });
    }
    own.fetch()?;
    own.clear();
    own.meter.scratch(of.made_bytes());
    runner.note(&own);
    Ok(state.made(of))
}

/// The rows of a batch that count, if not all of them do: tokens that are learned.
fn rows(
    of: &Activations,
    reads: Option<&Reads>,
    packed: &mut Packed,
    more: &[(Feed, bool)],
) -> Option<Vec<u32>> {
    let list = |feed: Feed| {
        let found = packed.feeds.iter().find(|(own, _)| *own == feed)?;
        Some(found.1.slice::<u32>()?.to_vec())
    };
    let places = list(Feed::Rows(Pick::Places));
    let starts = list(Feed::Offsets);
    let idle = |feed: &Feed| more.iter().any(|(own, new)| own == feed && *new);
    packed.feeds.retain(|(feed, _)| !idle(feed));
    let (places, starts) = (places?, starts?);
    match reads.filter(|_| of.how.learned)? {
        Reads::Masked(_) | Reads::Labelled(_) => Some(places),
        // A place tells the token behind it. A text whose second token is learned is learned from its first.
        Reads::Next(_) => {
            let firsts = places.iter().filter(|&place| starts.contains(place));
            let behind = places.iter().map(|place| place + 1);
            let mut all: Vec<u32> = firsts.copied().chain(behind).collect();
            all.sort_unstable();
            all.dedup();
            Some(all)
        }
        Reads::Parts(_) | Reads::Options | Reads::Anchors { .. } | Reads::Targets { .. } => None,
    }
}

/// Why there are no components.
fn unsettled(turn: usize, state: &State) -> RunError {
    let what = match state.has_begun() {
        true => format!(
            "the components that `init = eva` begins with still change after {turn} batches; write a smaller `eva_tau`, a larger `batch`, or another `init`"
        ),
        false => format!(
            "no batch has as many tokens as `init = eva` seeks components, {} of a map; write a larger `batch` (or `micro_batch`), or a smaller `rank` or `eva_rho`",
            state.most
        ),
    };
    RunError::NoStart { what }
}

/// The components as far as they are known.
struct State {
    pcas: Vec<Pca>,
    claims: Vec<Claim>,
    counts: Vec<usize>,
    /// Inputs whose components are known, which are not looked at any further.
    settled: Vec<bool>,
    most: u64,
}

impl State {
    fn of(of: &Activations) -> Self {
        let claims: Vec<Claim> = of.maps.iter().map(|(_, claim)| *claim).collect();
        Self {
            pcas: of
                .sources
                .iter()
                .map(|s| Pca::new(s.width, s.room))
                .collect(),
            counts: claims.iter().map(|claim| claim.room).collect(),
            claims,
            settled: vec![false; of.sources.len()],
            most: of.sources.iter().map(|s| s.room).max().unwrap_or(0),
        }
    }

    fn has_begun(&self) -> bool {
        self.pcas.iter().all(Pca::has_begun)
    }

    /// An upper bound of the bytes that a batch of so many rows takes while it is taken in.
    fn scratch_bytes(&self, of: &Activations, rows: u64) -> u64 {
        let each = of.sources.iter().zip(&self.settled);
        let each = each.filter(|(_, settled)| !**settled);
        let bytes = each.map(|(source, _)| source.scratch_bytes(rows));
        bytes.max().unwrap_or(0)
    }

    /// Whether all components that some map gets are known.
    fn is_settled(&mut self) -> bool {
        for (place, (settled, pca)) in self.settled.iter_mut().zip(&self.pcas).enumerate() {
            let own = self.claims.iter().zip(&self.counts);
            let most = own
                .filter(|(claim, _)| claim.of == place)
                .map(|(_, &n)| n)
                .max();
            *settled = pca.has_begun() && pca.knows(most.unwrap_or(0));
        }
        self.settled.iter().all(|&settled| settled)
    }

    /// Takes in a batch, and shares out the ranks anew.
    fn take(
        &mut self,
        of: &Activations,
        outputs: &Outputs,
        rows: Option<&[u32]>,
    ) -> Result<(), RunError> {
        let each = of.sources.iter().zip(&mut self.pcas).zip(&self.settled);
        for ((source, pca), _) in each.filter(|(_, settled)| !**settled) {
            for name in &source.outputs {
                let made = outputs.get(name);
                let x = made.and_then(|t| Some((t.dims.first()?, t.slice::<f32>()?)));
                let (count, x) =
                    x.ok_or_else(|| RunError::bug(format!("there is no output `{name}`")))?;
                let all: Vec<u32>;
                let rows = match rows {
                    Some(rows) => rows,
                    None => {
                        all = (0..to_u32(*count)).collect();
                        &all
                    }
                };
                pca.fit(x, rows, of.how.tau.get()).map_err(|why| RunError::NotFinite {
                    what: format!("what enters the linear maps before any training has no components: {why}"),
                })?;
            }
        }
        if self.has_begun() {
            self.counts = share_out(&self.claims, &self.pcas, of.budget());
        }
        Ok(())
    }

    /// The tensors.
    fn made(&self, of: &Activations) -> Importances {
        let mut made = Importances::new();
        for (name, half, map) in &of.tensors {
            let own = of.maps.get(*map).zip(self.counts.get(*map));
            let Some(((by, claim), &count)) = own else {
                continue;
            };
            if let Some(pca) = self.pcas.get(claim.of) {
                let values = by.values(*half, count, pca);
                let rows = by.room() as usize;
                let width = values.len() / rows.max(1);
                let dims: &[usize] = match width {
                    1 => &[rows],
                    _ => &[rows, width],
                };
                made.insert(name.clone(), Tensor::new(values, dims));
            }
        }
        made
    }
}
