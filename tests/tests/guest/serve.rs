//! `refault serve`, with a QEMU that this test starts as a user would.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use refault_guest::GuestImage;
use refault_hosts::emulation::EMULATED_CPU;
use refault_vmm::run::guest_log;
use refault_vmm::run::job::Job;

use crate::support::binary;

const MIB: u64 = 1 << 20;
/// RAM of the guest, which ends where the hole below 4 GiB begins.
const RAM: u64 = 1 << 30;
/// Gap between regions: the kernel would merge adjacent ones.
const GAP: u64 = 2 * MIB;
/// Timeout of each wait, long enough for a slow machine.
const TIMEOUT: Duration = Duration::from_secs(900);

/// How often the guest is stopped in the middle of faults: once because QEMU is killed, and then by resets.
const RESETS: u32 = 4;

/// The guest's init. The first boots are stopped in the middle of faults; the last must work as if it were the first. A byte
/// of persistent memory counts them.
const SCRIPT: &str = r#"
say() { echo "<1>test: $*" >/dev/kmsg; }
resets=$(head -c 3 /dev/pmem1 | tr -d "\0")
say resets: ${resets:=0} of $RESETS
if [ $resets -lt $RESETS ]; then
    printf %s $((resets + 1)) | dd of=/dev/pmem1 bs=4096 conv=sync,fsync 2>/dev/null
    [ $((resets % 2)) = 0 ] || export REFAULT_ODP_MODE=odp
    refault-storm --scale 1000 dontneed >/dev/null 2>&1 &
    sleep $((1 + resets % 3))
    [ $resets != 0 ] || { say under load; sleep 10000; }
    say reset under load
    busybox reboot -f
fi
for mode in pasid odp; do
    REFAULT_ODP_MODE=$mode refault-storm --scale 0.1 dontneed >/tmp/said 2>&1
    say $mode: $(grep -o 'result=[a-z]*' /tmp/said) $(grep -o 'faults=[0-9]*' /tmp/said)
done
"#;

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Waits for the end. A timeout shows `logs`.
    fn wait(&mut self, what: &str, logs: &[&PathBuf]) {
        let start = Instant::now();
        while self.0.try_wait().expect("a child").is_none() {
            if start.elapsed() > TIMEOUT {
                let logs = logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default());
                panic!("{what} does not end\n{}", logs.collect::<Vec<_>>().join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }
}

fn serve(folder: &Path, more: &[&str], said: &Path) -> Running {
    let said = File::create(said).expect("a file");
    let mut command = Command::new(binary());
    command.arg("serve").arg(folder.join("devices")).args(more);
    let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().expect("a server");
    let start = Instant::now();
    while !folder.join("devices/nic0").exists() {
        assert!(start.elapsed() < TIMEOUT, "no sockets");
        std::thread::sleep(Duration::from_millis(20));
    }
    Running(server)
}

/// Waits until a log has that many lines that name a function, or nothing, and end so.
fn wait_for_line(log: &Path, function: &str, end: &str, count: usize) {
    let start = Instant::now();
    let text = || fs::read_to_string(log).unwrap_or_default();
    while text().lines().filter(|line| line.contains(function) && line.ends_with(end)).count() < count {
        assert!(start.elapsed() < TIMEOUT, "no line of {function} ends with {end}: {}", text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The output of `refault serve --print-args vng`: the devices and the memory they need.
fn printed(folder: &Path) -> String {
    let mut command = Command::new(binary());
    command.arg("serve").arg(folder.join("devices")).args(["--print-args", "--memory", "1G"]);
    let output = command.output().expect("refault starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn initrd(image: &GuestImage, folder: &Path) -> PathBuf {
    let job = Job {
        command: ["sh", "-c", SCRIPT].map(Into::into).to_vec(),
        environment: vec![
            ("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("RESETS".into(), RESETS.to_string().into()),
        ],
        root: "pmem0".into(),
        ..Job::default()
    };
    let mut whole = fs::read(image.boot_archive()).expect("the image");
    whole.extend(fs::read(image.driver_archive()).expect("the image"));
    job.write(&mut whole).expect("a job");
    let path = folder.join("initrd");
    fs::write(&path, whole).expect("room");
    path
}

/// QEMU's arguments, quoted for a shell, for a machine with the image's root file system and a marker as persistent memory.
fn machine(image: &GuestImage, folder: &Path) -> String {
    let root_size = fs::metadata(image.root()).expect("the image").len();
    let marker = folder.join("marker");
    File::create(&marker).and_then(|file| file.set_len(16 * MIB)).expect("room");
    let root_at = (4 << 30) + GAP;
    let marker_at = root_at + root_size + GAP;
    let total = RAM + GAP + root_size + GAP + 16 * MIB;
    let memmap = format!(
        "memmap={GAP:#x}$4G memmap={root_size:#x}!{root_at:#x} memmap={GAP:#x}${:#x} memmap=16M!{marker_at:#x}",
        marker_at - GAP
    );
    let gap = |id: &str| format!("-object memory-backend-memfd,id={id},size=2M,share=on");
    let objects = [
        format!("-object memory-backend-memfd,id=ram0,size={RAM},share=on"),
        gap("gap0"),
        format!(
            "-object memory-backend-file,id=root,mem-path={},size={root_size},share=on,readonly=on",
            image.root().display()
        ),
        gap("gap1"),
        format!("-object memory-backend-file,id=marker,mem-path={},size=16M,share=on", marker.display()),
    ];
    let nodes = ["ram0,cpus=0-1", "gap0", "root", "gap1", "marker"]
        .iter()
        .enumerate()
        .map(|(node, memory)| format!("-numa node,nodeid={node},memdev={memory}"));
    let mut words: Vec<String> = vec![
        format!("-machine q35,max-ram-below-4g={RAM} -m {}M -smp 2 -cpu {EMULATED_CPU}", total / MIB),
        "-accel tcg,thread=multi -nodefaults -no-user-config -display none".into(),
        format!("-kernel {}", image.kernel().display()),
        format!("-append 'console=ttyS0 panic=-1 loglevel=5 numa=noacpi {memmap}'"),
        format!("-serial file:{} -serial null -serial null", folder.join("serial.log").display()),
    ];
    words.extend(objects);
    words.extend(nodes);
    words.join(" ")
}

#[test]
fn a_guest_of_a_users_own_qemu_is_killed_and_reset_under_faults_and_works_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let image = GuestImage::ensure(None, false).expect("a guest image");
    let trace = folder.join("trace");
    let said = folder.join("server.log");
    let mut server = serve(folder, &["--trace", &trace.display().to_string()], &said);
    // Only the printed arguments of the devices: this machine has more than one piece of memory.
    let printed = printed(folder);
    let devices: Vec<_> = printed
        .lines()
        .filter(|line| line.starts_with("-acpitable") || line.starts_with("-device"))
        .collect();
    let devices = devices.join(" ").replace('\\', "");
    let line = format!(
        "exec {} qemu -- {} -initrd {} {devices}",
        binary().display(),
        machine(&image, folder),
        initrd(&image, folder).display()
    );
    let start = || Running(Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).spawn().expect("sh"));
    let serial = folder.join("serial.log");
    let killed = start();
    // While the guest has the devices, a second client is refused.
    wait_for_line(&said, "nic0:", "a client connected", 1);
    let second = std::os::unix::net::UnixStream::connect(folder.join("devices/nic0")).expect("a socket");
    wait_for_line(&serial, "", "test: under load", 1);
    drop((killed, second));
    for function in ["iommu:", "nic0:"] {
        // A socket with unread data is reset; otherwise it is closed.
        wait_for_line(&said, function, "disconnected", 1);
    }
    let first_log = fs::read_to_string(&serial).expect("a log");
    let mut qemu = start();
    qemu.wait("QEMU", &[&serial, &said]);
    wait_for_line(&said, "nic0:", "disconnected", 2);
    server.interrupt();
    server.wait("the server", &[&said]);
    let log = first_log + &fs::read_to_string(serial).expect("a log");
    let server_log = fs::read_to_string(&said).expect("a log");
    for reset in 0..=RESETS {
        let line = format!("test: resets: {reset} of {RESETS}");
        assert!(log.contains(&line), "no {line}: {log}\n{server_log}");
    }
    assert_eq!(log.matches("test: reset under load").count(), RESETS as usize - 1, "{log}");
    for mode in ["pasid", "odp"] {
        let result = log.lines().find(|line| line.contains(&format!("test: {mode}:")));
        let result = result.unwrap_or_else(|| panic!("no result of {mode}: {log}\n{server_log}"));
        assert!(result.contains("result=pass") && !result.contains("faults=0"), "{result}\n{log}");
    }
    assert!(guest_log::findings(&log).is_empty(), "{:?}", guest_log::findings(&log));
    assert!(server_log.contains("nic0: refused a second client"), "{server_log}");
    for file in ["report.html", "faults.csv", "counters.json"] {
        assert!(trace.join(file).is_file(), "no {file}: {server_log}");
    }
    assert!(!folder.join("devices/nic0").exists(), "the socket is left behind");
}

/// libvirt requests the list first. QEMU then loads all its modules, and must not load those of the host's QEMU.
#[test]
fn the_cached_qemu_lists_its_types() {
    let mut qemu = Command::new(binary())
        .args([
            "qemu",
            "--",
            "-S",
            "-nodefaults",
            "-nographic",
            "-machine",
            "none,accel=tcg",
            "-qmp",
            "stdio",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("refault starts");
    let mut input = qemu.stdin.take().expect("a pipe");
    for command in ["qmp_capabilities", "qom-list-types", "quit"] {
        writeln!(input, r#"{{"execute":"{command}"}}"#).expect("QEMU reads");
    }
    let said = qemu.wait_with_output().expect("QEMU ends");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.contains("vfio-user-pci"), "{} {text}", said.status);
}
