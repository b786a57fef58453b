//! The program that gives what enters linear maps, before a training whose pairs begin with its principal components (EVA).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::derive::components::{Claim, Components, Eva, Half, Pca};
use super::super::method::Tuning;
use super::super::net::{Init, Mode, Net, Param};
use super::network::{options, verified};
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
        let each = all.map(|s| Pca::scratch_bytes(s.width, s.room, rows));
        each.max().unwrap_or(0)
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
        let program = self.program.program();
        let all = program.outputs.iter();
        all.map(|(_, value)| program.ty(*value).bytes(sizes)).sum()
    }

    /// The most rows of an output for sizes.
    #[must_use]
    pub fn rows(&self, sizes: &Bindings) -> u64 {
        sizes.get(Sym::Tokens).max(sizes.get(Sym::SourceTokens))
    }
}

/// A parameter that begins with components.
type Asked = (String, Arc<Components>, Half);

/// The program, if any of a stage's parameters begins with components.
///
/// # Errors
/// Two methods of the stage find them in different ways, or the backbone alone does not show what enters a map.
pub(super) fn activations(
    cx: &StageCx<'_>,
    params: &[Param],
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
    let paths: BTreeSet<String> = asked.iter().map(|(_, by, _)| by.site.clone()).collect();
    let bare = Tuning {
        methods: Vec::new(),
        n_layers: cx.tuning.n_layers,
        frozen: true,
    };
    let mut b = Builder::with_numbers("activations", cx.numbers);
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
    let options = options(cx, bare, Mode::Evaluate, BTreeSet::new());
    let mut net = Net::new(b, bare, options);
    net.note_inputs(paths);
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
