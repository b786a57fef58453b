//! Kernels, compiled by NVRTC to machine code before they are first wanted; what it made is cached.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use cudarc::driver::{CudaFunction, sys};
use cudarc::nvrtc::result::{compile_program, create_program, destroy_program, get_program_log};
use cudarc::nvrtc::{Ptx, result::NvrtcError, sys as nvrtc};

use super::{Cuda, driver};
use crate::files::{RunError, cache, durable};
use crate::program::op::launch::{Call, Launch, storage_line};
use crate::program::op::sources;
use crate::program::together::launches;
use crate::program::{Bindings, DType, Verified};

/// Threads that compile ahead. More would take as long, since the largest source is a quarter of all.
const THREADS: usize = 4;

/// A source, and the type that activations are held in.
pub(super) type Module = (&'static str, DType);

/// Machine code, or why there is none.
type Made = Result<Arc<Vec<u8>>, String>;

/// Machine code that threads make ahead of its first use. `None` is being made.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    table: Mutex<BTreeMap<Module, Option<Made>>>,
    changed: Condvar,
}

impl Ahead {
    /// The code of a module that is made ahead, which is waited for; nothing, if nobody makes it.
    fn wait(&self, module: Module) -> Option<Made> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match table.get(&module)? {
                Some(made) => return Some(made.clone()),
                None => {
                    let waited = self.changed.wait(table);
                    table = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn put(&self, module: Module, made: Option<Made>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match made {
            Some(made) => drop(table.insert(module, Some(made))),
            None => drop(table.remove(&module)),
        }
        self.changed.notify_all();
    }

    /// Has modules made that nobody has asked for yet, the longest sources first.
    fn begin(self: &Arc<Self>, modules: BTreeSet<Module>, architecture: &str) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh: Vec<Module> = modules
            .into_iter()
            .filter(|module| !table.contains_key(module))
            .collect();
        table.extend(fresh.iter().map(|&module| (module, None)));
        drop(table);
        let length = |name| sources().find(|s| s.name == name).map(|s| s.text.len());
        fresh.sort_by_key(|&(name, _)| length(name));
        let count = fresh.len().min(THREADS);
        let queue = Arc::new(Mutex::new(fresh));
        let mut started = 0;
        for _ in 0..count {
            let (own, queue, architecture) = (self.clone(), queue.clone(), architecture.to_owned());
            let work = move || {
                while let Some(module) = next(&queue) {
                    let made = catch_unwind(|| machine_code(module, &architecture));
                    own.put(module, made.ok().map(|made| made.map(Arc::new)));
                }
            };
            started += usize::from(thread::Builder::new().spawn(work).is_ok());
        }
        if started == 0 {
            // Each is then made when it is first wanted.
            while let Some(module) = next(&queue) {
                self.put(module, None);
            }
        }
    }
}

fn next(queue: &Mutex<Vec<Module>>) -> Option<Module> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.pop()
}

impl Cuda {
    /// Has the kernels compiled that a program launches, while weights are loaded.
    pub(super) fn compile_ahead(&self, program: &Verified) {
        let (nodes, schedule) = (program.program(), program.schedule());
        // Which kernels there are hardly depends on sizes; what is missing is compiled when it is wanted.
        let sizes = Bindings::of_lengths([1]);
        let groups = schedule.groups.iter();
        let lists =
            groups.filter_map(|group| launches(nodes, &schedule.steps, group.clone(), &sizes));
        let mut modules = BTreeSet::new();
        for launch in lists.flat_map(|own| own.list) {
            if let Launch::Call(call) = launch {
                modules.insert((call.source, call.stored_in));
            }
        }
        self.ahead.begin(modules, &self.architecture);
    }

    /// A kernel, compiled and loaded if it is asked for the first time.
    pub(super) fn function(&mut self, call: &Call) -> Result<CudaFunction, RunError> {
        if let Some(function) = self.functions.get(&(call.kernel, call.stored_in)) {
            return Ok(function.clone());
        }
        let wanted = (call.source, call.stored_in);
        let module = match self.modules.get(&wanted) {
            Some(module) => module.clone(),
            None => {
                let made = self.ahead.wait(wanted);
                let made =
                    made.unwrap_or_else(|| machine_code(wanted, &self.architecture).map(Arc::new));
                let code = made.map_err(RunError::Device)?;
                let module = self.context.load_module(Ptx::from_binary(code.to_vec()));
                let module = module.map_err(|e| driver("load a kernel", e))?;
                self.modules.insert(wanted, module.clone());
                module
            }
        };
        let function = module
            .load_function(&call.name())
            .map_err(|e| driver("find a kernel", e))?;
        if call.shared > 0 {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED;
            // All that the least of devices has: a kernel's need varies with the heads' width.
            function
                .set_attribute(SHARED, 99 << 10)
                .map_err(|e| driver("give a kernel shared memory", e))?;
        }
        self.functions
            .insert((call.kernel, call.stored_in), function.clone());
        Ok(function)
    }
}

/// Machine code of a module for an architecture (`sm_90`): from the cache, if it is there and whole.
fn machine_code((name, stored_in): Module, architecture: &str) -> Result<Vec<u8>, String> {
    let source = sources().find(|s| s.name == name);
    let source = source.ok_or_else(|| format!("a bug in peftc: there is no source `{name}`"))?;
    let text = format!("{}{}", storage_line(stored_in), source.text);
    let options = [
        "--ftz=false",
        "--prec-sqrt=true",
        "--prec-div=true",
        "--fmad=false",
        "--std=c++17",
        &format!("--gpu-architecture={architecture}"),
    ];
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{options:?}\u{1f}13\u{1f}").as_bytes());
    hasher.update(text.as_bytes());
    let kept =
        cache("kernels").map(|dir| dir.join(format!("{}.cubin", hasher.finalize().to_hex())));
    if let Some(code) = kept.as_ref().and_then(|path| whole(path)) {
        return Ok(code);
    }
    let code = compile(&text, &options).map_err(|why| {
        format!("NVRTC could not compile a kernel for {architecture} ({why}); install NVRTC of CUDA 13 with its libnvrtc-builtins beside it in LD_LIBRARY_PATH, or use `--device cpu`")
    })?;
    if let Some(path) = kept {
        // A cache that cannot be written costs time only.
        let _ = path.parent().map(durable::create_dirs);
        let mut sealed = blake3::hash(&code).as_bytes().to_vec();
        sealed.extend(&code);
        let _ = durable::write_bytes(&path, &sealed);
    }
    Ok(code)
}

/// What NVRTC makes of a source.
fn compile(source: &str, options: &[&str]) -> Result<Vec<u8>, String> {
    let said = |error: NvrtcError| format!("{error:?}");
    let source = CString::new(source).map_err(|e| e.to_string())?;
    let program = create_program(&source, None).map_err(said)?;
    // SAFETY: the program is live until it is destroyed below, and so is its source; the code has the size
    // that NVRTC says it has.
    unsafe {
        let made = compile_program(program, options).and_then(|()| {
            let mut size = 0;
            nvrtc::nvrtcGetCUBINSize(program, &raw mut size).result()?;
            let mut code = vec![0_u8; size];
            nvrtc::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result()?;
            Ok(code)
        });
        let made = made.map_err(|error| {
            let log = get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(|c| c as u8).collect();
            let log = String::from_utf8_lossy(&log);
            format!("{error:?}: {}", log.trim_matches(['\0', '\n', ' ']))
        });
        let _ = destroy_program(program);
        made
    }
}

/// Kept code, if the hash before it vouches for it.
fn whole(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let (seal, code) = bytes.split_at_checked(blake3::OUT_LEN)?;
    (seal == blake3::hash(code).as_bytes()).then(|| code.to_vec())
}
