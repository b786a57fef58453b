//! Nothing lost: signals, runs side by side, disks that are full, and results where the user looks.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::{here, printed, program, stderr_of, stdout_of};

pub(crate) fn recipe(dir: &Path, body: &str) -> PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, take = 48 }}\n{body}"
    );
    let path = dir.join("r.peft");
    std::fs::write(&path, text).expect("written");
    path
}

fn run(args: &[&str], path: &Path) -> Output {
    program().args(args).arg(path).output().expect("starts")
}

/// Where tokens are kept is everybody's; a comparison of all of them has to have its own.
fn cache(dir: &Path) -> (&'static str, PathBuf) {
    ("XDG_CACHE_HOME", dir.join("cache"))
}

/// A training that no test waits for.
const LONG: &str = "stage s = train { model = m, data = d.train, dev = d.dev, adapter = head_only, lr = 1e-4, steps = 60000, evaluate = 60000 steps, features = 0B }\n";

pub(crate) fn start(path: &Path, args: &[&str]) -> Child {
    let mut command = program();
    command.arg("run").args(args).arg(path);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("starts")
}

pub(crate) fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process has no signal before it. Of two that are pending at once the second is handled first.
fn is_delivered(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let pending = status.unwrap_or_default();
    let pending = pending.lines().find_map(|l| l.strip_prefix("ShdPnd:"));
    pending.is_none_or(|mask| mask.trim().bytes().all(|b| b == b'0'))
}

pub(crate) fn signal(name: &str, child: &Child) {
    let id = child.id().to_string();
    let kill = Command::new("kill").args(["-s", name, &id]).status();
    assert!(kill.expect("starts").success());
}

/// Where the stage's log begins to be, the steps begin.
fn log_of(path: &Path) -> PathBuf {
    path.with_file_name(".peftc/runs/r/s/metrics.jsonl")
}

/// The step of the checkpoint that `check` and a dry run speak of.
fn resumes_at(path: &Path) -> Option<u64> {
    let output = run(&["check", "--json"], path);
    let json: Value = printed(&output);
    let step = json["recipes"][0]["stages"][0]["resumes_at"].as_u64();
    let dry = stdout_of(&run(&["run", "--dry-run"], path));
    if let Some(step) = step {
        let words = format!("resumes at {step}");
        assert!(dry.contains(&words), "{dry}");
        assert!(stdout_of(&run(&["check"], path)).contains(&words));
    }
    step
}

#[cfg(unix)]
#[test]
fn signals_leave_a_checkpoint_however_many_there_are() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = recipe(dir.path(), LONG);
    let mut before = 0;
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let child = start(&path, &["--checkpoint-every", "1000"]);
        wait_for("log", || log_of(&path).exists());
        std::thread::sleep(Duration::from_millis(500));
        // A process and its group get one each; impatient schedulers send more.
        signal(name, &child);
        wait_for("the first signal", || is_delivered(&child));
        for other in [name, "TERM", name, "INT", name] {
            std::thread::sleep(Duration::from_millis(20));
            signal(other, &child);
        }
        let output = child.wait_with_output().expect("ends");
        let said = stderr_of(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let step = resumes_at(&path).expect("a checkpoint");
        let words = format!(
            "checkpoint at step {step} of 60000 of `s` kept; run the same command to go on"
        );
        assert!(said.contains(&words), "{said}");
        assert_eq!(
            said.contains(&format!("resumes at step {before} of")),
            before > 0,
            "{said}"
        );
        assert!(step > before, "{step} after {before}");
        before = step;
        std::fs::remove_file(log_of(&path)).expect("a log");
    }
    // One asks for a checkpoint alone.
    let mut child = start(&path, &["--checkpoint-every", "1000"]);
    wait_for("log", || log_of(&path).exists());
    std::thread::sleep(Duration::from_millis(300));
    signal("USR1", &child);
    wait_for("checkpoint", || resumes_at(&path) > Some(before));
    assert!(child.try_wait().expect("waits").is_none(), "it goes on");
    child.kill().expect("killed");
    let output = child.wait_with_output().expect("ends");
    assert!(
        stderr_of(&output).contains("checkpoint at step"),
        "{}",
        stderr_of(&output)
    );
    // Never means never.
    let output = run(&["run", "--dry-run", "--resume", "never"], &path);
    assert!(
        !stdout_of(&output).contains("resumes"),
        "{}",
        stdout_of(&output)
    );
}

#[test]
fn what_was_kept_is_where_the_user_looks_and_is_of_one_stage() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let out = dir.path().join(".peftc/runs/r/s");
    let stage = |adapter: &str| {
        let body = format!(
            "stage s = train {{ model = m, data = d.train, dev = d.dev, adapter = {adapter}, lr = 1e-3, epochs = 9, evaluate = 1 steps, best = loss, patience = 1 }}\n"
        );
        let path = recipe(dir.path(), &body);
        let output = run(&["run", "--json"], &path);
        assert!(output.status.success(), "{}", stderr_of(&output));
        let json: Value = printed(&output);
        (json["stages"][0].clone(), stderr_of(&output))
    };
    let same = |artifact: &str, name: &str| -> bool {
        let (a, b) = (Path::new(artifact).join(name), out.join(name));
        assert_eq!(std::fs::read(&a).ok(), std::fs::read(&b).ok());
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let number = |p: &Path| p.metadata().expect("a file").ino();
            number(&a) == number(&b)
        }
        #[cfg(not(unix))]
        true
    };
    let (lora, said) = stage("lora { rank = 2 }");
    let artifact = lora["artifact"].as_str().expect("a path").to_owned();
    assert!(
        same(&artifact, "adapter/peftc.safetensors"),
        "it is no link"
    );
    assert!(out.join("stage.json").exists() && out.join("metrics.jsonl").exists());
    // What is kept is the best step, and it is said; a training that nothing helps ends early.
    let step = lora["kept_step"].as_u64().expect("a step");
    assert!(
        said.contains(&format!(
            "the state of step {step} is kept, the best by loss"
        )),
        "{said}"
    );
    assert_eq!(
        said.contains("stops early at step"),
        lora["stopped_early"].as_bool().expect("known"),
        "{said}"
    );
    // Another method's artifact takes the place of the first, and a lost one comes back.
    let (full, _) = stage("full");
    let other = full["artifact"].as_str().expect("a path").to_owned();
    assert!(same(&other, "model/model.safetensors") && !out.join("adapter").exists());
    std::fs::remove_dir_all(&out).expect("removed");
    std::fs::create_dir_all(out.join("adapter")).expect("made");
    std::fs::write(out.join("adapter/mine.txt"), "the user's").expect("written");
    let (again, _) = stage("lora { rank = 2 }");
    assert_eq!(again["cached"], true);
    assert!(same(&artifact, "adapter/peftc.safetensors") && !out.join("model").exists());
    stage("full");
    assert!(
        out.join("adapter/mine.txt").exists(),
        "what is not ours stays"
    );
}

#[test]
fn runs_side_by_side_all_end_well() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let body = "stage s = train { model = m, data = d.train, adapter = head_only, lr = 1e-3, steps = 3 }\n\
                stage e = eval { from = s, data = d.dev }\n";
    let path = recipe(dir.path(), body);
    for round in 0..2 {
        let stores: Vec<String> = (0..4)
            .map(|i| match round {
                // The same store, then one each: the OUT is always the same.
                0 => dir.path().join("store").display().to_string(),
                _ => dir.path().join(format!("store{i}")).display().to_string(),
            })
            .collect();
        let children: Vec<Child> = stores
            .iter()
            .map(|store| start(&path, &["--store", store, "--checkpoint-every", "0"]))
            .collect();
        for child in children {
            let output = child.wait_with_output().expect("ends");
            assert!(output.status.success(), "{}", stderr_of(&output));
        }
        let out = dir.path().join(".peftc/runs/r");
        let mut left = vec![out];
        while let Some(folder) = left.pop() {
            for item in std::fs::read_dir(folder).expect("a folder").flatten() {
                let name = item.file_name().to_string_lossy().into_owned();
                assert!(!name.starts_with('.'), "{name} is left");
                if item.path().is_dir() {
                    left.push(item.path());
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_nobody_gets_are_no_success() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let body = "stage s = train { model = m, data = d.train, adapter = head_only, lr = 1e-3, steps = 1 }\n";
    let path = recipe(dir.path(), body);
    assert!(run(&["run", "--quiet"], &path).status.success());
    std::fs::write(dir.path().join("in.jsonl"), "{\"sentence\": \"good\"}\n").expect("written");
    let name = path.display().to_string();
    let at = |rest: &str| dir.path().join(rest).display().to_string();
    let (out, input) = (at(".peftc/runs/r"), at("in.jsonl"));
    let (variable, cache) = cache(dir.path());
    let dir = at("");
    let commands: &[&[&str]] = &[
        &["check", &name],
        &["check", "--json", &name],
        &["plan", &name],
        &["run", "--quiet", &name],
        &["run", "--dry-run", &name],
        &["report", &out],
        &["predict", &out, "--input", &input],
        &["store", "ls", &dir],
        &["store", "verify", &dir],
        &["store", "gc", &dir],
        &["list"],
        &["explain", "lora"],
        &["doctor"],
        &["--help"],
        &["--version"],
        &["run", "--help"],
    ];
    for args in commands {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("a device");
        let output = program()
            .args(*args)
            .env(variable, &cache)
            .stdout(full)
            .output()
            .expect("starts");
        assert_eq!(
            output.status.code(),
            Some(1),
            "{args:?}: {}",
            stderr_of(&output)
        );
        assert!(
            stderr_of(&output).contains("standard output cannot be written"),
            "{args:?}"
        );
        // Who closes the pipe has seen enough, and an error that nobody reads ends nothing.
        let mut child = program()
            .args(*args)
            .env(variable, &cache)
            .stdout(Stdio::piped())
            .stderr(
                std::fs::OpenOptions::new()
                    .write(true)
                    .open("/dev/full")
                    .expect("a device"),
            )
            .spawn()
            .expect("starts");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("ends").code(), Some(0), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn limits_of_the_system_are_errors_that_name_them() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let body = "data more = local \"recipes/reviews\" { text = sentence, label = label, take = 400 }\n\
                stage s = train { model = m, data = more.train, adapter = full, lr = 1e-3, steps = 2, batch = 400 }\n";
    let here = here();
    let body = body.replace("recipes/", &format!("{}/recipes/", here.display()));
    let path = recipe(dir.path(), &body);
    let limited = |limit: &str, args: &[&str]| {
        let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
        Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_peftc"), "run"])
            .args(args)
            .arg(&path)
            .output()
            .expect("starts")
    };
    for (limit, args, code, words) in [
        ("-f 64", &["--quiet"] as &[&str], 1, "ulimit -f"),
        (
            "-v 120000",
            &["--threads", "900"],
            1,
            "does not start 900 threads",
        ),
        ("-v 100000", &["--threads", "1"], 3, "refuses"),
    ] {
        let output = limited(limit, args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{limit}: {}",
            stderr_of(&output)
        );
        assert!(
            stderr_of(&output).contains(words),
            "{limit}: {}",
            stderr_of(&output)
        );
    }
    for every in ["nan", "-1", "soon"] {
        let output = run(&["run", &format!("--checkpoint-every={every}")], &path);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{every}: {}",
            stderr_of(&output)
        );
        assert!(
            stderr_of(&output).contains("write a number of seconds"),
            "{}",
            stderr_of(&output)
        );
    }
    assert!(
        run(&["run", "--quiet", "--checkpoint-every=inf"], &path)
            .status
            .success()
    );
}

#[test]
fn the_store_tells_what_it_holds_and_what_is_damaged() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let body = "stage s = train { model = m, data = d.train, adapter = lst { r = 4 }, lr = 1e-3, epochs = 2 }\n";
    let path = recipe(dir.path(), body);
    let at = dir.path().display().to_string();
    let (variable, cache) = cache(dir.path());
    let store = |args: &[&str]| -> (Option<i32>, Value) {
        let output = program()
            .env(variable, &cache)
            .arg("store")
            .args(args)
            .args(["--json", &at])
            .output()
            .expect("starts");
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), json)
    };
    assert_eq!(store(&["ls"]).0, Some(1), "there is none yet");
    let output = run(&["check", "--json"], &path);
    let json: Value = printed(&output);
    let announced = json["recipes"][0]["disk_bytes"].as_u64().expect("bytes");
    assert_eq!(
        json["recipes"][0]["stages"][0]["disk_bytes"].as_u64(),
        Some(announced)
    );
    assert!(run(&["run", "--quiet"], &path).status.success());
    let (_, list) = store(&["ls"]);
    let entry = &list[0];
    let keys: Vec<&String> = entry.as_object().expect("an entry").keys().collect();
    assert_eq!(
        keys,
        [
            "fingerprint",
            "recipe",
            "stage",
            "kind",
            "bytes",
            "finished",
            "used"
        ]
    );
    assert_eq!(
        entry["recipe"].as_str().map(Path::new),
        Some(path.as_path())
    );
    assert_eq!(
        (&entry["stage"], &entry["kind"], &entry["finished"]),
        (&"s".into(), &"train".into(), &true.into())
    );
    let written = entry["bytes"].as_u64().expect("bytes");
    assert!(written <= announced, "{written} of {announced}");
    assert_eq!(store(&["verify"]).0, Some(0));
    // A recipe that is finished takes nothing more.
    let output = run(&["check", "--json"], &path);
    let json: Value = printed(&output);
    assert_eq!(json["recipes"][0]["disk_bytes"], 0);
    let rows: Vec<PathBuf> = std::fs::read_dir(dir.path().join(".peftc/store/features"))
        .expect("features")
        .flatten()
        .flat_map(|set| std::fs::read_dir(set.path()).expect("a set").flatten())
        .map(|f| f.path())
        .filter(|p| p.extension().is_some_and(|e| e == "f32"))
        .collect();
    let mut bytes = std::fs::read(&rows[0]).expect("rows");
    bytes[77] ^= 16;
    std::fs::write(&rows[0], bytes).expect("written");
    let (code, json) = store(&["verify"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        json["damaged"][0]["path"].as_str().map(Path::new),
        Some(rows[0].as_path())
    );
    let (_, json) = store(&["gc", "--keep", "0B"]);
    assert_eq!(json["removed"].as_array().map(Vec::len), Some(2), "{json}");
    assert_eq!(store(&["ls"]).1, serde_json::json!([]));
}
