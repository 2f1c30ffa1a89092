//! Which of the packaged kernels a guest has.

use anyhow::Result;
use clap::builder::PossibleValuesParser;

use crate::guest::GuestImage;
use crate::guest::recipe::{KERNELS, KernelSeries};

/// The choice, as an option.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SeriesArgs {
    /// Series of the guest image's kernel [default: the first]
    #[arg(long, value_name = "VERSION",
          value_parser = PossibleValuesParser::new(KERNELS.iter().map(|series| series.version)))]
    kernel_series: Option<String>,
}

impl SeriesArgs {
    /// What was chosen.
    pub fn series(&self) -> &'static KernelSeries {
        let wanted = self.kernel_series.as_deref();
        let chosen = KERNELS.iter().find(|series| Some(series.version) == wanted);
        chosen.unwrap_or(const { KERNELS.first().expect("the recipe has a kernel") })
    }

    /// The image that has it, built if need be.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn image(&self) -> Result<GuestImage> {
        GuestImage::ensure(self.series(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_kernel_is_the_first_and_the_other_one_can_be_named() {
        let series = |version: Option<&str>| SeriesArgs { kernel_series: version.map(String::from) }.series();
        assert_eq!(series(None).version, "7.2");
        assert_eq!(series(Some("6.12")).version, "6.12");
    }
}
