//! Chooses a kernel from the archive.
//!
//! Backports keep a kernel series only for some months. So the default is the series that was tested last, while
//! the archive has it, and after that the newest.

use std::fmt;
use std::str::FromStr;

use crate::recipe::{KERNEL_FLAVOUR, KERNEL_PACKAGES, KERNEL_SUITE, KernelPackages, RELEASE};

/// A kernel's version without the patch level, as in 7.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelSeries(pub u16, pub u16);

impl KernelSeries {
    /// The first series that the driver supports.
    pub const FIRST: Self = Self(6, 12);
    /// The series that was tested last: SVA is compiled in.
    pub const TESTED: Self = Self(7, 2);
}

impl fmt::Display for KernelSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for KernelSeries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('.').and_then(|(a, b)| Some(Self(a.parse().ok()?, b.parse().ok()?)));
        match numbers {
            Some(series) if series >= Self::FIRST => Ok(series),
            Some(_) => Err(format!("the driver needs {} or later", Self::FIRST)),
            None => Err(format!("expected a version without patch level, as {}", Self::FIRST)),
        }
    }
}

/// A kernel in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelChoice {
    /// Release, as `uname -r` prints it: `7.2.12+deb13-amd64`.
    pub release: String,
    /// How it is packaged.
    pub packages: &'static KernelPackages,
}

impl KernelChoice {
    /// The newest kernel of the series `wanted`, or the default, among the package `names`. Only kernels with all
    /// packages count: image, modules and headers.
    pub fn among(names: &str, wanted: Option<KernelSeries>) -> Option<Self> {
        let of = |only: KernelSeries| kernels(names).filter(move |(series, ..)| *series == only);
        let newest = |(series, patch, ..): &(KernelSeries, u32, _, _)| (*series, *patch);
        let found = match wanted {
            Some(wanted) => of(wanted).max_by_key(newest),
            None => of(KernelSeries::TESTED).max_by_key(newest).or_else(|| kernels(names).max_by_key(newest)),
        };
        found.map(|(.., release, packages)| Self { release: release.to_string(), packages })
    }

    /// The reason for this kernel, as a line for the user.
    pub fn why(&self, wanted: Option<KernelSeries>) -> String {
        let series = version(&self.release).map(|(series, _)| series);
        let tested = KernelSeries::TESTED;
        let why = match (wanted, series) {
            (Some(wanted), _) => format!("the newest of {wanted}"),
            (None, Some(series)) if series == tested => format!("the newest of {tested}, the default"),
            (None, series) if series > Some(tested) => {
                format!("the newest of {KERNEL_SUITE}, which has no {tested} any more")
            }
            (None, _) => format!(
                "{RELEASE} and {KERNEL_SUITE} have none from {tested} on, so perhaps nothing in the guest has a PASID"
            ),
        };
        format!("kernel {}: {why}", self.release)
    }
}

/// The error text if there is no suitable kernel.
pub fn none(names: &str, wanted: Option<KernelSeries>) -> String {
    let mut there: Vec<_> = kernels(names).map(|(series, ..)| series).collect();
    there.sort_unstable();
    there.dedup();
    let there: Vec<_> = there.iter().map(ToString::to_string).collect();
    match wanted.filter(|_| !there.is_empty()) {
        Some(wanted) => format!(
            "{RELEASE} and {KERNEL_SUITE} have no kernel {wanted}; --kernel-series may be {}",
            there.join(", ")
        ),
        None => format!(
            "{RELEASE} and {KERNEL_SUITE} on this mirror have no kernel that is {} or later; try another mirror",
            KernelSeries::FIRST
        ),
    }
}

/// All kernels with complete packages: series, patch level, release and packaging.
fn kernels(names: &str) -> impl Iterator<Item = (KernelSeries, u32, &str, &'static KernelPackages)> {
    let has = |part: &str, release: &str| names.lines().any(|name| name.strip_prefix(part) == Some(release));
    names.lines().filter_map(|name| name.strip_prefix("linux-headers-")).filter_map(move |release| {
        let (series, patch) = version(release).filter(|(series, _)| *series >= KernelSeries::FIRST)?;
        let whole = |packages: &&KernelPackages| packages.parts.iter().all(|part| has(part, release));
        Some((series, patch, release, KERNEL_PACKAGES.iter().find(whole)?))
    })
}

/// Series and patch level of `7.2.12+deb13-amd64`; `None` for other flavours.
fn version(release: &str) -> Option<(KernelSeries, u32)> {
    let (version, flavour) = release.split_once('-')?;
    let mut numbers = version.split('+').next()?.splitn(3, '.');
    let series = KernelSeries(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    let patch = numbers.next()?.parse().ok()?;
    (flavour == KERNEL_FLAVOUR).then_some((series, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(release: &str) -> String {
        format!("linux-binary-{release}\nlinux-modules-{release}\nlinux-headers-{release}\n")
    }

    fn single(release: &str) -> String {
        format!("linux-image-{release}\nlinux-headers-{release}\n")
    }

    fn among(names: &str, wanted: Option<KernelSeries>) -> Option<String> {
        KernelChoice::among(names, wanted).map(|choice| choice.release)
    }

    #[test]
    fn the_default_kernel_is_of_the_tested_series_or_else_the_newest() {
        let mut names = split("7.2.9+deb13-amd64") + &split("7.2.12+deb13-amd64");
        names += &split("7.2.14+deb13-rt-amd64");
        names += "linux-binary-7.2.13+deb13-amd64\nlinux-modules-7.2.13+deb13-amd64\n";
        names += "linux-headers-7.9.1+deb13-amd64\nlinux-headers-7.3-rc5-amd64\nlinux-headers-amd64\n";
        names += &(single("6.12.9+deb13-amd64") + &single("6.12.117+deb13-amd64") + &single("6.1.200-amd64"));
        assert_eq!(among(&names, None).as_deref(), Some("7.2.12+deb13-amd64"), "whole, of this flavour");
        assert_eq!(among(&names, Some(KernelSeries(6, 12))).as_deref(), Some("6.12.117+deb13-amd64"));
        // Backports move on; Debian packages kernels in either way.
        for later in [split("7.10.1+deb13-amd64"), single("7.10.1+deb13-amd64")] {
            let both = names.clone() + &later;
            assert_eq!(among(&both, None).as_deref(), Some("7.2.12+deb13-amd64"));
            assert_eq!(among(&both, Some(KernelSeries(7, 10))).as_deref(), Some("7.10.1+deb13-amd64"));
            let after = split("7.9.30+deb13-amd64") + &single("6.12.9+deb13-amd64") + &later;
            assert_eq!(among(&after, None).as_deref(), Some("7.10.1+deb13-amd64"));
        }
        assert!(KernelChoice::among(&names, None).expect("one").packages.headers_alone);
        assert!(!KernelChoice::among(&names, Some(KernelSeries(6, 12))).expect("one").packages.headers_alone);
    }

    #[test]
    fn without_backports_it_is_the_releases_own_kernel_and_the_reason_says_so() {
        let names = single("6.12.117+deb13-amd64");
        let choice = KernelChoice::among(&names, None).expect("one");
        assert_eq!(choice.release, "6.12.117+deb13-amd64");
        assert!(choice.why(None).contains("none from 7.2 on"), "{}", choice.why(None));
        assert!(!choice.why(Some(KernelSeries(6, 12))).contains("none"));
        let later = KernelChoice::among(&split("7.3.1+deb13-amd64"), None).expect("one").why(None);
        assert!(later.contains("7.3.1+deb13-amd64") && later.contains("no 7.2 any more"), "{later}");
    }

    #[test]
    fn a_missing_series_is_reported_with_those_that_exist() {
        let names =
            split("7.3.1+deb13-amd64") + &single("6.12.9+deb13-amd64") + &single("6.12.8+deb13-amd64");
        assert_eq!(among(&names, Some(KernelSeries(7, 2))), None);
        let text = none(&names, Some(KernelSeries(7, 2)));
        assert!(text.contains("no kernel 7.2") && text.ends_with("may be 6.12, 7.3"), "{text}");
        assert!(
            none("", None).contains("another mirror")
                && none("", Some(KernelSeries(7, 2))).contains("mirror")
        );
    }

    #[test]
    fn a_series_has_two_numbers_and_a_driver() {
        assert_eq!("7.2".parse(), Ok(KernelSeries(7, 2)));
        for wrong in ["7", "7.2.12", "x.y", "6.1", ""] {
            assert!(wrong.parse::<KernelSeries>().is_err(), "{wrong}");
        }
    }
}
