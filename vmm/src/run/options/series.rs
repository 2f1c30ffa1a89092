//! The choice among the packaged kernels.

use anyhow::Result;

use refault_guest::GuestImage;
use refault_guest::archive::kernels::KernelSeries;

/// Option that chooses the series.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SeriesArgs {
    /// Series of the guest image's kernel, as 6.12 [default: 7.2, or the newest if Debian has none of that]
    #[arg(long, value_name = "VERSION")]
    kernel_series: Option<KernelSeries>,
}

impl SeriesArgs {
    /// The chosen series, if any.
    pub fn series(&self) -> Option<KernelSeries> {
        self.kernel_series
    }

    /// The image with that kernel, built if necessary.
    ///
    /// # Errors
    /// The image cannot be built.
    pub fn image(&self) -> Result<GuestImage> {
        GuestImage::ensure(self.series(), false)
    }
}
