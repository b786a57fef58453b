//! Building a stage's network: the one place where model, methods, head and mode meet.

use super::keys;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::method::{Method, Tuning};
use super::super::model::Model;
use super::super::net::{CacheCapacity, Mode, Net, NetOptions, Param, Role, Site};
use super::super::schema::Values;
use super::super::task::{Head, Task};
use super::packing::Batch;
use super::train::{batches, steps, steps_per_epoch};
use super::{Sound, Span, StageCx};
use crate::program::format::Storing;
use crate::program::op::{MoveRows, Op};
use crate::program::passes;
use crate::program::{
    Bindings, Builder, DType, Def, Feed, Mark, Node, Numbers, Pick, Program, Value, Verified,
};

/// A network built into a program.
#[derive(Debug)]
pub struct Built {
    /// Scores `[S, classes]`, or `[R, vocabulary]`, or of each place its loss and its prediction, `[R, 2]`.
    pub scores: Value,
    /// The summed loss, times the step's loss scale, where it comes with the scores.
    loss: Option<Value>,
    /// The states that the head reads.
    pub(super) hidden: Value,
    /// Whether dropout acts in it.
    pub(super) varies: bool,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Its sites.
    pub sites: Vec<Site>,
}

impl Built {
    /// Whether its loss comes with the scores, which then are none of each class.
    pub(super) const fn is_fused(&self) -> bool {
        self.loss.is_some()
    }

    /// The summed loss of the scores, times the step's loss scale: `[1]`.
    pub(super) fn loss(&self, b: &mut Builder, task: &dyn Task) -> Value {
        self.loss.unwrap_or_else(|| task.loss(b, self.scores))
    }

    /// The same as a training minimises it.
    pub(super) fn training_loss(&self, b: &mut Builder, task: &dyn Task) -> Value {
        self.loss
            .unwrap_or_else(|| task.training_loss(b, self.scores))
    }
}

/// Whether a step is made of micro-batches, or of the shares of several ranks.
pub(super) fn is_split(cx: &StageCx<'_>) -> bool {
    let micro = keys::MICRO_BATCH.get(cx.values);
    let several = match keys::BATCH.get(cx.values) {
        Batch::Examples(batch) => micro.is_some_and(|micro| micro < batch),
        Batch::Tokens(_) => micro.is_some(),
    };
    several || cx.ranks > 1
}

/// Steps of a training, where a method's layers depend on them. Batches that cannot be made are complained about where
/// they are packed.
fn scheduled_steps(cx: &StageCx<'_>, tuning: &Tuning, mode: Mode) -> Option<u64> {
    let asked = mode.trains() && tuning.methods.iter().any(|(m, _)| m.reads_steps());
    let (batch, packing) = asked.then(|| batches(cx).ok()).flatten()?;
    let epoch = steps_per_epoch(cx, (batch, packing.as_ref()));
    Some(steps(cx.values, epoch))
}

/// The numbers of a program whose results the host takes in before a training: values are f32 there, whatever a step has.
pub(super) fn measured(cx: &StageCx<'_>) -> Numbers {
    Numbers {
        activations: DType::F32,
        ..cx.numbers
    }
}

/// What a stage's network is built with.
pub(super) fn options(cx: &StageCx<'_>, tuning: &Tuning, mode: Mode) -> NetOptions {
    NetOptions {
        mode,
        storage: cx.storage.clone(),
        seed: keys::SEED.find(cx.values).unwrap_or(0),
        parts: is_split(cx),
        route: 0,
        steps: scheduled_steps(cx, tuning, mode),
        until: None,
        dropout_frozen: keys::DROPOUT_FROZEN.get(cx.values),
        probed: BTreeSet::new(),
        sites: if tuning.methods.iter().any(|(m, _)| m.shares()) {
            sites(cx.model.clone(), cx.task.clone())
        } else {
            Vec::new()
        },
    }
}

/// The last states of the rows that a head reads, of the backbone or of the ladder beside it.
fn states(net: &mut Net<'_>, cx: &StageCx<'_>, tuning: &Tuning, pick: Pick) -> Value {
    let ladders = tuning.methods.iter().filter(|(m, _)| m.ladders());
    let averages = cx.model.averages() && matches!(cx.task.needs(), Head::Sequence | Head::Options);
    let whole = averages || cx.task.pools();
    // A ladder reads all rows of the backbone, as a gate does; otherwise its last block makes only those the head reads.
    if !whole && !tuning.methods.iter().any(|(m, f)| m.reads_all(&f.values)) {
        net.set_pick(pick);
    }
    let mut hidden = cx.model.encode(net);
    if !whole {
        net.set_pick(pick);
    }
    let mut beside = false;
    for (method, filled) in ladders {
        hidden = method.side(&filled.values, net, cx.model.as_ref(), hidden);
        beside = true;
    }
    let hidden = net.picked(hidden);
    // A ladder ends with a norm of its own.
    let hidden = match beside {
        true => hidden,
        false => cx.model.finish(net, hidden),
    };
    if !averages {
        return hidden;
    }
    net.set_pick(pick);
    let mean = net.text_mean_by(hidden, cx.model.facts().heads);
    net.picked(mean)
}

/// The sites of a model without any method, the head's among them.
#[must_use]
pub fn sites(model: Arc<dyn Model>, task: Arc<dyn Task>) -> Vec<Site> {
    let bare = Tuning::bare(model.facts().blocks);
    let values = Values::default();
    let cx = StageCx {
        values: &values,
        span: Span::default(),
        model,
        storage: Storing::default(),
        numbers: Numbers::default(),
        tuning: bare.clone(),
        task,
        classes: vec!["0".to_owned(), "1".to_owned()],
        words: Some(vec![0, 1]),
        splits: Vec::new(),
        tuned: false,
        ranks: 1,
    };
    let mut b = Builder::new("sites");
    network(&mut b, &cx, &bare, Mode::Evaluate).sites
}

/// Builds backbone and head into `b`.
pub(super) fn network(b: &mut Builder, cx: &StageCx<'_>, tuning: &Tuning, mode: Mode) -> Built {
    probed(b, cx, tuning, mode, BTreeSet::new())
}

/// The same, in which some of the model's own parameters have gradients although no method trains them.
pub(super) fn probed(
    b: &mut Builder,
    cx: &StageCx<'_>,
    tuning: &Tuning,
    mode: Mode,
    probed: BTreeSet<String>,
) -> Built {
    let mut own = options(cx, tuning, mode);
    own.probed = probed;
    built(b, cx, tuning, own)
}

/// A step's network once more, as another route through what is drawn.
pub(super) fn route(
    b: &mut Builder,
    cx: &StageCx<'_>,
    (mode, until): (Mode, Option<(u64, u64)>),
) -> Built {
    let own = NetOptions {
        route: 1,
        until,
        ..options(cx, &cx.tuning, mode)
    };
    built(b, cx, &cx.tuning, own)
}

/// A step's network, in which parameters that join later are frozen.
pub(super) fn phase(
    b: &mut Builder,
    cx: &StageCx<'_>,
    (mode, until): (Mode, Option<(u64, u64)>),
) -> Built {
    let own = NetOptions {
        until,
        ..options(cx, &cx.tuning, mode)
    };
    built(b, cx, &cx.tuning, own)
}

fn built(b: &mut Builder, cx: &StageCx<'_>, tuning: &Tuning, options: NetOptions) -> Built {
    let mut net = Net::new(b, tuning, options);
    let pick = cx.task.pick(cx.model.as_ref());
    let hidden = states(&mut net, cx, tuning, pick);
    let words = cx.words.as_deref().unwrap_or_default();
    let of = (cx.classes.len(), words);
    let (scores, loss) = match cx.task.fused(cx.model.as_ref(), &mut net, hidden) {
        Some((scores, loss)) => (scores, Some(loss)),
        None => (
            cx.task.scores(cx.model.as_ref(), &mut net, hidden, of),
            None,
        ),
    };
    let varies = net.varies();
    let (params, sites) = net.finish();
    Built {
        scores,
        loss,
        hidden,
        varies,
        params,
        sites,
    }
}

/// The numbers of all texts under a reference, `[S, 1]`, and the network's parameters.
pub(super) fn reference_losses(
    b: &mut Builder,
    cx: &StageCx<'_>,
    tuning: &Tuning,
) -> Option<(Value, Vec<Param>)> {
    let mut net = Net::new(b, tuning, options(cx, tuning, Mode::Evaluate));
    let pick = cx.task.pick(cx.model.as_ref());
    let hidden = states(&mut net, cx, tuning, pick);
    let losses = cx.task.losses(cx.model.as_ref(), &mut net, hidden)?;
    Some((losses, net.finish().0))
}

/// More of a network that was built into another program of the step, or further up in this one: its parameters again.
pub(super) fn again<R>(
    b: &mut Builder,
    cx: &StageCx<'_>,
    build: impl FnOnce(&mut Net<'_>) -> R,
) -> R {
    let own = options(cx, &cx.tuning, Mode::Train);
    build(&mut Net::new(b, &cx.tuning, own))
}

/// A model without any method: the parts that files of weights and adapters name.
#[derive(Debug)]
pub struct Anatomy {
    /// Parameters of backbone, sequence head (with two classes) and masked-LM head.
    pub params: Vec<Param>,
    /// Linear maps of the same.
    pub sites: Vec<Site>,
    /// Other sites: tables, norms, attentions, blocks, sub-layers and the head of a language model.
    pub others: Vec<Site>,
}

/// All parts of a model, with either head.
#[must_use]
pub fn anatomy(model: &dyn Model) -> Anatomy {
    let tuning = Tuning::bare(model.facts().blocks);
    let options = NetOptions {
        mode: Mode::Evaluate,
        storage: Storing::default(),
        seed: 0,
        parts: false,
        route: 0,
        steps: None,
        until: None,
        dropout_frozen: false,
        probed: BTreeSet::new(),
        sites: Vec::new(),
    };
    let mut b = Builder::new("anatomy");
    let mut net = Net::new(&mut b, &tuning, options);
    net.set_pick(Pick::First);
    let hidden = model.encode(&mut net);
    let hidden = net.picked(hidden);
    let hidden = model.finish(&mut net, hidden);
    if model.seq2seq().is_none() {
        model.classify(&mut net, hidden, 2);
    }
    if let Some(lm) = model.masked_lm() {
        lm.words(&mut net, hidden, None);
    }
    if let Some(lm) = model.causal_lm() {
        lm.head(&mut net);
    }
    if let Some(pair) = model.seq2seq() {
        pair.head(&mut net);
    }
    let (params, sites) = net.finish();
    // What is on a language model's head is read by those methods alone that stand there.
    let linear = |s: &Site| s.is_linear() && s.role != Role::LmDecoder;
    let (sites, others) = sites.into_iter().partition(linear);
    Anatomy {
        params,
        sites,
        others,
    }
}

/// The program that makes the rows of a prompt or prefix as peft has them, without any text: outputs are matrices that stand
/// beside each other. `None` where peft has no equal of it.
#[must_use]
pub fn prompt(
    (method, values): (&dyn Method, &Values),
    sites: &[&Site],
    tuning: &Tuning,
) -> Option<Verified> {
    let tuning = tuning.frozen();
    let options = NetOptions {
        mode: Mode::Evaluate,
        storage: Storing::default(),
        seed: 0,
        parts: false,
        route: 0,
        steps: None,
        until: None,
        dropout_frozen: false,
        probed: BTreeSet::new(),
        sites: Vec::new(),
    };
    let mut b = Builder::new("prompt");
    let mut net = Net::new(&mut b, &tuning, options);
    let rows = method.prompt_rows(values, sites, &mut net);
    if rows.is_empty() {
        return None;
    }
    for (i, rows) in rows.into_iter().enumerate() {
        b.output(&format!("rows.{i}"), rows);
    }
    Some(verified(b.finish()))
}

/// The evaluation program: output `scores`, and `loss` (summed, times the loss scale) with labels.
///
/// Trained parameters keep their class, so that the program shares the training's residents.
#[must_use]
pub fn evaluation(cx: &Sound<StageCx<'_>>, tuning: &Tuning, labels: bool) -> (Program, Built) {
    let mut b = Builder::with_numbers("evaluate", cx.numbers);
    let built = network(&mut b, cx, tuning, Mode::Evaluate);
    b.output("scores", built.scores);
    if labels {
        let loss = built.loss(&mut b, cx.task.as_ref());
        b.output("loss", loss);
    }
    (b.finish(), built)
}

/// The programs that generate text.
#[derive(Debug)]
pub struct Generators {
    /// Output `logits` `[S, vocabulary]`, those that follow the last token of each sequence. A sequence's earlier tokens are in
    /// caches.
    pub next: Verified,
    /// What puts keys and values of sources where the former reads them, where sequences are made of such.
    pub sources: Option<Verified>,
    /// What copies the cached tokens of one sequence to another's place.
    pub copies: Verified,
}

impl Generators {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Verified> {
        [&self.next, &self.copies].into_iter().chain(&self.sources)
    }
}

/// The programs that generate, with caches of this capacity, and all parameters that they read.
///
/// # Errors
/// Why text cannot be generated with this model and these methods.
pub fn generation(
    cx: &Sound<StageCx<'_>>,
    tuning: &Tuning,
    capacity: CacheCapacity,
) -> Result<(Generators, Built), String> {
    let (model, pair) = (cx.model.as_ref(), cx.model.seq2seq());
    let mut b = Builder::with_numbers("generate", cx.numbers);
    let own = options(cx, tuning, Mode::Generate(capacity));
    let mut net = Net::new(&mut b, tuning, own);
    let hidden = states(&mut net, cx, tuning, Pick::Last);
    let head = match (model.causal_lm(), pair) {
        (Some(lm), _) => lm.head(&mut net),
        (None, Some(pair)) => pair.head(&mut net),
        (None, None) => {
            return Err(format!(
                "`{}` has no head for the next token",
                model.family()
            ));
        }
    };
    let scores = net.head_logits(hidden, &head);
    let (mut params, mut sites) = net.finish();
    b.output("logits", scores);
    let program = b.finish();
    generates_by_tokens(&program)?;
    let copies = copies(&program, capacity);
    let sources = pair.map(|pair| {
        let mut b = Builder::with_numbers("sources", cx.numbers);
        let mut net = Net::new(&mut b, tuning, options(cx, tuning, Mode::Sources(capacity)));
        pair.keep_sources(&mut net);
        let (more, places) = net.finish();
        params.extend(more);
        sites.extend(places);
        b.finish()
    });
    let mut seen = BTreeSet::new();
    params.retain(|param| seen.insert(param.name.clone()));
    Ok((
        Generators {
            next: verified(program),
            sources: sources.map(verified),
            copies: verified(copies),
        },
        Built {
            scores,
            loss: None,
            hidden,
            varies: false,
            params,
            sites,
        },
    ))
}

/// The program that copies cached tokens from sequence to sequence, of all caches that this one puts tokens in.
fn copies(program: &Program, capacity: CacheCapacity) -> Program {
    let mut b = Builder::new("copies");
    for node in &program.nodes {
        let Op::CachedAttention(op) = &node.op else {
            continue;
        };
        for cache in [3, 4].into_iter().filter_map(|i| node.inputs.get(i)) {
            let Some(resident) = program.resident(*cache) else {
                continue;
            };
            debug_assert_eq!(
                resident.ty.elements(&Bindings::NONE) % capacity.tokens.max(1),
                0
            );
            let cache = b.resident(&resident.name, resident.ty.clone(), resident.class);
            let moves = b.feed(Feed::Moves);
            let op = MoveRows {
                fold: op.fold,
                within: true,
            };
            b.push(op, &[cache, moves]);
        }
    }
    b.finish()
}

/// Whether text can be generated by a program a token at a time.
fn generates_by_tokens(program: &Program) -> Result<(), String> {
    if let Some(node) = program
        .nodes
        .iter()
        .find(|node| reads_whole_texts(program, node))
    {
        let label = program.labels.get(node.label as usize);
        return Err(format!(
            "`{}` reads whole texts at once, so that text cannot be generated a token at a time",
            label.map_or("", String::as_str)
        ));
    }
    let of_tasks = |feed| matches!(feed, Feed::Tasks | Feed::Marks(Mark::OfTask { .. }));
    if program.feeds().any(|(feed, _)| of_tasks(feed)) {
        return Err(
            "which task a prompt is of is not known where text is generated: write `task = …` in the method instead of `mixed = true`"
                .to_owned(),
        );
    }
    Ok(())
}

/// Whether a node mixes the tokens of a sequence and knows no cache.
fn reads_whole_texts(program: &Program, node: &Node) -> bool {
    let offsets = |v: &Value| program.def(*v) == Def::Feed(Feed::Offsets);
    let alone = match &node.op {
        Op::CachedAttention(_) | Op::KeptAttention(_) => true,
        // Its queries see no tokens.
        Op::Attention(op) => op.fold == 0,
        _ => false,
    };
    node.inputs.iter().any(offsets) && !alone
}

/// Runs the passes.
///
/// # Panics
/// If a pass broke the program: a bug of ours, named by the verifier.
#[must_use]
pub fn verified(program: Program) -> Verified {
    match passes::pipeline(program) {
        Ok(verified) => verified,
        Err(why) => panic!("a compiler pass broke its program: {why}"),
    }
}
