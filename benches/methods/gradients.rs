//! Gradients of a whole step against central differences: the program that a training runs on a micro-batch, in f64.

use std::path::Path;

use peftc::cli::world::RealWorld;
use peftc::driver::compile;
use peftc::exec::interpreter::Runner;
use peftc::exec::load::{Origins, load};
use peftc::files::weights::Checkpoint;
use peftc::library::data::batch::pack;
use peftc::library::stage::job::{Fit, Routine, Update};
use peftc::plan::Stage;
use peftc::program::op::{Machine, Op, Tensor};
use peftc::program::{
    Bindings, Class, DType, Def, Feed, Program, Resident, TensorType, Verified, verify,
};

use super::points::io;

/// Examples of the batch.
const EXAMPLES: u32 = 4;
/// Numbers of each trained tensor that are compared.
const EACH: usize = 3;
/// Half of a difference's step.
const STEP: f64 = 1e-5;
/// Parts of the largest gradient below which a difference is taken for nothing.
const FLOOR: f64 = 1e-3;

/// Methods whose gradient does not go through frozen weights, so that it is not the loss's own.
const CUT: &[&str] = &["side_lora"];
/// What marks the names of sums by which SpIEL chooses what it trains next.
const CHOOSING: &str = "part.";

/// The largest relative difference of a recipe's stage `s` on the model of a folder, whose batches are split; `None` where
/// it has no gradient, or one that by intention is not the loss's own, and where what it trains is measured beforehand.
///
/// # Errors
/// What cannot be planned, loaded or run.
pub fn apart(dir: &Path, model: &Path, recipe: &str) -> Result<Option<f64>, String> {
    let path = dir.join("gradients.peft");
    std::fs::write(&path, recipe).map_err(io)?;
    let machine = Machine::cpu(1);
    let compiled = compile(&path, &[], &RealWorld::new(true), &machine);
    let plan = compiled.plan.ok_or("the recipe is refused")?;
    let stage = plan.stage("s").ok_or("there is no stage `s`")?;
    let Routine::Fit(fit) = &stage.job.routine else {
        return Err("the stage trains nothing".to_owned());
    };
    let Update::Split { accumulate, .. } = &fit.update else {
        return Ok(None);
    };
    let is_detach = |op: &Op| matches!(op, Op::Detach(_));
    let cut = accumulate.program().nodes.iter().any(|n| is_detach(&n.op));
    let measured = fit.fisher.is_some() || fit.activations.is_some();
    if cut || measured || stage.methods().iter().any(|own| CUT.contains(own)) {
        return Ok(None);
    }
    let wide = verify(widened(accumulate.program()))?;
    let of = (stage, fit.as_ref());
    let mut runner = loaded(&of, accumulate.program(), model)?;
    compare(&wide, &mut runner, &of).map(Some)
}

/// A type of f64 where it was one of f32.
fn wider(ty: &TensorType) -> TensorType {
    match ty.dtype {
        DType::F32 => TensorType::new(DType::F64, ty.shape.clone()),
        _ => ty.clone(),
    }
}

/// Whether losses take a feed in f32, whatever their operands are in.
const fn stays(feed: Feed) -> bool {
    matches!(feed, Feed::LossScale | Feed::Targets(_))
}

/// The program with its floats in f64.
fn widened(program: &Program) -> Program {
    let mut wide = program.clone();
    for value in &mut wide.values {
        if !matches!(value.def, Def::Feed(feed) if stays(feed)) {
            value.ty = wider(&value.ty);
        }
    }
    wide.residents.iter_mut().for_each(|r| r.ty = wider(&r.ty));
    for node in &mut wide.nodes {
        match &mut node.op {
            Op::Gather(op) => op.out = DType::F64,
            Op::Constant(op) => op.dtype = DType::F64,
            Op::Identity(op) => op.dtype = DType::F64,
            Op::Waves(op) => op.dtype = DType::F64,
            _ => {}
        }
    }
    wide
}

/// A tensor of floats in f64, or any other as it is.
fn wide(tensor: &Tensor) -> Tensor {
    if tensor.format().blocks().is_some() {
        return wide(&tensor.cast(DType::F32));
    }
    match tensor.slice::<f32>() {
        Some(list) => {
            let list: Vec<f64> = list.iter().map(|&x| f64::from(x)).collect();
            Tensor::new(list, &tensor.dims)
        }
        None => tensor.clone(),
    }
}

/// What a training begins with, in f64; trained tensors are moved a little, so that none is a zero behind which nothing learns.
fn loaded(
    (stage, fit): &(&Stage, &Fit),
    program: &Program,
    model: &Path,
) -> Result<Runner, String> {
    let weights = Checkpoint::open(model).map_err(|e| e.to_string())?;
    let sources = Origins {
        weights: Some(weights),
        storage: stage.start.storage(),
        seed: fit.seed,
        fresh: true,
        ..Origins::default()
    };
    let machine = Machine::cpu(1);
    let mut single = Runner::new(machine);
    let residents: Vec<&Resident> = program.residents.iter().collect();
    load(
        &mut single,
        &stage.job.params,
        &residents,
        stage.model.as_ref(),
        &sources,
    )
    .map_err(|e| e.to_string())?;
    let mut runner = Runner::new(machine);
    for (name, class, tensor) in single.residents.iter() {
        let mut tensor = wide(tensor);
        if let (Class::Trainable, Some(list)) = (class, tensor.slice_mut::<f64>()) {
            let places = list.iter_mut().enumerate();
            places.for_each(|(i, x)| *x += 0.02 * (1.7 * (i + 1) as f64).sin());
        }
        runner
            .residents
            .insert(name, class, tensor, &mut runner.meter);
    }
    Ok(runner)
}

/// The inputs of a run on the first examples.
fn feeds(program: &Program, (stage, fit): &(&Stage, &Fit)) -> Result<Run, String> {
    let split = stage.splits.first().and_then(Option::as_ref);
    let set = split.and_then(|split| split.encoded.as_ref());
    let set = set.ok_or("the texts are not there")?;
    let all: Vec<u32> = (0..EXAMPLES).collect();
    let want: Vec<Feed> = program.feeds().map(|(feed, _)| feed).collect();
    let reads = fit.reads.as_ref().map(|reads| reads.epoch(fit.seed, 0));
    let positions = stage.model.facts().positions;
    let packed = pack(set, &all, positions, reads, &want)
        .map_err(|e| format!("{}: {}", e.path.display(), e.cause))?;
    let mut feeds: Vec<(Feed, Tensor)> = packed.feeds;
    let floats = feeds.iter_mut().filter(|(feed, _)| !stays(*feed));
    floats.for_each(|(_, tensor)| *tensor = wide(tensor));
    for feed in want {
        let tensor = match feed {
            Feed::LossScale => Tensor::new(vec![1.0 / EXAMPLES as f32], &[1]),
            Feed::Step => Tensor::new(vec![0_u32], &[1]),
            Feed::Signal(signal) => {
                let numbers = signal.at(0);
                let dims = [numbers.len()];
                wide(&Tensor::new(numbers, &dims))
            }
            _ => continue,
        };
        feeds.push((feed, tensor));
    }
    Ok(Run {
        feeds,
        sizes: packed.sizes,
    })
}

/// What a run reads.
struct Run {
    feeds: Vec<(Feed, Tensor)>,
    sizes: Bindings,
}

impl Run {
    fn loss(&self, runner: &mut Runner, wide: &Verified) -> Result<f64, String> {
        let made = runner.run(wide, self.feeds.clone(), &self.sizes);
        let made = made.map_err(|e| e.to_string())?;
        let loss = made
            .get("loss")
            .and_then(|t| t.slice::<f64>()?.first().copied());
        loss.ok_or_else(|| "there is no loss".to_owned())
    }
}

/// Runs it once for the gradients, and twice for each number that is compared.
fn compare(wide: &Verified, runner: &mut Runner, of: &(&Stage, &Fit)) -> Result<f64, String> {
    let run = feeds(wide.program(), of)?;
    run.loss(runner, wide)?;
    let sums = runner.residents.iter();
    let sums = sums.filter(|(_, class, _)| *class == Class::Gradient);
    let sums = sums.filter(|(name, ..)| !name.contains(CHOOSING));
    let gradients: Vec<(String, Vec<f64>)> = sums
        .filter_map(|(name, _, t)| Some((name.to_owned(), t.slice::<f64>()?.to_vec())))
        .collect();
    let all = gradients.iter().flat_map(|(_, list)| list);
    let floor = FLOOR * all.fold(0.0_f64, |a, x| a.max(x.abs()));
    let mut most = 0.0_f64;
    for (name, gradient) in &gradients {
        let name = name.strip_prefix("gradient.").unwrap_or(name);
        let mut places: Vec<usize> = (0..gradient.len()).collect();
        places.sort_by(|&a, &b| gradient[b].abs().total_cmp(&gradient[a].abs()));
        for &place in places.iter().take(EACH) {
            let mut loss = |by: f64| {
                shift(runner, name, (place, by))?;
                run.loss(runner, wide)
            };
            let above = loss(STEP)?;
            let below = loss(-2.0 * STEP)?;
            shift(runner, name, (place, STEP))?;
            let (own, numeric) = (gradient[place], (above - below) / (2.0 * STEP));
            most = most.max((own - numeric).abs() / own.abs().max(numeric.abs()).max(floor));
        }
    }
    Ok(most)
}

/// Moves one number of a tensor.
fn shift(runner: &mut Runner, name: &str, (place, by): (usize, f64)) -> Result<(), String> {
    let list = runner
        .residents
        .get_mut(name)
        .and_then(|t| t.slice_mut::<f64>());
    let number = list.and_then(|list| list.get_mut(place));
    *number.ok_or_else(|| format!("`{name}` is not there in f64"))? += by;
    Ok(())
}
