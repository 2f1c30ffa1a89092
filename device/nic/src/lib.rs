//! The RDMA-like NIC: queues, memory regions, device TLB, page requests.
