//! Tensor bytes as executed.

/// Bytes in one kind of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    live: u64,
    peak: u64,
}

impl Count {
    /// Adds a block.
    pub fn alloc(&mut self, bytes: u64) {
        self.live += bytes;
        self.peak = self.peak.max(self.live);
    }

    /// Removes a block.
    pub fn free(&mut self, bytes: u64) {
        self.live = self.live.saturating_sub(bytes);
    }

    /// Notes scratch on top of what is live.
    pub fn scratch(&mut self, bytes: u64) {
        self.peak = self.peak.max(self.live + bytes);
    }
}

/// Tensor bytes on the host and, where it has memory of its own, on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    host: Count,
    device: Option<Count>,
}

impl Meter {
    /// For a device; `separate` if its memory is not the host's.
    #[must_use]
    pub fn new(separate: bool) -> Self {
        Self {
            host: Count::default(),
            device: separate.then(Count::default),
        }
    }

    /// Adds a block of the host's memory.
    pub fn alloc(&mut self, bytes: u64) {
        self.host.alloc(bytes);
    }

    /// Removes a block of the host's memory.
    pub fn free(&mut self, bytes: u64) {
        self.host.free(bytes);
    }

    /// Notes scratch on top of what is live on the host.
    pub fn scratch(&mut self, bytes: u64) {
        self.host.scratch(bytes);
    }

    /// What is counted where programs run.
    pub const fn device(&mut self) -> &mut Count {
        match &mut self.device {
            Some(device) => device,
            None => &mut self.host,
        }
    }

    /// Counts what another meter had at most, on top of what is live now.
    pub fn note(&mut self, other: &Self) {
        self.host.scratch(other.host.peak);
        if let (Some(own), Some(other)) = (&mut self.device, &other.device) {
            own.scratch(other.peak);
        }
    }

    /// Bytes live on the host now.
    #[must_use]
    pub const fn live(&self) -> u64 {
        self.host.live
    }

    /// Most bytes live at once on the host.
    #[must_use]
    pub const fn host_peak(&self) -> u64 {
        self.host.peak
    }

    /// Most bytes live at once where programs run.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.device.unwrap_or(self.host).peak
    }
}
