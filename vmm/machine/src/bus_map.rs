//! The map from addresses to devices.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, RwLock};

use refault_bus::mmio::MmioDevice;
use refault_bus::sync;

/// Addresses of one kind - memory or ports - and the devices at them. A lookup clones the device out of the map, so that a
/// device may change the map during its own access, as a write to a BAR does.
#[derive(Default)]
struct Space(RwLock<BTreeMap<u64, Window>>);

#[derive(Clone)]
struct Window {
    end: u64,
    device: Arc<dyn MmioDevice>,
}

impl Space {
    /// Adds a window unless it overlaps another; returns whether it did.
    fn insert(&self, range: Range<u64>, device: Arc<dyn MmioDevice>) -> bool {
        let mut map = sync::write(&self.0);
        let free = map.range(..range.end).next_back().is_none_or(|(_, last)| last.end <= range.start);
        if free && !range.is_empty() {
            map.insert(range.start, Window { end: range.end, device });
        }
        free && !range.is_empty()
    }

    fn remove(&self, start: u64) {
        sync::write(&self.0).remove(&start);
    }

    /// The device at `address` and the offset in its window; `None` if the access does not end inside the window.
    fn find(&self, address: u64, len: usize) -> Option<(Arc<dyn MmioDevice>, u64)> {
        let map = sync::read(&self.0);
        let (start, window) = map.range(..=address).next_back()?;
        let end = address.checked_add(len as u64)?;
        (end <= window.end).then(|| (window.device.clone(), address - start))
    }
}

/// The machine's memory-mapped registers and I/O ports.
#[derive(Default)]
pub struct BusMap {
    memory: Space,
    ports: Space,
}

impl BusMap {
    /// Puts a device at a memory range; false if the range is taken.
    #[must_use]
    pub fn insert_memory(&self, range: Range<u64>, device: Arc<dyn MmioDevice>) -> bool {
        self.memory.insert(range, device)
    }

    /// Removes the device whose memory window starts at `start`.
    pub fn remove_memory(&self, start: u64) {
        self.memory.remove(start);
    }

    /// Puts a device at a range of I/O ports; false if the range is taken.
    #[must_use]
    pub fn insert_ports(&self, range: Range<u16>, device: Arc<dyn MmioDevice>) -> bool {
        self.ports.insert(u64::from(range.start)..u64::from(range.end), device)
    }

    /// A load by the guest. Where there is no device it reads all ones, as on a real bus.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        read(&self.memory, address, data);
    }

    /// A store by the guest. Where there is no device it is dropped.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.memory.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    /// An `in` instruction of the guest.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        read(&self.ports, u64::from(port), data);
    }

    /// An `out` instruction of the guest.
    pub fn port_write(&self, port: u16, data: &[u8]) {
        if let Some((device, offset)) = self.ports.find(u64::from(port), data.len()) {
            device.write(offset, data);
        }
    }
}

fn read(space: &Space, address: u64, data: &mut [u8]) {
    match space.find(address, data.len()) {
        Some((device, offset)) => device.read(offset, data),
        None => data.fill(0xff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Returns its number, and records writes.
    #[derive(Default)]
    struct Numbered(u8, Mutex<Vec<(u64, usize)>>);

    impl MmioDevice for Numbered {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(self.0);
        }

        fn write(&self, offset: u64, data: &[u8]) {
            self.1.lock().unwrap().push((offset, data.len()));
        }
    }

    fn numbered(number: u8) -> Arc<Numbered> {
        Arc::new(Numbered(number, Mutex::default()))
    }

    fn byte(bus: &BusMap, address: u64) -> u8 {
        let mut data = [0];
        bus.mmio_read(address, &mut data);
        data[0]
    }

    #[test]
    fn every_address_has_its_device_or_none() {
        let bus = BusMap::default();
        assert!(bus.insert_memory(0x1000..0x2000, numbered(1)));
        assert!(bus.insert_memory(0x2000..0x2010, numbered(2)));
        assert_eq!(
            [0xfff, 0x1000, 0x1fff, 0x2000, 0x200f, 0x2010].map(|at| byte(&bus, at)),
            [0xff, 1, 1, 2, 2, 0xff]
        );
        bus.remove_memory(0x1000);
        assert_eq!((byte(&bus, 0x1000), byte(&bus, 0x2000)), (0xff, 2));
    }

    #[test]
    fn windows_do_not_overlap() {
        let bus = BusMap::default();
        assert!(bus.insert_memory(0x1000..0x2000, numbered(1)));
        for range in [0x1000..0x2000, 0xfff..0x1001, 0x1fff..0x3000, 0x1800..0x1900, 0..0x10000] {
            assert!(!bus.insert_memory(range, numbered(2)));
        }
        assert!(!bus.insert_memory(0x5000..0x5000, numbered(2)), "an empty window is none");
    }

    #[test]
    fn an_access_across_the_end_of_a_window_reaches_no_device() {
        let bus = BusMap::default();
        let device = numbered(1);
        assert!(bus.insert_ports(0x3f8..0x400, device.clone()));
        let mut data = [0; 4];
        bus.port_read(0x3fe, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.port_write(0x3fe, &data);
        bus.port_write(0x3fc, &data);
        assert_eq!(*device.1.lock().unwrap(), [(4, 4)]);
        bus.mmio_read(u64::MAX, &mut data);
        bus.port_read(u16::MAX, &mut data);
    }
}
