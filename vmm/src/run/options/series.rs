//! Which of the packaged kernels a guest has.

use anyhow::Result;

use refault_guest::GuestImage;
use refault_guest::archive::kernels::KernelSeries;

/// The choice, as an option.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SeriesArgs {
    /// Series of the guest image's kernel, as 6.12 [default: 7.2, or the newest when Debian has none of that]
    #[arg(long, value_name = "VERSION")]
    kernel_series: Option<KernelSeries>,
}

impl SeriesArgs {
    /// What was chosen, if something was.
    pub fn series(&self) -> Option<KernelSeries> {
        self.kernel_series
    }

    /// The image that has it, built if need be.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn image(&self) -> Result<GuestImage> {
        GuestImage::ensure(self.series(), false)
    }
}
