//! The kernels' sources compiled for the host, and launches run by what that gives.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value as Json, json};

use super::super::super::types::{Bindings, DType};
use super::super::launch::{Arg, Launch, Operand, storage_line};
use super::super::sources;
use super::{Case, bytes, same_bits};

/// The request the emulator reads, and the sizes of the buffers it answers with.
fn request<'a>(cases: impl ExactSizeIterator<Item = &'a Case>) -> (Vec<u8>, Vec<Vec<usize>>) {
    let (mut out, mut sizes) = (Vec::new(), Vec::new());
    word(&mut out, cases.len() as u32);
    for case in cases {
        let launches = case.launches();
        let mut buffers: Vec<Vec<u8>> = case.inputs.iter().map(bytes).collect();
        let outputs = case.outputs();
        let garbage = |n: u64| vec![0xff_u8; n as usize];
        buffers.extend(
            outputs
                .iter()
                .map(|t| garbage(t.bytes(&Bindings::default()))),
        );
        buffers.extend(launches.scratch.iter().map(|&n| garbage(n)));
        buffers.push(vec![0; 12]);
        let place = |operand: Operand| -> u32 {
            let at = match operand {
                Operand::In(i) => i,
                Operand::Out(0) if case.taken.is_some() => case.taken.unwrap_or(0),
                Operand::Out(i) => case.inputs.len() + i,
                Operand::Scratch(i) => case.inputs.len() + outputs.len() + i,
                Operand::Fault => buffers.len() - 1,
            };
            at as u32
        };
        word(&mut out, buffers.len() as u32);
        for buffer in &buffers {
            out.extend((buffer.len() as u64).to_le_bytes());
            out.extend(buffer);
        }
        word(&mut out, launches.list.len() as u32);
        for launch in &launches.list {
            encode(&mut out, launch, &place);
        }
        sizes.push(buffers.iter().map(Vec::len).collect());
    }
    (out, sizes)
}

/// Appends one launch as the emulator reads it; `place` says which buffer an operand is.
fn encode(out: &mut Vec<u8>, launch: &Launch, place: &dyn Fn(Operand) -> u32) {
    match launch {
        Launch::Call(call) => {
            out.push(0);
            let name = format!(
                "{}/{}",
                in_namespace(call.source, call.stored_in),
                call.name()
            );
            word(out, name.len() as u32);
            out.extend(name.as_bytes());
            for x in [call.grid[0], call.grid[1], call.block, call.shared] {
                word(out, x);
            }
            word(out, call.args.len() as u32);
            for &arg in &call.args {
                let (kind, value) = match arg {
                    Arg::At(operand) => (0, u64::from(place(operand))),
                    Arg::Null => (1, 0),
                    Arg::U32(x) => (2, u64::from(x)),
                    Arg::U64(x) => (3, x),
                    Arg::F32(x) => (4, u64::from(x.to_bits())),
                    Arg::F64(x) => (5, x.to_bits()),
                };
                out.push(kind);
                out.extend(value.to_le_bytes());
            }
        }
        Launch::Product(p) => {
            out.push(1);
            let flags = u32::from(p.a_t)
                | u32::from(p.b_t) << 1
                | (p.precision as u32) << 2
                | u32::from(p.narrow) << 4;
            for x in [
                flags,
                p.m,
                p.n,
                p.k,
                place(p.a),
                place(p.b),
                p.lda,
                p.ldb,
                p.ldc,
            ] {
                word(out, x);
            }
            out.extend(p.first.to_le_bytes());
            out.extend(p.alpha.to_le_bytes());
            out.extend(p.beta.to_le_bytes());
            word(out, place(p.c));
        }
        Launch::Copy { from, to } => {
            out.push(2);
            word(out, place(*from));
            word(out, place(*to));
        }
        Launch::Table { to, words } => {
            out.push(4);
            word(out, place(*to));
            word(out, words.len() as u32);
            for &arg in words {
                out.push(u8::from(matches!(arg, Arg::At(_))));
                let value = arg.word(|operand| Ok::<u64, ()>(place(operand).into()));
                out.extend(value.expect("a word").to_le_bytes());
            }
        }
        Launch::Upload { to, words } => {
            out.push(3);
            word(out, place(*to));
            word(out, words.len() as u32 * 4);
            out.extend(words.iter().flat_map(|x| x.to_le_bytes()));
        }
    }
}

fn word(out: &mut Vec<u8>, x: u32) {
    out.extend(x.to_le_bytes());
}

/// The namespace of a source with activations stored so.
pub(super) fn in_namespace(source: &str, stored_in: DType) -> String {
    match stored_in {
        DType::F32 => source.to_owned(),
        stored_in => format!("{source}_as_{stored_in}"),
    }
}

/// The kernels of a source: the names behind `__global__ void`, and those that its macros make.
pub(super) fn kernels(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let identifier = |s: &str| -> String {
        s.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let after = |mark: &'static str| text.split(mark).skip(1).map(identifier).collect::<Vec<_>>();
    let plain = after("__global__ void ");
    let plain = plain.into_iter().filter(|name| name != "NAMED");
    for name in plain.chain(after("__global__ void NAMED(")) {
        match name.as_str() {
            "name" => names.extend(after("\nATTENTION(")),
            "attention_grad_queries_" | "attention_grad_keys_" => {
                names.extend(
                    after("\nATTENTION_GRAD(")
                        .iter()
                        .map(|n| format!("{name}{n}")),
                );
            }
            _ => names.push(name),
        }
    }
    names
}

/// Whether a source's kernels know activations in 16 bits.
pub(super) fn is_stored_in(own: &str) -> bool {
    own.contains("void NAMED(")
}

/// A kernel source in a namespace for each type that it knows activations in, and the rows of its kernels in a table.
fn namespaces(name: &str, own: &str, table: &mut Vec<String>) -> String {
    let kinds: &[DType] = match is_stored_in(own) {
        true => &[DType::F32, DType::F16, DType::BF16],
        false => &[DType::F32],
    };
    let mut text = String::new();
    for &stored_in in kinds {
        let name = in_namespace(name, stored_in);
        text.push_str(storage_line(stored_in));
        text.push_str(&format!("namespace of_{name} {{\n{own}\n}}\n"));
        table.extend(kernels(own).iter().map(|k| {
            let kernel = in_namespace(k, stored_in);
            format!("KERNEL({name}, {kernel})")
        }));
        for name in ["HELD", "NAMED", "ATTENTION", "ATTENTION_GRAD"] {
            text.push_str(&format!("#undef {name}\n"));
        }
    }
    text
}

/// The emulator's sources, each a file that is compiled for itself: the kernel sources, dealt to `parts` files in turn,
/// with a table of their kernels, and what runs the lists.
fn program(parts: usize) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cuda");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a source");
    let common = include_str!("../common.cuh");
    let head = format!("{}\n{}\n{common}\n", read("shim.h"), read("table.h"));
    let mut texts = vec![head.clone(); parts];
    let mut tables = vec![Vec::new(); parts];
    for (i, source) in sources().enumerate() {
        let own = source.text.strip_prefix(common);
        let own = own.expect("the common part first");
        texts[i % parts] += &namespaces(source.name, own, &mut tables[i % parts]);
    }
    let (mut runs, mut called) = (head, Vec::new());
    for (i, (text, table)) in texts.iter_mut().zip(tables).enumerate() {
        let (says, table) = (
            format!("std::vector<emulation::Kernel> kernels_{i}()"),
            table.join(", "),
        );
        text.push_str(&format!("{says} {{ return {{{table}}}; }}\n"));
        runs.push_str(&format!("{says};\n"));
        called.push(format!("kernels_{i}()"));
    }
    let called = format!("{{{}}}", called.join(", "));
    texts.push(runs + &read("emulator.cpp").replace("{KERNELS}", &called));
    texts
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

const FLAGS: [&str; 5] = [
    "-std=c++17",
    "-O1",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-w",
];

/// Starts the compiler; `None` where there is none.
fn start(compiler: &mut Command) -> Option<Child> {
    match compiler.stderr(Stdio::piped()).spawn() {
        Ok(child) => Some(child),
        Err(why) => {
            let name = compiler.get_program().display();
            let said = format!("`{name}` cannot be run ({why})");
            assert!(
                std::env::var_os("CI").is_none(),
                "{said}: the CUDA kernels are not tested"
            );
            eprintln!("THE CUDA KERNELS ARE NOT TESTED: {said}");
            None
        }
    }
}

/// Waits for a compiler, which has to succeed.
fn ends(compiler: Child) {
    let output = compiler.wait_with_output().expect("the compiler ends");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the kernels do not compile:\n{log}"
    );
}

/// Compiles what [`program`] gives beside the tests' own program, a file a process. What an earlier run compiled of the
/// same texts is taken as it is.
fn build() -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let texts = program(processors());
    let mut hash = blake3::Hasher::new();
    let all = texts.iter().map(String::as_str);
    for text in all.chain(FLAGS).chain([compiler.as_str()]) {
        hash.update(blake3::hash(text.as_bytes()).as_bytes());
    }
    let own = std::env::current_exe().expect("the tests' program");
    let folder = own.parent().expect("its folder").join("emulator");
    let built = folder.join(hash.finalize().to_hex().as_str());
    if built.exists() {
        return Some(built);
    }
    // Builds of other texts serve nobody.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let made = tempfile::tempdir_in(&folder).expect("a folder");
    let at = |name: &str| made.path().join(name);
    let object = |i: usize| at(&format!("{i}.o"));
    let mut running = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let source = at(&format!("{i}.cpp"));
        std::fs::write(&source, text).expect("written");
        let mut command = Command::new(&compiler);
        command.args(FLAGS).arg("-c").arg(&source);
        running.push(start(command.arg("-o").arg(object(i)))?);
    }
    running.into_iter().for_each(ends);
    let mut link = Command::new(&compiler);
    link.args((0..texts.len()).map(object));
    ends(start(link.arg("-o").arg(at("emulator")))?);
    std::fs::rename(at("emulator"), &built).expect("renamed");
    Some(built)
}

/// The emulator, built once. `None` where there is no compiler.
fn emulator() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref()
}

/// A type and its sizes, for [`about`].
fn described(dtype: impl std::fmt::Display, dims: &[usize]) -> Json {
    json!([dtype.to_string(), dims])
}

/// What a reader elsewhere has to know of a case, which the request does not say.
fn about(case: &Case) -> Json {
    let outputs = case.outputs();
    let outputs = outputs.iter().map(|x| {
        let dims = x.dims(&Bindings::default());
        described(x.stored, &dims)
    });
    let inputs = case.inputs.iter().map(|x| described(x.dtype(), &x.dims));
    let precision = case.op.clone().products_mut().map(|x| format!("{x:?}"));
    json!({
        "op": case.op.name(),
        "text": format!("{:?}", case.op),
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
        "updates": case.op.rule().updates(),
        "taken": case.taken,
        "bad": case.bad,
        "given": case.given.is_some(),
        "held": case.stored_in.as_ref().map(|(dtype, _, _)| dtype.to_string()),
        "precision": precision,
        "same_bits": same_bits().contains(&case.op.name()) && case.stored_in.is_none(),
    })
}

/// The sources and what is known of the cases, for `tests/cuda/on_card.py`.
fn explain(folder: &Path, cases: &[Case]) {
    let texts: serde_json::Map<_, _> = sources()
        .map(|s| (s.name.to_owned(), Json::from(s.text)))
        .collect();
    let text = serde_json::to_vec(&texts).expect("sources");
    std::fs::write(folder.join("sources"), text).expect("written");
    let lines: Vec<String> = cases.iter().map(|x| about(x).to_string()).collect();
    std::fs::write(folder.join("about"), lines.join("\n")).expect("written");
}

/// Runs cases through the emulation; the buffers of each afterwards. `None` where there is no compiler. A folder that
/// `EMULATION` names gets a folder `name`, with all that a GPU's answers are compared by.
pub(super) fn emulate(name: &str, cases: &[Case]) -> Option<Vec<Vec<Vec<u8>>>> {
    let dir = tempfile::tempdir().expect("a folder");
    let kept = std::env::var_os("EMULATION").map(|x| Path::new(&x).join(name));
    if let Some(folder) = &kept {
        std::fs::create_dir_all(folder).expect("a folder");
        explain(folder, cases);
    }
    let emulator = emulator()?;
    // What is kept is one list of all cases.
    let parts = if kept.is_some() { 1 } else { processors() };
    let start = |part: usize| {
        let (request, sizes) = request(cases.iter().skip(part).step_by(parts));
        let at = |name: &str| match &kept {
            Some(folder) => folder.join(name),
            None => dir.path().join(format!("{name}.{part}")),
        };
        std::fs::write(at("in"), request).expect("written");
        let mut command = Command::new(emulator);
        let command = command.args([at("in"), at("out")]).stderr(Stdio::piped());
        (command.spawn().expect("it starts"), at("out"), sizes)
    };
    let running: Vec<_> = (0..parts).map(start).collect();
    let mut answers = vec![Vec::new(); cases.len()];
    for (part, (child, out, sizes)) in running.into_iter().enumerate() {
        let ran = child.wait_with_output().expect("the emulator ends");
        let log = String::from_utf8_lossy(&ran.stderr);
        assert!(
            ran.status.success(),
            "the emulator of every {parts}th case from {part} on ended with {:?}: {log}",
            ran.status
        );
        let answer = std::fs::read(out).expect("an answer");
        let mut rest = answer.as_slice();
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head.to_vec()
        };
        let own = answers.iter_mut().skip(part).step_by(parts);
        for (buffers, sizes) in own.zip(&sizes) {
            *buffers = sizes.iter().map(|&n| take(n)).collect();
        }
    }
    Some(answers)
}
