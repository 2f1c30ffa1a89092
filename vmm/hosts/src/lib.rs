//! What runs a guest beside our own VMM: stock QEMU, with our devices on vfio-user sockets, and our VMM one level down in a
//! machine that QEMU emulates; and the choice between them.

pub mod accel;
pub mod qemu;
pub mod serve;
