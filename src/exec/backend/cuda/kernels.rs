//! Kernels, compiled by NVRTC on first use; what it made is cached.

use cudarc::driver::{CudaFunction, sys};
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};

use super::{Cuda, driver};
use crate::files::{RunError, cache, durable};
use crate::program::op::launch::{Call, storage_line};
use crate::program::op::sources;

impl Cuda {
    /// A kernel, compiled and loaded if it is asked for the first time.
    pub(super) fn function(&mut self, call: &Call) -> Result<CudaFunction, RunError> {
        if let Some(function) = self.functions.get(&(call.kernel, call.held)) {
            return Ok(function.clone());
        }
        let module = match self.modules.get(&(call.source, call.held)) {
            Some(module) => module.clone(),
            None => {
                let source = sources().find(|s| s.name == call.source);
                let source =
                    source.ok_or_else(|| RunError::bug(format!("no source `{}`", call.source)))?;
                let text = format!("{}{}", storage_line(call.held), source.text);
                let ptx = compile(&text, &self.architecture)?;
                let module = self.context.load_module(Ptx::from_src(ptx));
                let module = module.map_err(|e| driver("load a kernel", e))?;
                self.modules
                    .insert((source.name, call.held), module.clone());
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
            .insert((call.kernel, call.held), function.clone());
        Ok(function)
    }
}

/// PTX of a source for an architecture: from the cache, if it is there and whole.
fn compile(source: &str, architecture: &str) -> Result<String, RunError> {
    let options = CompileOptions {
        ftz: Some(false),
        prec_sqrt: Some(true),
        prec_div: Some(true),
        fmad: Some(false),
        options: vec![
            "--std=c++17".to_owned(),
            format!("--gpu-architecture={architecture}"),
        ],
        ..CompileOptions::default()
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{options:?}\u{1f}13\u{1f}").as_bytes());
    hasher.update(source.as_bytes());
    let kept = cache("kernels").map(|dir| dir.join(format!("{}.ptx", hasher.finalize().to_hex())));
    if let Some(ptx) = kept.as_ref().and_then(|path| whole(path)) {
        return Ok(ptx);
    }
    let ptx = compile_ptx_with_opts(source, options).map_err(|error| {
        RunError::Device(match error {
            CompileError::CompileError { log, nvrtc, .. } => format!(
                "NVRTC could not compile a kernel for {architecture} ({nvrtc:?}: {}); install NVRTC of CUDA 13 with its libnvrtc-builtins beside it in LD_LIBRARY_PATH, or use `--device cpu`",
                log.to_string_lossy().trim()
            ),
            other => format!("NVRTC does not work ({other:?}); install NVRTC of CUDA 13, or use `--device cpu`"),
        })
    })?;
    let bytes = ptx.as_bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(bytes)
        .trim_end_matches('\0')
        .to_owned();
    if let Some(path) = kept {
        // A cache that cannot be written costs time only.
        let _ = path.parent().map(durable::create_dirs);
        let seal = format!("// {}\n{text}", blake3::hash(text.as_bytes()).to_hex());
        let _ = durable::write_bytes(&path, seal.as_bytes());
    }
    Ok(text)
}

/// A kept text, if its first line vouches for the rest.
fn whole(path: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let (seal, ptx) = text.split_once('\n')?;
    let good = seal.strip_prefix("// ") == Some(blake3::hash(ptx.as_bytes()).to_hex().as_str());
    good.then(|| ptx.to_owned())
}
