//! What the emulated machine boots from: the guest's own kernel, busybox and the modules of KVM and 9p.

use std::path::Path;

use anyhow::Result;

use crate::initramfs::Initramfs;
use crate::modules::Module;

/// The outer machine's init.
pub const OUTER_INIT: &str = include_str!("outer-init.sh");
/// Changes when the archive is laid out differently, so that archives in a cache are not mistaken for it.
pub const OUTER_LAYOUT: &str = "modules/NAME.ko, unsigned";
/// What the kernel's build appends to a signed module.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// Bytes of the description between the signature and the mark; the last four hold the signature's length.
const SIGNATURE_INFO: usize = 12;

/// Writes the outer machine's initramfs.
///
/// # Errors
/// The file cannot be written.
pub fn outer_initramfs(path: &Path, busybox: &[u8], modules: &[Module]) -> Result<()> {
    let mut archive = Initramfs::create(path)?;
    archive.file("init", 0o755, OUTER_INIT.as_bytes())?;
    archive.file("bin/busybox", 0o755, busybox)?;
    for folder in ["proc", "host", "dev"] {
        archive.folder(folder)?;
    }
    let mut order = String::new();
    for module in modules {
        archive.file(&format!("modules/{}.ko", module.name), 0o644, unsigned(&module.image))?;
        order += &format!("{}.ko\n", module.name);
    }
    archive.file("modules/order", 0o644, order.as_bytes())?;
    archive.finish()
}

/// The module without its signature. The emulated machine is ours alone and trusts us; checking eight signatures
/// would cost it a second.
fn unsigned(image: &[u8]) -> &[u8] {
    let cut = || {
        let rest = image.strip_suffix(SIGNATURE_MARK)?;
        let (rest, info) = rest.split_at_checked(rest.len().checked_sub(SIGNATURE_INFO)?)?;
        let length = u32::from_be_bytes(*info.last_chunk()?);
        rest.get(..rest.len().checked_sub(length as usize)?)
    };
    cut().unwrap_or(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_cut_off_and_nothing_else() {
        let mut signed = b"\x7fELF module".to_vec();
        signed.extend(b"SIGNATURE");
        signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        signed.extend(SIGNATURE_MARK);
        assert_eq!(unsigned(&signed), b"\x7fELF module");
        assert_eq!(unsigned(b"\x7fELF module"), b"\x7fELF module");
        assert_eq!(unsigned(SIGNATURE_MARK), SIGNATURE_MARK);
    }
}
