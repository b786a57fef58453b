//! Whole stages run on a rehearsed device. They must leave what they leave on the processor,
//! bit for bit: so uploads, mirrors, in-place buffers, frees, checkpoints and artifacts are right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use crate::cli::world::RealWorld;
use crate::driver::compile;
use crate::exec::backend::rehearsed::Rehearsal;
use crate::exec::backend::{Device, Open};
use crate::exec::interpreter::Runner;
use crate::exec::observe::{Event, Observer, Silent, Stopping};
use crate::exec::predict::Predictor;
use crate::exec::ranks::Ranks;
use crate::exec::run::replay::replay;
use crate::exec::run::{Options, run};
use crate::files::RunError;
use crate::plan::Plan;
use crate::program::op::{Machine, Tensor};
use crate::program::{Bindings, Builder, Class, DType, Dim, Feed, Sym, TensorType, verify};

const MACHINE: Machine = Machine::cpu(2);

fn planned(dir: &Path, body: &str) -> (PathBuf, Plan) {
    planned_on(dir, body, &MACHINE)
}

fn planned_on(dir: &Path, body: &str, machine: &Machine) -> (PathBuf, Plan) {
    let at = env!("CARGO_MANIFEST_DIR");
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         model b = local \"{at}/tests/reference/bert-tiny\" {{ dtype = bf16 }}\n\
         model h = local \"{at}/tests/reference/bert-tiny\" {{ precision = bf16, dtype = bf16 }}\n\
         model t = local \"{at}/tests/reference/bert-tiny\" {{ precision = tf32 }}\n\
         model a = local \"{at}/tests/reference/bert-tiny\" {{ activations = bf16, precision = bf16, dtype = bf16 }}\n\
         model w = local \"{at}/tests/reference/bert-tiny\" {{ activations = f16 }}\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 120 }}\n{body}"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    let compiled = compile(&path, &[], &RealWorld::new(true), machine);
    let said: Vec<&str> = compiled.diags.iter().map(|d| d.message.as_str()).collect();
    (path, compiled.plan.unwrap_or_else(|| panic!("{said:?}")))
}

fn cpu() -> Arc<dyn Open> {
    Arc::new(Device::Cpu)
}

fn rehearsed() -> Arc<dyn Open> {
    Arc::new(Rehearsal { blocks: u64::MAX })
}

fn options(dir: &Path, recipe: &Path, device: Arc<dyn Open>) -> Options {
    Options {
        recipe: recipe.to_path_buf(),
        store: dir.join("store"),
        out: dir.join("out"),
        only: None,
        fresh: false,
        resume: true,
        adopts: false,
        checkpoint_every: Duration::ZERO,
        machine: MACHINE,
        device,
        ranks: Ranks::default(),
        machine_name: None,
        command: String::new(),
        sources: Vec::new(),
    }
}

fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    pool.expect("a pool").install(f)
}

/// What is left of a run: losses, metrics, and the bytes of every tensor file.
fn left(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![dir.join("store"), dir.join("out")];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = item.path();
            let name = path
                .strip_prefix(dir)
                .expect("inside")
                .display()
                .to_string();
            if name.contains("checkpoint") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with("metrics.jsonl") {
                let text = std::fs::read_to_string(&path).expect("a log");
                for (i, line) in text.lines().enumerate() {
                    let v: Json = serde_json::from_str(line).expect("JSON");
                    let bits = format!(
                        "{} {} {} {}",
                        v["loss"], v["grad_norm"], v["projected_grad"], v["dev"]
                    );
                    all.insert(format!("{name} {i}"), bits.into_bytes());
                }
            } else if [".safetensors", ".tsv", ".f32"]
                .iter()
                .any(|e| name.ends_with(e))
            {
                all.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    all
}

fn agree(body: &str) {
    let [host, device, again] = [(); 3].map(|()| tempfile::tempdir().expect("a scratch directory"));
    let go = |dir: &Path, device: Arc<dyn Open>, observer: &mut (dyn Observer + Send)| {
        // Planned for a GPU where it runs on a device, so that the estimate is of what is held there.
        let machine = match device.to_string().as_str() {
            "cpu" => MACHINE,
            _ => MACHINE.on(crate::program::device::Device::Cuda(None)),
        };
        let (recipe, plan) = planned_on(dir, body, &machine);
        let options = options(dir, &recipe, device.clone());
        in_pool(|| run(&plan, &options, &RealWorld::new(true), observer))
    };
    struct Quiet;
    impl Observer for Quiet {
        fn event(&mut self, _: Event<'_>) {}
    }
    go(host.path(), cpu(), &mut Quiet).expect("runs on the host");
    let result = go(device.path(), rehearsed(), &mut Quiet).expect("runs in rehearsal");
    for stage in result["stages"].as_array().expect("stages") {
        if stage["kind"] != "merge" {
            assert_eq!(stage["device"], "rehearsed");
            let bytes = |key: &str| stage[key].as_f64().expect("bytes");
            let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            assert!((0.98..=1.0).contains(&ratio), "{body}: {ratio} in {stage}");
            assert!(
                stage["measured_peak_bytes"].as_u64() > Some(100_000),
                "{stage}"
            );
        }
    }
    let (a, b) = (left(host.path()), left(device.path()));
    assert!(a.len() > 5, "{body}");
    for (name, bytes) in &a {
        assert!(b.get(name) == Some(bytes), "{body}: {name}");
    }
    // Stopped in between and gone on, on the device.
    if body.contains("train {") || body.contains("mezo {") {
        let stopped = go(again.path(), rehearsed(), &mut Stopping(3));
        assert!(
            matches!(stopped, Err(RunError::Interrupted { .. })),
            "{body}"
        );
        go(again.path(), rehearsed(), &mut Quiet).expect("goes on");
        let c = left(again.path());
        for (name, bytes) in &a {
            assert!(c.get(name) == Some(bytes), "{body}: {name}, gone on");
        }
    }
}

#[test]
fn training_on_a_device_leaves_what_it_leaves_on_the_host() {
    for body in [
        "stage s = train { model = m, data = d.train, adapter = full, lr = 1e-3, epochs = 1, batch = 16, dev = d.dev, best = accuracy }\n",
        "stage s = train { model = b, data = d.train, adapter = lora { rank = 4, dropout = 0.1, on = {attention.*, ffn.*} }, lr = 1e-3, epochs = 1, batch = 16, micro_batch = 5, features = 0B }\n\
         stage e = eval { from = s, data = d.dev }\nstage f = merge { from = s }\n",
        "stage s = train { model = m, data = d.train, adapter = siva { rank = 4, on = {attention.*, ffn.*} }, lr = 1e-3, epochs = 1, batch = 16 }\n",
        "stage s = train { model = m, data = d.train, adapter = lst { r = 4, init = fisher { samples = 9 } }, lr = 1e-3, epochs = 2, batch = 16 }\n",
        "stage s = train { model = h, data = d.train, adapter = lora { rank = 4 }, lr = 1e-3, epochs = 1, batch = 16 }\n",
        "stage s = train { model = t, data = d.train, adapter = bitfit, lr = 1e-3, epochs = 1, batch = 16 }\n",
        // What kept features are made of is loaded again for the model that is left.
        "stage s = train { model = m, data = d.train, adapter = last_n { n = 1 }, lr = 1e-3, epochs = 2, batch = 16, dev = d.dev }\n",
        "stage s = train { model = b, data = d.train, adapter = head_only, lr = 1e-3, epochs = 2, batch = 16 }\n",
        "stage s = train { model = b, data = d.train, adapter = k_lst { k = 3, r = 4, dropout = 0.2 }, lr = 1e-3, epochs = 2, batch = 16 }\n",
    ] {
        agree(body);
    }
}

#[test]
fn activations_in_16_bits_on_a_device_are_those_of_the_host() {
    for body in [
        "stage s = train { model = a, data = d.train, adapter = lora { rank = 4, dropout = 0.1, on = {attention.*, ffn.*} }, lr = 1e-3, epochs = 1, batch = 16, recompute = true }\n\
         stage e = eval { from = s, data = d.dev }\n",
        "stage s = train { model = w, data = d.train, adapter = full, lr = 1e-3, epochs = 1, batch = 16, micro_batch = 5 }\n",
        "stage s = train { model = a, data = d.train, adapter = k_lst { k = 3, r = 4, dropout = 0.2 }, lr = 1e-3, epochs = 2, batch = 16 }\n",
        "stage s = mezo { model = a, data = d.train, lr = 1e-4, steps = 6, max_length = 32 }\n",
    ] {
        agree(body);
    }
}

/// Stops in the first evaluation.
struct InEvaluation(bool);

impl Observer for InEvaluation {
    fn event(&mut self, event: Event<'_>) {
        self.0 |= matches!(event, Event::Scored { .. });
    }

    fn interrupted(&self) -> Option<i32> {
        self.0.then_some(2)
    }
}

#[test]
fn a_run_that_is_stopped_in_an_evaluation_makes_it_again_and_loses_no_step() {
    let body = "stage s = train { model = m, data = d.train, dev = d.dev, adapter = bitfit, lr = 1e-3, epochs = 2, batch = 16, best = accuracy, features = 0B }\n";
    for device in [cpu(), rehearsed()] {
        let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().expect("a scratch directory"));
        let go = |dir: &Path, observer: &mut (dyn Observer + Send)| {
            let (recipe, plan) = planned(dir, body);
            let mut options = options(dir, &recipe, device.clone());
            options.checkpoint_every = Duration::MAX;
            in_pool(|| run(&plan, &options, &RealWorld::new(true), observer))
        };
        go(whole.path(), &mut Silent).expect("runs");
        let ended = go(stopped.path(), &mut InEvaluation(false)).expect_err("stopped");
        assert!(
            matches!(ended, RunError::Interrupted { signal: 2, .. }),
            "{ended}"
        );
        let log = || std::fs::read_to_string(stopped.path().join("out/s/metrics.jsonl"));
        let before = log().expect("a log").lines().count();
        // The step behind which it was is done, and its line comes with the evaluation.
        assert_eq!(before, 7, "{device}");
        let mut resumed = Steps::default();
        go(stopped.path(), &mut resumed).expect("goes on");
        assert_eq!(
            resumed.0.first(),
            Some(&9),
            "{device}: a step is done again or lost"
        );
        let (a, b) = (left(whole.path()), left(stopped.path()));
        assert!(a.len() > 16 && a == b, "{device}");
    }
}

/// The steps that were done.
#[derive(Default)]
struct Steps(Vec<u64>);

impl Observer for Steps {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Step { step, .. } = event {
            self.0.push(step);
        }
    }
}

#[test]
fn a_device_without_memory_ends_with_figures_and_a_checkpoint_to_go_on_from() {
    for (body, blocks) in [
        (
            "stage s = train { model = m, data = d.train, adapter = lora { rank = 4 }, lr = 1e-3, epochs = 1, batch = 16, features = 0B }\n",
            900,
        ),
        (
            "stage s = train { model = m, data = d.train, adapter = full, lr = 1e-3, epochs = 1, batch = 16, micro_batch = 5 }\n",
            1500,
        ),
    ] {
        let [host, device] = [(); 2].map(|()| tempfile::tempdir().expect("a scratch directory"));
        let go = |dir: &Path, device: Arc<dyn Open>| {
            let (recipe, plan) = planned(dir, body);
            let mut options = options(dir, &recipe, device.clone());
            // Nothing else has left a checkpoint.
            options.checkpoint_every = Duration::MAX;
            in_pool(|| run(&plan, &options, &RealWorld::new(true), &mut Silent))
        };
        go(host.path(), cpu()).expect("runs");
        let ended = go(device.path(), Arc::new(Rehearsal { blocks })).expect_err("too little");
        let (code, said) = (ended.exit_code(), ended.to_string());
        assert_eq!(code, 3, "{said}");
        for part in [
            "no memory is left",
            "steps done are kept",
            "planned were",
            "were held at most",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let left_off = std::fs::read_to_string(device.path().join("out/s/metrics.jsonl"));
        let steps = left_off.expect("a log").lines().count();
        assert!((1..7).contains(&steps), "{steps}: {said}");
        assert!(said.contains(&format!("the {steps} steps")), "{said}");
        go(device.path(), rehearsed()).expect("goes on");
        let (a, b) = (left(host.path()), left(device.path()));
        assert!(
            a.len() > 5 && a.iter().all(|(name, bytes)| b.get(name) == Some(bytes)),
            "{body}"
        );
    }
}

#[test]
fn a_zeroth_order_training_on_a_device_is_that_of_the_host_and_is_replayed_there() {
    let body = "stage s = mezo { model = m, data = d.train, lr = 1e-4, weight_decay = 0.01, steps = 6, max_length = 32 }\n";
    agree(body);
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (recipe, plan) = planned(dir.path(), body);
    let mut options = options(dir.path(), &recipe, rehearsed());
    options.checkpoint_every = Duration::MAX;
    let world = RealWorld::new(true);
    in_pool(|| run(&plan, &options, &world, &mut Silent)).expect("runs");
    for device in [cpu(), rehearsed()] {
        options.device = device.clone();
        let done = in_pool(|| replay(&plan, &options, ("s", None, None), &world)).expect("replays");
        let (same, all) = done.equal.expect("compared");
        assert!(same == all && all > 10, "{device}: {same} of {all}");
    }
}

#[test]
fn labels_from_a_device_are_those_of_the_host() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let body = "stage s = train { model = m, data = d.train, adapter = k_lst { k = 3, r = 4 }, lr = 1e-3, steps = 2 }\n";
    let (recipe, plan) = planned(dir.path(), body);
    let options = options(dir.path(), &recipe, cpu());
    let world = RealWorld::new(true);
    let result = in_pool(|| run(&plan, &options, &world, &mut Silent)).expect("runs");
    let artifact = result["stages"][0]["artifact"].as_str().expect("a path");
    let methods = crate::resolve::methods_from_text;
    let predictor = Arc::new(Predictor::open(Path::new(artifact), &methods).expect("opens"));
    let texts: Vec<Vec<String>> = ["fine", "a dull and endless film", ""]
        .map(|text| vec![text.to_owned()])
        .to_vec();
    let [host, device] = [cpu(), rehearsed()].map(|device| {
        let on = (MACHINE, device);
        let made = in_pool(|| predictor.predict(&texts, (2, 1), on, &mut Silent));
        made.expect("labels").scores
    });
    assert!(host.len() == 6 && host == device, "{host:?} {device:?}");
}

#[test]
fn what_no_program_changes_is_held_on_the_device_alone_until_it_comes_home() {
    let mut b = Builder::new("sum");
    let ty = TensorType::fixed(DType::F32, &[4, 8]);
    let table = b.resident("table", ty, Class::Frozen);
    let sum = b.push1(crate::program::op::SumRows, &[table]);
    b.output("sum", sum);
    let verified = verify(b.finish()).expect("a program");
    let mut runner = Runner::on(MACHINE, &rehearsed()).expect("opens");
    let table = Tensor::new((0..32).map(|i| i as f32).collect::<Vec<_>>(), &[4, 8]);
    let insert = |runner: &mut Runner| {
        let (own, meter) = (table.clone(), &mut runner.meter);
        runner.residents.insert("table", Class::Frozen, own, meter);
    };
    insert(&mut runner);
    runner.send("table").expect("sent");
    assert!(runner.residents.get("table").is_none() && runner.residents.holds("table"));
    assert_eq!(runner.meter.live(), 0);
    for _ in 0..2 {
        let made = in_pool(|| runner.run(&verified, Vec::new(), &Bindings::default()));
        assert_eq!(made.expect("runs").floats("sum")[0], 48.0);
    }
    runner.fetch_all().expect("comes home");
    let own = runner.residents.get("table").expect("here");
    assert_eq!(own.slice::<f32>(), table.slice::<f32>());
    assert_eq!(runner.meter.live(), 128);
    // What is put in its place is what counts from then on, and stays.
    insert(&mut runner);
    runner.send("table").expect("stays");
    assert!(runner.residents.get("table").is_some());
}

#[test]
fn an_index_outside_its_table_is_told_and_memory_is_counted() {
    let mut b = Builder::new("look");
    let tokens = Dim::sym(Sym::Tokens);
    let table = b.resident(
        "table",
        TensorType::fixed(DType::F32, &[4, 8]),
        Class::Trainable,
    );
    let ids = b.feed(Feed::TokenIds);
    let rows = b.push1(
        crate::program::op::Gather { out: DType::F32 },
        &[table, ids],
    );
    let sum = b.push1(crate::program::op::SumRows, &[rows]);
    b.output("sum", sum);
    assert_eq!(b.ty(rows).shape[0], tokens);
    let verified = verify(b.finish()).expect("a program");
    let mut runner = Runner::on(MACHINE, &rehearsed()).expect("opens");
    let values: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let meter = &mut runner.meter;
    runner.residents.insert(
        "table",
        Class::Trainable,
        Tensor::new(values, &[4, 8]),
        meter,
    );
    let sizes = Bindings::of_lengths([100]);
    let go = |runner: &mut Runner, id: u32| {
        let feeds = vec![(Feed::TokenIds, Tensor::new(vec![id; 100], &[100]))];
        in_pool(|| runner.run(&verified, feeds, &sizes))
    };
    assert_eq!(go(&mut runner, 1).expect("runs").floats("sum")[0], 800.0);
    // Table, ids, rows, sum and two runs of partial sums.
    assert_eq!(runner.peak(), 4 * (32 + 100 + 800 + 8 + 16));
    // What the host changes is seen.
    runner
        .residents
        .get_mut("table")
        .expect("held")
        .slice_mut::<f32>()
        .expect("f32")[8] = 1.0;
    assert_eq!(go(&mut runner, 1).expect("runs").floats("sum")[0], 100.0);
    let error = go(&mut runner, 4).expect_err("outside");
    assert!(
        error
            .to_string()
            .contains("index 4 is outside a table of 4 rows"),
        "{error}"
    );
}
