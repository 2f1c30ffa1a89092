//! Where a wire leads to.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// Where a wire leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system. The first to come listens, the second connects.
    Unix(PathBuf),
    /// Datagrams from one address to the other.
    Udp {
        /// Own address.
        local: SocketAddr,
        /// The other side's.
        remote: SocketAddr,
    },
    /// A tap device of the host.
    Tap(String),
}

/// Longest name of a network interface (IFNAMSIZ, with its zero).
const NAME_MAX: usize = 15;
/// Longest path of a socket (`sun_path`, with its zero).
const PATH_MAX: usize = 107;

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "unix" => {
                ensure!(!rest.is_empty(), "unix: without a path; give one, as in unix:/tmp/wire");
                ensure!(
                    rest.len() <= PATH_MAX,
                    "unix: the path has {} bytes, a socket's at most {PATH_MAX}",
                    rest.len()
                );
                Ok(Self::Unix(rest.into()))
            }
            "udp" => {
                let (local, remote) = rest
                    .split_once(',')
                    .context("udp: give both addresses, as in udp:0.0.0.0:7000,192.0.2.9:7000")?;
                let address = |text: &str| {
                    text.parse::<SocketAddr>().with_context(|| {
                        format!("udp: {text:?} is no address and port, such as 192.0.2.9:7000 or [::1]:7000")
                    })
                };
                let (local, remote) = (address(local)?, address(remote)?);
                ensure!(
                    local.is_ipv4() == remote.is_ipv4(),
                    "udp: {local} and {remote} are of different versions of IP"
                );
                Ok(Self::Udp { local, remote })
            }
            "tap" => {
                let is_name = |name: &str| {
                    !name.is_empty() && name.len() <= NAME_MAX && !name.contains(['/', ' ', ':'])
                };
                ensure!(is_name(rest), "tap: {rest:?} is no name of a network interface");
                Ok(Self::Tap(rest.to_owned()))
            }
            _ => bail!("{text:?}: give unix:PATH, udp:LOCAL,REMOTE or tap:NAME"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(to, "unix:{}", path.display()),
            Self::Udp { local, remote } => write!(to, "udp:{local},{remote}"),
            Self::Tap(name) => write!(to, "tap:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_was_written() {
        for text in ["unix:/tmp/wire", "udp:127.0.0.1:7000,127.0.0.1:7001", "udp:[::1]:1,[::1]:2", "tap:tap0"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let long = format!("unix:/{}", "x".repeat(200));
        for (text, what) in [
            ("wire", "give unix:PATH"),
            ("unix:", "without a path"),
            (&long, "201 bytes"),
            ("udp:127.0.0.1:7000", "both addresses"),
            ("udp:localhost,127.0.0.1:7000", "\"localhost\" is no address and port"),
            ("udp:127.0.0.1:1,[::1]:2", "different versions"),
            ("tap:", "no name"),
            ("tap:a/b", "no name"),
            ("tap:much-too-long-a-name", "no name"),
        ] {
            let error = format!("{:#}", text.parse::<Address>().unwrap_err());
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
