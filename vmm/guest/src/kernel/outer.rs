//! The initramfs of the nested machine: busybox and the modules of KVM and 9p. Its kernel is the guest's.

use std::path::Path;

use anyhow::Result;

use crate::initramfs::Initramfs;
use crate::kernel::modules::KernelModule;

/// The nested machine's init.
pub const OUTER_INIT: &str = include_str!("outer-init.sh");
/// Part of the cache key: change it when the layout of the archive changes.
pub const OUTER_LAYOUT: &str = "modules/NAME.ko, unsigned";
/// What the kernel's build appends to a signed module.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// Size in bytes of the description between the signature and the mark; its last four bytes are the signature's
/// length.
const SIGNATURE_INFO: usize = 12;

/// Writes the nested machine's initramfs.
///
/// # Errors
/// The file cannot be written.
pub fn outer_initramfs(path: &Path, busybox: &[u8], modules: &[KernelModule]) -> Result<()> {
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

/// The module without its signature. The nested machine runs only our code, and checking eight signatures would
/// cost it a second.
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
    fn only_the_signature_is_removed() {
        let mut signed = b"\x7fELF module".to_vec();
        signed.extend(b"SIGNATURE");
        signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        signed.extend(b"~Module signature appended~\n");
        assert_eq!(unsigned(&signed), b"\x7fELF module");
        assert_eq!(unsigned(b"\x7fELF module"), b"\x7fELF module");
        assert_eq!(unsigned(SIGNATURE_MARK), SIGNATURE_MARK);
    }
}
