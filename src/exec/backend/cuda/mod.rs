//! NVIDIA GPUs: memory from the driver's stream-ordered pool, kernels, products by cuBLAS. One stream, so things happen
//! in the order they are asked for.
#![expect(
    unsafe_code,
    reason = "kernels get raw addresses; their sizes come from the same table as the launches"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use cudarc::cublas::{CudaBlas, sys as cublas_sys};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr,
    DriverError, LaunchConfig, PinnedHostSlice, PushKernelArg, sys,
};

use super::{Applied, Backend, Block, Blocks, Download, Mark, Ticket, fault_type};
use crate::files::RunError;
use crate::files::tensorfile::{bytes_of, bytes_of_mut};
use crate::program::device::cublas_workspace;
use crate::program::op::Tensor;
use crate::program::op::launch::{Arg, Call, Launch, Launches, Operand};
use crate::program::{Bindings, DType, TensorType, Verified};

mod constants;
mod kernels;
mod libraries;
mod product;
mod profile;
mod stage;

pub use libraries::{folders as library_folders, in_folder as library_in};
use product::product_failed;
use profile::Profile;
use stage::Stage;

/// Oldest architecture: shared memory of 99 KiB a block, and what NVRTC 13 compiles for.
const OLDEST: (i32, i32) = (8, 0);

/// Pinned buffers taken in turn, made as they are needed: some batches ahead, kept features included.
const STAGES: usize = 128;

/// Pinned memory for downloads: losses and scores of the runs that are not observed yet.
const RETURNS: usize = 1 << 18;

/// A GPU.
#[derive(Debug)]
pub struct Cuda {
    // Dropped in this order: what lives on the stream before the stream.
    profile: Option<Profile>,
    blocks: Vec<Option<CudaSlice<u8>>>,
    free: Vec<usize>,
    stages: Vec<Stage>,
    stage: usize,
    returns: PinnedHostSlice<u8>,
    /// Where it is taken by tickets that were not collected yet, and for how many bytes; where it was taken last.
    taken: BTreeMap<usize, usize>,
    next: usize,
    marks: VecDeque<(Mark, CudaEvent)>,
    marked: u64,
    blas: CudaBlas,
    workspace: CudaSlice<u8>,
    /// Whether a kernel met an index outside its table, and which.
    fault: Block,
    functions: BTreeMap<(&'static str, DType), CudaFunction>,
    modules: BTreeMap<kernels::Module, Arc<CudaModule>>,
    ahead: Arc<kernels::Ahead>,
    /// What ops upload, by its words.
    constants: BTreeMap<Vec<u32>, Block>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    architecture: String,
}

/// A driver's error in a sentence.
fn driver(what: &str, error: DriverError) -> RunError {
    use sys::CUresult as R;
    let name = error.error_string().map_or_else(
        |_| format!("{:?}", error.0),
        |s| s.to_string_lossy().into_owned(),
    );
    if error.0 == R::CUDA_ERROR_OUT_OF_MEMORY {
        return RunError::Memory {
            what: format!("the GPU has too little free memory to {what}"),
        };
    }
    RunError::Device(match error.0 {
        R::CUDA_ERROR_NO_DEVICE => {
            "there is no NVIDIA GPU that this process may use (`nvidia-smi` lists them; CUDA_VISIBLE_DEVICES may hide them); use `--device cpu`".to_owned()
        }
        R::CUDA_ERROR_STUB_LIBRARY => {
            "libcuda.so.1 is the toolkit's stub, not the driver's; put the driver's folder first in LD_LIBRARY_PATH, or use `--device cpu`".to_owned()
        }
        R::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | R::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => format!(
            "the NVIDIA driver is older than the CUDA libraries ({name}); install driver 580 or newer, or use `--device cpu`"
        ),
        _ => format!("the GPU could not {what}: {name}; use `--device cpu` if it stays so"),
    })
}

impl Cuda {
    /// Whether there are CUDA's libraries and a GPU of this number.
    ///
    /// # Errors
    /// What is missing.
    pub fn is_ready(ordinal: u32) -> Result<(), RunError> {
        libraries::load()?;
        let count = CudaContext::device_count().map_err(|e| driver("be found", e))?;
        if i64::from(ordinal) < i64::from(count) {
            return Ok(());
        }
        Err(RunError::Device(format!(
            "there is no GPU {ordinal}: {count} can be seen, counted from 0"
        )))
    }

    /// Opens a GPU by its number.
    ///
    /// # Errors
    /// No driver, no such GPU, or one that is too old.
    pub fn open(ordinal: u32) -> Result<Self, RunError> {
        Self::is_ready(ordinal)?;
        let context =
            CudaContext::new(ordinal as usize).map_err(|error| driver("be opened", error))?;
        let failed = |error| driver("be opened", error);
        let (major, minor) = context.compute_capability().map_err(failed)?;
        if (major, minor) < OLDEST {
            return Err(RunError::Device(format!(
                "GPU {ordinal} has compute capability {major}.{minor}; {}.{} or newer is needed, or `--device cpu`",
                OLDEST.0, OLDEST.1
            )));
        }
        // SAFETY: all work goes to one stream, so no event has to order it.
        unsafe { context.disable_event_tracking() };
        keep_freed_memory(&context).map_err(failed)?;
        let stream = context.new_stream().map_err(failed)?;
        let blas = CudaBlas::new(stream.clone()).map_err(product_failed)?;
        let scratch = cublas_workspace(major.unsigned_abs()) as usize;
        // SAFETY: nothing reads the workspace before cuBLAS writes it.
        let workspace = unsafe { stream.alloc::<u8>(scratch) }.map_err(failed)?;
        let address = address(&workspace, &stream);
        // SAFETY: the handle is live, and the workspace lives as long as it.
        unsafe {
            cublas_sys::cublasSetWorkspace_v2(*blas.handle(), address as *mut _, scratch)
                .result()
                .map_err(product_failed)?;
            // TF32 only where a product asks for it, and parts of a sum in f32 where its result is bf16.
            cublas_sys::cublasSetMathMode(
                *blas.handle(),
                cublas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION,
            )
            .result()
            .map_err(product_failed)?;
        }
        // SAFETY: bytes that a copy from the device has written are read, no others. No flag: what is read here
        // must not be write-combined.
        let returns =
            unsafe { context.alloc_pinned_with_flags::<u8>(RETURNS, 0) }.map_err(failed)?;
        let mut cuda = Self {
            profile: Profile::asked(),
            blocks: Vec::new(),
            free: Vec::new(),
            stages: Vec::new(),
            stage: 0,
            returns,
            taken: BTreeMap::new(),
            next: 0,
            marks: VecDeque::new(),
            marked: 0,
            blas,
            workspace,
            functions: BTreeMap::new(),
            modules: BTreeMap::new(),
            ahead: Arc::default(),
            constants: BTreeMap::new(),
            stream,
            context,
            architecture: format!("sm_{major}{minor}"),
            fault: Block { index: 0, bytes: 0 },
        };
        cuda.fault = cuda.alloc(&fault_type(), &Bindings::default())?;
        cuda.upload(cuda.fault, &Tensor::zeros(DType::U32, &[3]))?;
        Ok(cuda)
    }

    fn slice(&self, block: Block) -> Result<&CudaSlice<u8>, RunError> {
        let slice = self.blocks.get(block.index).and_then(Option::as_ref);
        slice.ok_or_else(|| RunError::bug("a block of the GPU is used after it was freed"))
    }

    fn address(&self, block: Block) -> Result<u64, RunError> {
        Ok(address(self.slice(block)?, &self.stream))
    }

    fn operand(&self, blocks: &Blocks<'_>, operand: Operand) -> Result<Block, RunError> {
        let found = match operand {
            Operand::In(i) => blocks.inputs.get(i).copied(),
            Operand::Out(i) => blocks.outputs.get(i).copied(),
            Operand::Scratch(i) => blocks.scratch.get(i).copied(),
            Operand::Fault => Some(self.fault),
        };
        found.ok_or_else(|| RunError::bug("a launch names an operand that is not there"))
    }

    fn call(&mut self, call: &Call, blocks: &Blocks<'_>) -> Result<(), RunError> {
        let function = self.function(call)?;
        // Little-endian: a 32-bit argument is the first half of its word.
        let words = self.words(&call.args, blocks)?;
        let mut builder = self.stream.launch_builder(&function);
        for word in &words {
            builder.arg(word);
        }
        let [x, y] = call.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (call.block, 1, 1),
            shared_mem_bytes: call.shared,
        };
        // SAFETY: addresses are of live blocks whose sizes are those the launch was made for; a test
        // holds every launch's arguments against its kernel's parameters.
        unsafe { builder.launch(config) }
            .map(drop)
            .map_err(|e| driver(&format!("start the kernel `{}`", call.name()), e))
    }

    fn words(&self, args: &[Arg], blocks: &Blocks<'_>) -> Result<Vec<u64>, RunError> {
        let address = |operand| self.address(self.operand(blocks, operand)?);
        args.iter().map(|arg| arg.word(address)).collect()
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Pinned memory must outlive the copies that read it; what the driver says then reaches nobody.
        let _ = self.stream.synchronize();
    }
}

fn address(slice: &CudaSlice<u8>, stream: &CudaStream) -> u64 {
    slice.device_ptr(stream).0
}

/// The pool keeps what is freed: a step asks for the same sizes again. What an earlier stage left there is given
/// back first.
fn keep_freed_memory(context: &CudaContext) -> Result<(), DriverError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    let mut all = u64::MAX;
    // SAFETY: the context is live; the attribute is a 64-bit number.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()).result()?;
        sys::cuMemPoolTrimTo(pool, 0).result()?;
        sys::cuMemPoolSetAttribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut all).cast(),
        )
        .result()
    }
}

impl Backend for Cuda {
    fn expects(&self, program: &Verified) {
        self.compile_ahead(program);
    }

    fn free_bytes(&self) -> Result<Option<u64>, RunError> {
        let (free, _) = self
            .context
            .mem_get_info()
            .map_err(|e| driver("be asked for its free memory", e))?;
        Ok(Some((free + self.workspace.num_bytes()) as u64))
    }

    fn alloc(&mut self, ty: &TensorType, sizes: &Bindings) -> Result<Block, RunError> {
        let bytes = ty.bytes(sizes);
        // SAFETY: a block's contents are written before they are read, as the processor's are.
        let slice = unsafe { self.stream.alloc::<u8>(bytes.max(4) as usize) }
            .map_err(|e| driver(&format!("hold {} MiB more", bytes.div_ceil(1 << 20)), e))?;
        let index = match self.free.pop() {
            Some(at) => {
                if let Some(slot) = self.blocks.get_mut(at) {
                    *slot = Some(slice);
                }
                at
            }
            None => {
                self.blocks.push(Some(slice));
                self.blocks.len() - 1
            }
        };
        Ok(Block { index, bytes })
    }

    fn free(&mut self, block: Block) {
        if self
            .blocks
            .get_mut(block.index)
            .and_then(Option::take)
            .is_some()
        {
            self.free.push(block.index);
        }
    }

    fn upload(&mut self, block: Block, tensor: &Tensor) -> Result<(), RunError> {
        self.send(block, bytes_of(tensor))
    }

    fn download(&mut self, block: Block, tensor: &mut Tensor) -> Result<(), RunError> {
        let to = bytes_of_mut(tensor);
        if !to.is_empty() {
            let from = self.slice(block)?.try_slice(..to.len());
            let from = from.ok_or_else(|| RunError::bug("a block holds less than is wanted"))?;
            self.stream
                .memcpy_dtoh(&from, to)
                .map_err(|e| driver("give data back", e))?;
        }
        self.stream
            .synchronize()
            .map_err(|e| driver("finish its work", e))
    }

    fn begin_download(
        &mut self,
        block: Block,
        ty: &TensorType,
        sizes: &Bindings,
    ) -> Result<Download, RunError> {
        let failed = |e| driver("give data back", e);
        let size = ty.bytes(sizes) as usize;
        if self.slice(block)?.num_bytes() < size {
            return Err(RunError::bug("a block holds less than is wanted"));
        }
        let pinned = (size > 0).then(|| self.pinned(size)).flatten();
        let Some(at) = pinned else {
            let mut own = Tensor::zeros(ty.stored, &ty.dims(sizes));
            if size > 0 {
                self.download(block, &mut own)?;
            }
            return Ok(Download::Done(own));
        };
        let from = self.slice(block)?;
        let from = address(from, &self.stream);
        self.context.bind_to_thread().map_err(failed)?;
        let to = self.returns.as_mut_ptr().map_err(failed)?;
        // SAFETY: the place ends within the buffer, and nothing else has it until its ticket is collected, after
        // the copy was waited for; the block has that many bytes.
        unsafe {
            let to = std::slice::from_raw_parts_mut(to.add(at), size);
            cudarc::driver::result::memcpy_dtoh_async(to, from, self.stream.cu_stream())
        }
        .map_err(failed)?;
        Ok(Download::Pending(Ticket(at)))
    }

    fn end(&mut self) -> Result<Option<(Download, Mark)>, RunError> {
        let words = self.begin_download(self.fault, &fault_type(), &Bindings::default())?;
        let event = self.stream.record_event(None);
        let event = event.map_err(|e| driver("mark its work", e))?;
        self.marked += 1;
        self.marks.push_back((Mark(self.marked), event));
        Ok(Some((words, Mark(self.marked))))
    }

    fn wait(&mut self, mark: Mark) -> Result<(), RunError> {
        while let Some((own, event)) = self.marks.front().filter(|(own, _)| *own <= mark) {
            if *own == mark {
                event
                    .synchronize()
                    .map_err(|e| driver("finish its work", e))?;
            }
            self.marks.pop_front();
        }
        Ok(())
    }

    fn collect(&mut self, Ticket(at): Ticket, tensor: &mut Tensor) -> Result<(), RunError> {
        let to = bytes_of_mut(tensor);
        let all = self.returns.as_slice();
        let all = all.map_err(|e| driver("give data back", e))?;
        let own = all.get(at..at + to.len());
        let own = own.ok_or_else(|| RunError::bug("more is collected than came"))?;
        to.copy_from_slice(own);
        self.taken.remove(&at);
        Ok(())
    }

    fn apply(
        &mut self,
        _: &[Applied<'_>],
        launches: &Launches,
        blocks: &Blocks<'_>,
    ) -> Result<u64, RunError> {
        let scratch = self.with_constants(launches, blocks.scratch)?;
        let scratch = &scratch;
        let blocks = &Blocks { scratch, ..*blocks };
        for launch in &launches.list {
            let begun = Instant::now();
            match launch {
                Launch::Call(call) => self.call(call, blocks)?,
                Launch::Product(product) => self.multiply(product, blocks)?,
                Launch::Copy { from, to } => {
                    let (from, to) = (self.operand(blocks, *from)?, self.operand(blocks, *to)?);
                    if from == to {
                        continue;
                    }
                    self.copy(from, to)?;
                }
                Launch::Upload { to, words } => {
                    if matches!(to, Operand::Scratch(_)) && self.constants.contains_key(words) {
                        continue;
                    }
                    let to = self.operand(blocks, *to)?;
                    self.send(to, bytemuck::cast_slice(words))?;
                }
                Launch::Table { to, words } => {
                    let (to, words) = (self.operand(blocks, *to)?, self.words(words, blocks)?);
                    self.send(to, bytemuck::cast_slice(&words))?;
                }
            }
            if let Some(profile) = &mut self.profile {
                let counted = profile.launched(launch, begun, &self.context, &self.stream);
                counted.map_err(|e| driver("be timed", e))?;
            }
        }
        Ok(0)
    }
}
