//! Which instruction set the kernels use, and the one place where it is chosen at run time.

use crate::lanes::{Kernel, scalar::Scalar};
#[cfg(target_arch = "x86_64")]
use crate::lanes::{avx2::Avx2, avx512::Avx512};

/// An instruction set that this machine has. It can only be had from the functions below, which ask the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(any(test, feature = "faulty"))]
    Wrong,
}

impl Isa {
    /// The portable kernels, against which all others are tested.
    #[must_use]
    pub fn scalar() -> Self {
        Self(Level::Scalar)
    }

    /// The fastest instruction set of this machine.
    #[must_use]
    pub fn detect() -> Self {
        *Self::available().last().expect("the scalar kernels are always there")
    }

    /// All instruction sets of this machine that have kernels, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::scalar()];
        #[cfg(target_arch = "x86_64")]
        {
            if Avx2::detect().is_some() {
                all.push(Self(Level::Avx2));
            }
            if Avx512::detect().is_some() {
                all.push(Self(Level::Avx512Vnni));
            }
        }
        all
    }

    /// Kernels that are deliberately wrong in every quantized linear, to show that the self-test finds out.
    #[cfg(any(test, feature = "faulty"))]
    #[must_use]
    pub fn wrong() -> Self {
        Self(Level::Wrong)
    }

    /// The name of this kernel set, for logs and the system fingerprint.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512-vnni",
            #[cfg(any(test, feature = "faulty"))]
            Level::Wrong => "wrong",
        }
    }

    /// Runs `kernel` compiled for this instruction set.
    pub(crate) fn run(self, kernel: impl Kernel) {
        match self.0 {
            Level::Scalar => kernel.run(Scalar::right()),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::detect().expect("an Isa names what the CPU has").run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => Avx512::detect().expect("an Isa names what the CPU has").run(kernel),
            #[cfg(any(test, feature = "faulty"))]
            Level::Wrong => kernel.run(Scalar::wrong()),
        }
    }
}
