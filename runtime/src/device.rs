//! Where a model runs, and how many bytes it may take there.
//!
//! In: a budget, geometry and tensors, and how much memory the machine has. Out: a [`Fit`] that says how many cache
//! blocks are left, or why nothing can be served. The arithmetic is `contract::memory`'s, the same as the operator's.
//! It must not know what is computed.

use std::fs;
use std::path::Path;

use contract::bytes::BytesError;
use contract::device::DeviceClass;
use contract::exit::ExitReason;
use contract::memory::{self, BLOCK_TOKENS, Capacity, MemoryPlan, PlanError};
use contract::tensors::TensorGroup;
use contract::{Bytes, ModelGeometry};

use crate::cgroup;

/// The memory that a model's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The machine's own.
    Cpu,
    /// A card that is not there: the machine's memory, of which no more than this is used.
    Simulated {
        /// What the card would have.
        bytes: Bytes,
    },
}

/// What a model gets of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Bytes by component; the cache's are those of `n_blocks`.
    pub plan: MemoryPlan,
    /// Cache blocks.
    pub n_blocks: u64,
}

/// Why a model does not get its bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no plan.
    #[error("the memory cannot be planned")]
    Plan(#[from] PlanError),
    /// Sizes past 64 bits.
    #[error("the memory's sizes do not fit in 64 bits")]
    Overflow(#[from] BytesError),
    /// Weights, activations and one sequence take more.
    #[error("the budget of {budget} is too small: weights, activations and one sequence need {needed}")]
    BudgetTooSmall {
        /// What may be used.
        budget: Bytes,
        /// The least that serves.
        needed: Bytes,
    },
    /// Something else has the memory.
    #[error("{free} of the device are free, less than the budget of {budget}")]
    MemoryTaken {
        /// What may be used.
        budget: Bytes,
        /// What is there.
        free: Bytes,
    },
    /// An allocation was larger than its plan: an error in the formula.
    #[error("{component} takes {allocated}, more than the {planned} planned")]
    OverPlan {
        /// Which.
        component: &'static str,
        /// What they take.
        allocated: Bytes,
        /// What they may take.
        planned: Bytes,
    },
}

/// Plans a model within `budget`, or within what it needs for all of `capacity` where there is none.
///
/// The cache gets what the other components leave, at most what `capacity` can use and at least one sequence.
///
/// # Errors
/// Where not even one sequence fits.
pub fn fit(
    geometry: &ModelGeometry,
    tensors: &[TensorGroup],
    capacity: Capacity,
    class: DeviceClass,
    budget: Option<Bytes>,
) -> Result<Fit, DeviceError> {
    let plan = memory::plan(geometry, tensors, capacity, class)?;
    let budget = budget.map_or_else(|| plan.total(), Ok)?;
    let fixed = MemoryPlan { kv_cache: Bytes::ZERO, ..plan }.total()?;
    let block = memory::block_bytes(geometry, capacity.kv_dtype)?;
    let least = u64::from(capacity.context_length.div_ceil(BLOCK_TOKENS));
    let left = budget.0.saturating_sub(fixed.0) / block.0;
    if left < least {
        return Err(DeviceError::BudgetTooSmall { budget, needed: fixed.plus(block.times(least)?)? });
    }
    let n_blocks = left.min(memory::n_blocks(capacity)?);
    Ok(Fit { plan: MemoryPlan { kv_cache: block.times(n_blocks)?, ..plan }, n_blocks })
}

impl DeviceError {
    /// The reason that the operator shows.
    #[must_use]
    pub const fn reason(&self) -> ExitReason {
        match self {
            Self::Plan(_) => ExitReason::ModelUnsupported,
            Self::Overflow(_) | Self::BudgetTooSmall { .. } => ExitReason::BudgetTooSmall,
            Self::MemoryTaken { .. } => ExitReason::DeviceMemoryTaken,
            Self::OverPlan { .. } => ExitReason::Internal,
        }
    }
}

impl Device {
    /// Bytes that a process may have here: the simulated card's, or what the machine and its cgroups leave.
    #[must_use]
    pub fn free(self) -> Bytes {
        match self {
            Self::Simulated { bytes } => bytes,
            Self::Cpu => machine_memory(),
        }
    }
}

impl Fit {
    /// The last arbiter before anything is allocated: whether `free` bytes hold the plan.
    ///
    /// # Errors
    /// Where they do not.
    pub fn check_free(&self, free: Bytes) -> Result<(), DeviceError> {
        let budget = self.plan.total()?;
        if free < budget { Err(DeviceError::MemoryTaken { budget, free }) } else { Ok(()) }
    }

    /// Compares what was allocated with the plan.
    ///
    /// # Errors
    /// Names the first component that is past its plan.
    pub fn check_allocated(&self, allocated: &MemoryPlan) -> Result<(), DeviceError> {
        let components = allocated.components().into_iter().zip(self.plan.components());
        match components.into_iter().find(|((_, allocated), (_, planned))| allocated > planned) {
            Some(((component, allocated), (_, planned))) => {
                Err(DeviceError::OverPlan { component, allocated, planned })
            }
            None => Ok(()),
        }
    }
}

/// `MemAvailable` of `/proc/meminfo`.
fn parse_available(meminfo: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

/// A cgroup's `memory.max` or `memory.limit_in_bytes`; `max`, and v1's number beyond all memory, mean none.
fn parse_limit(text: &str) -> Option<Bytes> {
    text.trim().parse().ok().map(Bytes)
}

/// The least of what the machine has available and what the cgroups of this process allow it.
fn machine_memory() -> Bytes {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let available = read(Path::new("/proc/meminfo")).and_then(|text| parse_available(&text));
    let limits = cgroup::files("memory", "memory.limit_in_bytes", "memory.max")
        .into_iter()
        .filter_map(|path| parse_limit(&read(&path)?));
    available.into_iter().chain(limits).min().unwrap_or(Bytes(u64::MAX))
}

#[cfg(test)]
mod tests {
    use contract::KvDType;
    use contract::tensors::group;

    use super::*;
    use crate::selftest::tiny::Tiny;

    fn fitted(budget: Option<u64>) -> Result<Fit, DeviceError> {
        let tiny = Tiny::new();
        let capacity = Capacity { context_length: 96, concurrency: 4, kv_dtype: KvDType::F32 };
        fit(&tiny.geometry, &group(&tiny.header.tensors), capacity, DeviceClass::Cpu, budget.map(Bytes))
    }

    #[test]
    fn the_cache_gets_what_the_others_leave() {
        let whole = fitted(None).unwrap();
        assert_eq!(whole.n_blocks, 12);
        let total = whole.plan.total().unwrap().0;
        let block = whole.plan.kv_cache.0 / 12;
        assert_eq!(fitted(Some(total)), Ok(whole));
        assert_eq!(fitted(Some(total + 100 * block)), Ok(whole), "more than all sequences is never used");
        let less = fitted(Some(total - 1)).unwrap();
        assert_eq!((less.n_blocks, less.plan.kv_cache.0), (11, 11 * block));
        assert!(less.plan.total().unwrap().0 < total);
    }

    #[test]
    fn a_budget_without_room_for_one_sequence_is_refused() {
        let whole = fitted(None).unwrap();
        let least = whole.plan.total().unwrap().0 - 9 * whole.plan.kv_cache.0 / 12;
        assert_eq!(fitted(Some(least)).unwrap().n_blocks, 3);
        for budget in [least - 1, 1000, 0] {
            let refused = DeviceError::BudgetTooSmall { budget: Bytes(budget), needed: Bytes(least) };
            assert_eq!(fitted(Some(budget)), Err(refused));
        }
    }

    #[test]
    fn memory_that_is_not_there_is_not_allocated() {
        let fit = fitted(None).unwrap();
        let budget = fit.plan.total().unwrap();
        let free = Device::Simulated { bytes: Bytes(budget.0 - 1) }.free();
        assert_eq!(fit.check_free(free), Err(DeviceError::MemoryTaken { budget, free }));
        assert_eq!(fit.check_free(budget), Ok(()));
        assert!(Device::Cpu.free() > Bytes(1 << 20));
    }

    #[test]
    fn what_is_past_its_plan_is_named() {
        let fit = fitted(None).unwrap();
        let MemoryPlan { weights, kv_cache, activations, .. } = fit.plan;
        let mut allocated = MemoryPlan { weights, kv_cache, activations, ..MemoryPlan::default() };
        assert_eq!(fit.check_allocated(&allocated), Ok(()));
        allocated.kv_cache.0 += 1;
        let error = fit.check_allocated(&allocated).unwrap_err();
        assert!(matches!(error, DeviceError::OverPlan { component: "kv_cache", .. }), "{error}");
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(parse_available("MemTotal: 9 kB\nMemAvailable:   12 kB\n"), Some(Bytes(12 << 10)));
        assert_eq!(parse_available("MemTotal: 9 kB\n"), None);
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("4096\n"), Some(Bytes(4096)));
    }
}
