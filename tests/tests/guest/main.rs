//! Real guests: the stock kernel, stock rdma-core and XFS judge the whole of refault. Where there is no hardware
//! virtualization they run in QEMU, which takes a while; so a test asks much of one boot.

mod demo;
mod device;
mod driver;
mod ends;
mod experiment;
mod flush;
mod lab;
mod misbehave;
mod nested;
mod pmem;
mod run;
mod serve;
mod slowed;
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
