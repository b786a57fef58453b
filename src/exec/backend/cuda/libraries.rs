//! CUDA's libraries, found and loaded when a GPU is first wanted: no build needs a toolkit, and no program a GPU.
#![expect(
    unsafe_code,
    reason = "loading a library runs its initialisers; these are NVIDIA's own"
)]

use std::path::{Path, PathBuf};

use crate::files::RunError;
use cudarc::{cublas, driver, nvrtc};

/// Folders that installers of drivers and toolkits use.
const USUAL: [&str; 9] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
    "/opt/cuda/lib64",
];

/// Loads the driver, NVRTC and cuBLAS. The loader's own search comes first, with `LD_LIBRARY_PATH`; then [`folders`].
///
/// # Errors
/// The first that is not found, and what to do about it.
pub(super) fn load() -> Result<(), RunError> {
    // SAFETY: see the top of the file.
    let found = unsafe {
        [
            driver::sys::is_culib_present() || preload(&["libcuda.so.1"]),
            nvrtc::sys::is_culib_present() || preload(&["libnvrtc-builtins.so", "libnvrtc.so"]),
            cublas::sys::is_culib_present() || preload(&["libcublasLt.so", "libcublas.so"]),
        ]
    };
    let missing = |what: &str, remedy: &str| {
        Err(RunError::Device(format!(
            "{what} is not found; {remedy}, or use `--device cpu` (`peftc doctor --device cuda` says more)"
        )))
    };
    let toolkit = "install it with CUDA 13, or with `pip install nvidia-cuda-nvrtc nvidia-cublas`, and add its folder to LD_LIBRARY_PATH";
    match found {
        [true, true, true] => Ok(()),
        [false, ..] => missing(
            "NVIDIA's driver (libcuda.so.1)",
            "install driver 580 or newer; in a container, hand the GPU in (`--gpus all`)",
        ),
        [_, false, _] => missing("NVRTC (libnvrtc.so)", toolkit),
        [_, _, false] => missing("cuBLAS (libcublas.so)", toolkit),
    }
}

/// Loads libraries of one folder, each the first whose name begins so, and keeps them: whoever asks for one by its name
/// then gets it.
fn preload(stems: &[&str]) -> bool {
    let last = stems.last().copied().unwrap_or_default();
    folders()
        .iter()
        .filter(|dir| in_folder(dir, last).is_some())
        .any(|dir| {
            let mut opened = false;
            for path in stems.iter().filter_map(|stem| in_folder(dir, stem)) {
                // SAFETY: see the top of the file.
                opened = match unsafe { open(&path) } {
                    Some(library) => {
                        std::mem::forget(library);
                        true
                    }
                    None => false,
                };
            }
            opened
        })
}

#[cfg(unix)]
unsafe fn open(path: &Path) -> Option<libloading::os::unix::Library> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the caller's.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.ok()
}

#[cfg(not(unix))]
unsafe fn open(path: &Path) -> Option<libloading::Library> {
    // SAFETY: the caller's.
    unsafe { libloading::Library::new(path) }.ok()
}

/// Where libraries may lie that the loader does not know of: `CUDA_HOME`, packages of Python environments (PyTorch brings
/// them), and the usual places.
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let mut list = Vec::new();
    for home in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(var) {
        list.extend([home.join("lib64"), home.join("lib")]);
    }
    let mut prefixes: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .into_iter()
        .filter_map(var)
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let python = std::env::split_paths(&path).find(|dir| dir.join("python3").is_file());
    prefixes.extend(python.and_then(|dir| Some(dir.parent()?.to_path_buf())));
    for prefix in prefixes {
        for version in entries(&prefix.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                let each = entries(&version.join(packages).join("nvidia"), "");
                list.extend(each.into_iter().map(|dir| dir.join("lib")));
            }
        }
    }
    list.extend(USUAL.iter().map(PathBuf::from));
    list
}

/// What a folder has whose name begins so, in order.
fn entries(dir: &Path, start: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let named = all.filter(|e| e.file_name().to_string_lossy().starts_with(start));
    let mut list: Vec<PathBuf> = named.map(|e| e.path()).collect();
    list.sort();
    list
}

/// The first library in a folder whose file name is `stem` or begins with `stem` and a dot.
#[must_use]
pub fn in_folder(dir: &Path, stem: &str) -> Option<PathBuf> {
    let is = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rest = name.strip_prefix(stem).map(str::to_owned);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    entries(dir, stem).into_iter().find(|p| is(p) && p.exists())
}
