//! Values of options: sizes, persistent memory, files in and out.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A number of bytes: `512M`, `2G`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
        let shift = match text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            unit => return Err(format!("{unit} is not a unit of size: expected K, M, G or T")),
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| format!("{text:?} is not a size: expected, for example, 512M or 2G"))?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| format!("{text} does not fit into 64 bits"))
    }
}

/// A persistent memory region: `FILE`, `FILE,size=1G`, or `size=1G` for memory that is lost when the guest ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pmem {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// Its size in bytes, if given: a missing file is created with it.
    pub size: Option<u64>,
}

impl FromStr for Pmem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, size) = match text.strip_prefix("size=") {
            Some(size) => ("", Some(size)),
            None => text.rsplit_once(",size=").map_or((text, None), |(file, size)| (file, Some(size))),
        };
        let size = size.map(|size| size.parse().map(|Size(bytes)| bytes)).transpose()?;
        let file = (!file.is_empty()).then(|| PathBuf::from(file));
        match (&file, size) {
            (None, None) => Err("expected FILE, FILE,size=SIZE or size=SIZE".into()),
            (_, Some(0)) => Err("a region of size 0".into()),
            _ => Ok(Self { file, size }),
        }
    }
}

/// A file or folder of the host, and its path in the guest: `HOST:GUEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Path on the host.
    pub host: PathBuf,
    /// Absolute path in the guest.
    pub guest: String,
}

impl FromStr for Add {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The last one, because a host's path may contain a colon too.
        let at = text.rfind(":/").ok_or("expected HOST:GUEST, with an absolute path for the guest")?;
        let (host, guest) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        if host.is_empty() {
            return Err("expected HOST:GUEST: there is no path on the host".into());
        }
        // HOST:/ and HOST:/folder/ keep the name.
        let name = Path::new(host).file_name().map(|name| name.to_string_lossy().into_owned());
        let guest = match guest.strip_suffix('/') {
            Some(folder) => {
                format!("{folder}/{}", name.ok_or("expected HOST:GUEST with a name for the guest")?)
            }
            None => guest.to_string(),
        };
        Ok(Self { host: host.into(), guest })
    }
}

/// A file or folder in the guest, and its path on the host: `GUEST:HOST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// Absolute path in the guest.
    pub guest: String,
    /// Path on the host.
    pub host: PathBuf,
}

impl FromStr for Out {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (guest, host) = text.split_once(':').ok_or("expected GUEST:HOST")?;
        let guest = guest.trim_end_matches('/');
        if !guest.starts_with('/') || host.is_empty() {
            return Err("expected GUEST:HOST, with an absolute path for the guest".into());
        }
        Ok(Self { guest: guest.into(), host: host.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes =
            ["4096", "64K", "512M", "2g", "1GiB", "1T"].map(|text| text.parse::<Size>().map(|size| size.0));
        assert_eq!(sizes, [4096, 64 << 10, 512 << 20, 2 << 30, 1 << 30, 1 << 40].map(Ok));
        for wrong in ["", "M", "12Q", "-1", "1.5G", "99999999T"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn persistent_memory_is_a_file_a_size_or_both() {
        let pmem = |file: Option<&str>, size| Ok(Pmem { file: file.map(PathBuf::from), size });
        assert_eq!("disk".parse(), pmem(Some("disk"), None));
        assert_eq!("a,b,size=2M".parse(), pmem(Some("a,b"), Some(2 << 20)));
        assert_eq!("size=1G".parse(), pmem(None, Some(1 << 30)));
        for wrong in ["", "disk,size=", "disk,size=0", "size=x"] {
            assert!(wrong.parse::<Pmem>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn files_are_added_under_an_absolute_path() {
        let add = |host: &str, guest: &str| Ok(Add { host: host.into(), guest: guest.into() });
        assert_eq!("a.sh:/opt/b.sh".parse(), add("a.sh", "/opt/b.sh"));
        assert_eq!("c:/x/a.sh:/opt/".parse(), add("c:/x/a.sh", "/opt/a.sh"));
        assert_eq!("dir:/".parse(), add("dir", "/dir"));
        for wrong in ["a.sh", "a.sh:b.sh", ":/opt", "..:/"] {
            assert!(wrong.parse::<Add>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn files_are_brought_out_from_an_absolute_path() {
        let out = |guest: &str, host: &str| Ok(Out { guest: guest.into(), host: host.into() });
        assert_eq!("/var/log:logs".parse(), out("/var/log", "logs"));
        assert_eq!("/a/:x:y".parse(), out("/a", "x:y"));
        for wrong in ["log:logs", "/log", "/log:", "/:x"] {
            assert!(wrong.parse::<Out>().is_err(), "{wrong:?}");
        }
    }
}
