//! The NIC driven from user space by the tool on VFIO, and VFIO's answer for memory that it cannot pin.

use crate::support::{program, script};

#[test]
fn user_space_drives_the_nic_through_vfio_and_gives_it_back() {
    let tool = format!("{}:/usr/bin/refault-vfio", program("refault-vfio").display());
    let text = "
        if refault-vfio; then exit 1; fi
        modprobe vfio-pci
        if refault-vfio; then exit 1; fi
        echo Y >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
        mkfs.xfs -q /dev/pmem0
        mkdir /mnt/files
        mount /dev/pmem0 /mnt/files
        mkdir /mnt/files/direct
        xfs_io -c 'chattr +x' /mnt/files/direct
        dd if=/dev/zero of=/mnt/files/direct/dax bs=1M count=2 status=none
        dd if=/dev/zero of=/mnt/files/cached bs=1M count=2 status=none
        refault-vfio --count 300 --map /mnt/files/direct/dax --map /mnt/files/cached
        ip link set lo up
        ibv_rc_pingpong -g 0 -n 20 -O >/dev/null &
        sleep 1
        ibv_rc_pingpong -g 0 -n 20 -O localhost
        wait $!
        refault-vfio --device 0000:00:03.0 --size 100 --count 1";
    let (said, _) = script(2, &["--add", &tool], text);
    assert_eq!(said.status, 0, "{said:#?}");
    for line in [
        "16 MiB of anonymous memory are mapped, and pinned",
        "RDMA WRITE: 300 times 65536 bytes",
        "RDMA READ: 300 times 65536 bytes",
        "MAP_DMA of anonymous memory: mapped and pinned",
        "direct/dax, shared: refused, errno 95 (EOPNOTSUPP",
        "direct/dax, private: refused, errno 95 (EOPNOTSUPP",
        "cached, shared: refused, errno 14 (EFAULT",
        "cached, private: mapped and pinned",
        "is bound to refault_rdma again",
        "20 iters in",
    ] {
        assert!(said.stdout.contains(line), "no {line:?} in {said:#?}");
    }
    assert_eq!(said.stdout.matches(" 0 bytes wrong").count(), 4, "{said:#?}");
    for complaint in ["`modprobe vfio-pci` first", "allow_unsafe_interrupts"] {
        assert!(said.stderr.contains(complaint), "no {complaint:?} in {said:#?}");
    }
}
