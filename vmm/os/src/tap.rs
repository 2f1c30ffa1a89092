//! Tap devices: a file that is a port of the host's network (Documentation/networking/tuntap.rst).
#![expect(unsafe_code, reason = "the request that names the device has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Bytes of `struct ifreq`, and where its flags are (include/uapi/linux/if.h).
const REQUEST: usize = 40;
const FLAGS: usize = 16;

/// Makes a file of /dev/net/tun a port of the tap device `name`, which is made if that is allowed. Frames have no header
/// in front.
///
/// # Errors
///
/// The device is in use, is no tap device, or this user may not use it.
pub fn attach(file: &File, name: &str) -> io::Result<()> {
    let mut request = [0_u8; REQUEST];
    let bytes = name.as_bytes();
    let place = request.get_mut(..bytes.len()).filter(|place| place.len() < FLAGS);
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
    let flags = u16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap_or_default();
    request[FLAGS..FLAGS + 2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the kernel reads and writes a `struct ifreq`, which has as many bytes.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
