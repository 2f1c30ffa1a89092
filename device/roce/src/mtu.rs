/// Path MTU: the most bytes of payload in one packet, by the codes 1 to 5 of InfiniBand (IBTA volume 1, §9.2.1; `enum
/// ib_mtu`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u8);

impl Mtu {
    /// The smallest one, of 256 bytes.
    pub const SMALLEST: Self = Self(1);
    /// The largest one, of 4096 bytes.
    pub const LARGEST: Self = Self(5);

    /// By its code, 1 to 5.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        if code >= Self::SMALLEST.0 && code <= Self::LARGEST.0 { Some(Self(code)) } else { None }
    }

    /// Its code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// In bytes: 256 to 4096.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        128 << self.0
    }

    /// Number of packets that `length` bytes take; no bytes take one.
    #[must_use]
    pub const fn packets(self, length: u32) -> u32 {
        if length == 0 { 1 } else { length.div_ceil(self.bytes()) }
    }

    /// The largest one whose packets fit a network device with an MTU of `bytes`, if any does: Linux takes 96 bytes for
    /// headers (`iboe_get_mtu` in include/rdma/ib_addr.h).
    #[must_use]
    pub const fn of_netdev(bytes: u32) -> Option<Self> {
        const HEADERS: u32 = 96;
        let mut code = Self::LARGEST.0;
        while code >= Self::SMALLEST.0 {
            if Self(code).bytes() + HEADERS <= bytes {
                return Some(Self(code));
            }
            code -= 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_infiniband() {
        let bytes: Vec<_> = (0..=7).map(|code| Mtu::from_code(code).map(Mtu::bytes)).collect();
        assert_eq!(bytes, [None, Some(256), Some(512), Some(1024), Some(2048), Some(4096), None, None]);
    }

    #[test]
    fn a_message_takes_one_packet_at_least() {
        let mtu = Mtu::from_code(3).unwrap();
        let packets = [0, 1, 1024, 1025, 1 << 31, u32::MAX].map(|length| mtu.packets(length));
        assert_eq!(packets, [1, 1, 1, 2, 1 << 21, 1 << 22]);
    }

    #[test]
    fn the_mtu_of_a_netdev_leaves_room_for_headers() {
        let of = |bytes| Mtu::of_netdev(bytes).map(Mtu::bytes);
        assert_eq!(
            [1500, 4192, 4191, 9000, 352, 351].map(of),
            [Some(1024), Some(4096), Some(2048), Some(4096), Some(256), None]
        );
    }
}
