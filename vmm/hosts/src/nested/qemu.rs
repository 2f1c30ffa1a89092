//! The QEMU process of a nested machine.

use std::io::Read;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};

use refault_bus::sync::lock;
use refault_os::process::die_with_parent;
use refault_os::syscalls::{ThreadKind, confine};

/// Bytes of the nested machine's console kept for error messages.
const CONSOLE_KEPT: usize = 8 << 10;

/// The QEMU process, killed when this is dropped.
pub(super) struct OuterQemu {
    pub(super) child: Arc<Mutex<Child>>,
    console: Arc<Mutex<Vec<u8>>>,
}

impl OuterQemu {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = die_with_parent(command, libc::SIGKILL).spawn().context("cannot start QEMU")?;
        let console = Arc::new(Mutex::new(Vec::new()));
        if let Some(mut stderr) = child.stderr.take() {
            let kept = Arc::clone(&console);
            std::thread::spawn(move || {
                confine(ThreadKind::Other);
                keep_tail(&mut stderr, &kept);
            });
        }
        Ok(Self { child: Arc::new(Mutex::new(child)), console })
    }

    pub(super) fn channel(&mut self) -> Result<(ChildStdin, impl Read + use<>)> {
        let mut child = lock(&self.child);
        let pipes = child.stdin.take().zip(child.stdout.take());
        pipes.ok_or_else(|| anyhow!("QEMU was started without pipes"))
    }

    /// The last output of QEMU and the nested kernel. Kills QEMU first, so that the output is complete.
    pub(super) fn console(&mut self) -> String {
        end(&self.child);
        let console = lock(&self.console);
        match String::from_utf8_lossy(&console).trim() {
            "" => "its console is empty".into(),
            text => format!("its console ends with:\n{text}"),
        }
    }
}

impl Drop for OuterQemu {
    fn drop(&mut self) {
        end(&self.child);
    }
}

pub(super) fn end(child: &Mutex<Child>) {
    let mut child = lock(child);
    let _ = child.kill();
    let _ = child.wait();
}

fn keep_tail(from: &mut impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0u8; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut kept = lock(kept);
        kept.extend(buffer.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(CONSOLE_KEPT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_console_is_kept() {
        let kept = Mutex::new(Vec::new());
        let mut text = vec![b'a'; CONSOLE_KEPT];
        text.extend(b"the end");
        keep_tail(&mut text.as_slice(), &kept);
        let kept = kept.into_inner().expect("not poisoned");
        assert_eq!(kept.len(), CONSOLE_KEPT);
        assert!(kept.ends_with(b"the end"));
    }
}
