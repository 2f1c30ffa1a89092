//! Which system calls are allowed to whom, by name.

/// A system call's number and name.
pub(super) type Call = (libc::c_long, &'static str);

/// A list of system calls.
macro_rules! calls {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}
pub(super) use calls;

/// What every thread does: memory, locks, clocks, signals, its end, and I/O on open descriptors.
pub(super) const EVERYONE: &[Call] = calls! {
    SYS_read SYS_write SYS_readv SYS_writev SYS_close SYS_lseek SYS_fstat SYS_poll SYS_ppoll
    SYS_futex SYS_sched_yield SYS_sched_getaffinity SYS_membarrier
    SYS_clock_gettime SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday SYS_time
    SYS_munmap SYS_mremap SYS_madvise SYS_brk SYS_getrandom
    SYS_getpid SYS_gettid SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigtimedwait SYS_sigaltstack
    SYS_restart_syscall SYS_exit SYS_exit_group SYS_set_robust_list SYS_rseq
};
/// What a device does besides: messages to the client of a vfio-user socket.
pub(super) const DEVICE: &[Call] = calls! { SYS_sendmsg SYS_sendto SYS_shutdown };
/// Writing files out.
pub(super) const STORAGE: &[Call] = calls! { SYS_fdatasync SYS_fsync SYS_msync SYS_sync_file_range };
/// What the rest does: files, which Landlock confines, sockets, events, children's ends.
pub(super) const OTHERS: &[Call] = calls! {
    SYS_openat SYS_open SYS_stat SYS_lstat SYS_newfstatat SYS_statx SYS_access SYS_faccessat SYS_faccessat2
    SYS_readlink SYS_readlinkat SYS_getcwd SYS_getdents64 SYS_fstatfs SYS_statfs
    SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_copy_file_range SYS_sendfile SYS_splice
    SYS_ftruncate SYS_fallocate SYS_fadvise64 SYS_flock SYS_fcntl SYS_dup SYS_dup2 SYS_dup3 SYS_fchmod SYS_umask
    SYS_mkdir SYS_mkdirat SYS_rmdir SYS_unlink SYS_unlinkat SYS_rename SYS_renameat SYS_renameat2
    SYS_symlink SYS_symlinkat SYS_link SYS_linkat
    SYS_pipe2 SYS_eventfd2 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_wait SYS_epoll_pwait SYS_epoll_pwait2
    SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername
    SYS_getsockopt SYS_setsockopt SYS_recvmsg SYS_recvfrom
    SYS_wait4 SYS_waitid SYS_pidfd_send_signal SYS_sched_getparam SYS_sched_getscheduler
    SYS_clone SYS_clone3 SYS_set_tid_address SYS_seccomp SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getppid
    SYS_uname SYS_sysinfo SYS_getrusage SYS_getpgrp SYS_getpgid SYS_times
};
/// What no program needs that we start. These fail with EPERM, since some are only tried.
pub(super) const NOT_FOR_PROGRAMS: &[Call] = calls! {
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_perf_event_open SYS_bpf SYS_userfaultfd
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsmount SYS_mount_setattr
    SYS_setns SYS_unshare SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init SYS_quotactl SYS_acct
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot
    SYS_swapon SYS_swapoff SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime SYS_sethostname
    SYS_setdomainname SYS_iopl SYS_ioperm SYS_add_key SYS_request_key SYS_keyctl SYS_syslog
    SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
};
/// Further names for last words.
const NOTABLE: &[Call] = calls! {
    SYS_execve SYS_execveat SYS_fork SYS_vfork SYS_socket SYS_kill SYS_tgkill SYS_tkill SYS_ioctl SYS_mmap
    SYS_mprotect SYS_prctl SYS_prlimit64 SYS_setuid SYS_setgid SYS_setresuid SYS_chmod SYS_fchmodat SYS_chown SYS_fchown
    SYS_fchownat SYS_setxattr SYS_memfd_create SYS_mknod SYS_mknodat SYS_truncate
};

/// The name of a system call, without an allocation.
pub(super) fn name_of(number: i64) -> &'static str {
    let all = [EVERYONE, DEVICE, STORAGE, OTHERS, NOT_FOR_PROGRAMS, NOTABLE];
    let found = all.iter().flat_map(|calls| calls.iter()).find(|(found, _)| *found == number);
    found.and_then(|(_, name)| name.strip_prefix("SYS_")).unwrap_or("see ausyscall(8)")
}
