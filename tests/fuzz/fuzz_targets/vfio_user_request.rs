//! Payloads of requests: a command in two bytes, then the payload. An accepted request must lie within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use refault_vfio_user::request::{DATA_MAX, Request, parse};

fuzz_target!(|bytes: &[u8]| {
    let Some((command, payload)) = bytes.split_first_chunk() else { return };
    match parse(u16::from_le_bytes(*command), payload) {
        Ok(Request::DmaMap(map)) => {
            assert!(map.size > 0 && map.address.checked_add(map.size).is_some());
            assert!(map.offset.checked_add(map.size).is_some());
        }
        Ok(Request::DmaUnmap(unmap)) => {
            assert!(unmap.address.checked_add(unmap.size).is_some() && (unmap.all || unmap.size > 0));
        }
        Ok(Request::SetIrqs(set)) => assert!(set.start.checked_add(set.count).is_some()),
        Ok(Request::RegionRead(access)) => {
            assert!((1..=DATA_MAX).contains(&(access.count as usize)));
            assert!(access.offset.checked_add(access.count.into()).is_some());
        }
        Ok(Request::RegionWrite(access, data)) => {
            assert_eq!(data.len(), access.count as usize);
            assert!(!data.is_empty() && access.offset.checked_add(access.count.into()).is_some());
        }
        Ok(Request::Version { capabilities, .. }) => assert!(capabilities.len() < payload.len()),
        Ok(Request::DeviceInfo | Request::RegionInfo { .. } | Request::IrqInfo { .. } | Request::Reset) => {}
        Err(_) => {}
    }
});
