//! Real guests: all of refault against the stock kernel, stock rdma-core and XFS. Without hardware virtualization they
//! run in QEMU, where a boot takes long; so each test does much in one boot.

mod captured;
mod demo;
mod device;
mod driver;
mod ends;
mod experiment;
mod fabrics;
mod flush;
mod harm;
mod hostile_root;
mod lab;
mod machines;
mod misbehave;
mod nested;
mod packets;
mod pmem;
mod port;
mod processes;
mod run;
mod sandbox;
mod serve;
mod slowed;
mod soak;
mod stages;
mod stock;
mod stock_programs;
mod stock_pyverbs;
mod storm;
mod streams;
mod support;
mod terminal;
mod verbs;
mod vfio;
mod wire;
