//! The demo's guest: its machine, and where its output goes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use refault_bus::sync::lock;

use super::options::DemoArgs;
use super::view::View;
use super::wires;
use crate::run::options::parse::Pmem;
use crate::run::{Backend, Spec, Streams};
use refault_guest::GuestImage;
use refault_observe::report::names;

/// The guest on `backend`, with the demo's program as its command.
pub(super) fn spec(args: &DemoArgs, image: GuestImage, backend: Backend) -> Spec {
    Spec {
        backend,
        image: Some(image),
        cpus: args.cpus,
        memory: args.memory.0,
        pmem: vec![Pmem { file: None, size: Some(args.pmem.0) }],
        command: args.command(),
        environment: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        timeout: Some(args.hang_timeout()),
        ethernet: wires::ports(args).has_ethernet(),
        ..Spec::default()
    }
}

/// Logs in `folder`, and a `view` that takes the program's events.
///
/// # Errors
/// A log cannot be created.
pub(super) fn streams(folder: &Path, view: Arc<Mutex<View>>) -> Result<Streams> {
    let create = |name: &str| {
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(file)
    };
    let output = Arc::new(Mutex::new(create(names::OUTPUT)?));
    Ok(Streams {
        input: None,
        sizes: None,
        output: Box::new(SharedFile(output.clone())),
        errors: Box::new(SharedFile(output)),
        log: vec![Box::new(create(names::SERIAL)?)],
        control: Box::new(move |line| {
            lock(&view).take(line);
            false
        }),
    })
}

/// Standard output and standard error of the guest's program, in one file.
struct SharedFile(Arc<Mutex<File>>);

impl Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        lock(&self.0).flush()
    }
}
