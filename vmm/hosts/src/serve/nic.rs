//! A PCI function as a client sees it: the NIC, or any other with BARs and MSI-X.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use refault_bus::bits::{high_u32, low_u8, low_u16, low_u32};
use refault_pci::PciFunction;
use refault_vfio_user::RequestError;
use refault_vfio_user::function::{CONFIG, VfioUserFunction};
use refault_vfio_user::request::{DmaMap, DmaUnmap, RegionAccess};

use super::discovery::IommuDiscovery;
use super::interrupts::{Interrupts, mark};
use super::ram::ClientRam;
use refault_os::message::note;

/// Size of config space in bytes.
pub(super) const CONFIG_SIZE: u64 = 4096;
/// Size of an MSI-X table entry in bytes.
const ENTRY_SIZE: u64 = 16;

/// A function, with the memory and interrupts of its machine.
pub(super) struct ServedFunction {
    /// Its number among the served functions.
    pub(super) owner: usize,
    pub(super) function: Arc<dyn PciFunction>,
    pub(super) ram: Arc<ClientRam>,
    pub(super) interrupts: Arc<Interrupts>,
    pub(super) discovery: Arc<IommuDiscovery>,
}

impl ServedFunction {
    /// Fills an entry of the function's own MSI-X table with a mark. The guest's table is the client's, which masks a
    /// vector by disconnecting its eventfd; our entry is then masked too, so that the vector becomes pending.
    fn mark_vector(&self, vector: u16, connected: bool) {
        let Some(msix) = self.function.endpoint().msix() else { return };
        let mark = mark(self.owner, vector);
        let masked = u32::from(!connected);
        let dwords = [low_u32(mark.address), high_u32(mark.address), mark.data, masked];
        let at = u64::from(msix.layout().table) + u64::from(vector) * ENTRY_SIZE;
        msix.write(at, &dwords.map(u32::to_le_bytes).concat());
    }

    fn mark_all(&self) {
        for vector in 0..low_u16(self.vectors().into()) {
            self.mark_vector(vector, self.interrupts.has_vector(self.owner, vector));
        }
    }
}

impl VfioUserFunction for ServedFunction {
    fn region_size(&self, index: u32) -> u64 {
        let bars = self.function.endpoint().bars();
        match index {
            CONFIG => CONFIG_SIZE,
            index => bars.iter().find(|bar| u32::from(bar.index) == index).map_or(0, |bar| bar.size),
        }
    }

    fn vectors(&self) -> u32 {
        self.function.endpoint().msix().map_or(0, |msix| msix.layout().vectors.into())
    }

    fn read(&self, access: RegionAccess, data: &mut [u8]) -> Result<(), RequestError> {
        match access.region {
            CONFIG => self.function.config_read(low_u16(access.offset), data),
            bar => self.function.bar_read(low_u8(bar.into()), access.offset, data),
        }
        Ok(())
    }

    fn write(&self, access: RegionAccess, data: &[u8], _posted: bool) -> Result<(), RequestError> {
        match access.region {
            CONFIG => {
                let effect = self.function.config_write(low_u16(access.offset), data);
                if effect.function_reset {
                    self.mark_all();
                }
                if self.function.endpoint().controls().bus_master()
                    && let Some(warning) = self.discovery.warning()
                {
                    note(warning);
                }
            }
            bar => self.function.bar_write(low_u8(bar.into()), access.offset, data),
        }
        Ok(())
    }

    fn map(&self, map: DmaMap, file: Option<File>) -> Result<(), RequestError> {
        self.ram.map(self.owner, map, file)
    }

    fn unmap(&self, unmap: DmaUnmap) -> Result<(), RequestError> {
        self.ram.unmap(self.owner, unmap)
    }

    fn set_vectors(&self, start: u32, events: Vec<Option<OwnedFd>>) -> Result<(), RequestError> {
        for (vector, event) in (low_u16(start.into())..).zip(events) {
            match event {
                // In this order, so that an interrupt raised meanwhile is pending rather than lost.
                None => {
                    self.mark_vector(vector, false);
                    self.interrupts.set_vector(self.owner, vector, None)?;
                }
                Some(event) => {
                    self.interrupts.set_vector(self.owner, vector, Some(event))?;
                    self.mark_vector(vector, true);
                }
            }
        }
        Ok(())
    }

    fn reset(&self) {
        self.function.reset();
        self.function.endpoint().reset();
        self.mark_all();
    }

    fn replied(&self, _id: u16, _error: Option<u32>) {}
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use refault_bus::Bdf;
    use refault_pci::caps::express;
    use refault_pci::{Endpoint, Identity, MsixLayout};
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    const VECTORS: u16 = 4;

    /// A function with MSI-X whose registers do nothing.
    struct Simple(Endpoint);

    impl PciFunction for Simple {
        fn bdf(&self) -> Bdf {
            Bdf::new(0, 0x10, 0)
        }

        fn endpoint(&self) -> &Endpoint {
            &self.0
        }

        fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
            data.fill(0xba);
        }

        fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}

        fn reset(&self) {}
    }

    fn served() -> ServedFunction {
        let interrupts = Arc::<Interrupts>::default();
        let layout = MsixLayout::in_own_bar(2, VECTORS);
        let identity = Identity {
            vendor: 1,
            device: 2,
            class: 0x02_00_00,
            revision: 0,
            subsystem_vendor: 1,
            subsystem: 2,
        };
        let endpoint = Endpoint::builder(identity)
            .bar(0, 0x4000, false)
            .bar(2, layout.bar_size(), false)
            .capability(express::integrated_endpoint())
            .msix(layout, interrupts.clone())
            .build()
            .unwrap();
        let ram = Arc::new(ClientRam::new(false));
        ServedFunction {
            owner: 1,
            function: Arc::new(Simple(endpoint)),
            ram,
            interrupts,
            discovery: Arc::default(),
        }
    }

    fn config(served: &ServedFunction, offset: u64, count: u32) -> u64 {
        let mut data = [0; 8];
        served.read(RegionAccess { region: CONFIG, offset, count }, &mut data[..count as usize]).unwrap();
        u64::from_le_bytes(data)
    }

    fn set_config(served: &ServedFunction, offset: u64, value: u16) {
        served.write(RegionAccess { region: CONFIG, offset, count: 2 }, &value.to_le_bytes(), false).unwrap();
    }

    /// Offset of a capability.
    fn capability(served: &ServedFunction, id: u64) -> u64 {
        let mut at = config(served, 0x34, 1);
        while config(served, at, 1) != id {
            at = config(served, at + 1, 1);
            assert_ne!(at, 0, "no capability {id:#x}");
        }
        at
    }

    /// What a driver enables: bus mastering and MSI-X.
    fn switch_on(served: &ServedFunction) {
        set_config(served, 4, 6);
        set_config(served, capability(served, 0x11) + 2, 1 << 15);
    }

    fn reset_function(served: &ServedFunction) {
        let control = capability(served, 0x10) + 8;
        set_config(served, control, config(served, control, 2) as u16 | 1 << 15);
    }

    fn event(served: &ServedFunction, vector: u32) -> File {
        let ours = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        served.set_vectors(vector, vec![Some(ours.try_clone().unwrap().into())]).unwrap();
        ours
    }

    fn count(mut event: &File) -> u64 {
        let mut count = [0; 8];
        event.read_exact(&mut count).map_or(0, |()| u64::from_ne_bytes(count))
    }

    fn raise(served: &ServedFunction, vector: u16) {
        served.function.endpoint().notify(vector);
    }

    #[test]
    fn vectors_with_events_reach_them_when_msix_is_on() {
        let served = served();
        let (first, last) = (event(&served, 0), event(&served, 3));
        raise(&served, 0);
        assert_eq!(count(&first), 0);
        switch_on(&served);
        raise(&served, 0);
        raise(&served, 3);
        raise(&served, 3);
        raise(&served, VECTORS);
        assert_eq!((count(&first), count(&last)), (1, 2));
    }

    #[test]
    fn a_function_level_reset_leaves_vectors_with_their_events() {
        let served = served();
        let (first, second) = (event(&served, 0), event(&served, 1));
        switch_on(&served);
        reset_function(&served);
        raise(&served, 0);
        assert_eq!(count(&first), 0, "MSI-X is off");
        switch_on(&served);
        raise(&served, 0);
        raise(&served, 1);
        assert_eq!((count(&first), count(&second)), (1, 1));
    }

    #[test]
    fn a_reset_of_the_machine_leaves_vectors_with_their_events() {
        let served = served();
        let first = event(&served, 0);
        switch_on(&served);
        served.reset();
        switch_on(&served);
        raise(&served, 0);
        assert_eq!(count(&first), 1);
    }

    #[test]
    fn a_disconnected_vector_is_pending_until_it_is_connected() {
        let served = served();
        let first = event(&served, 0);
        switch_on(&served);
        served.set_vectors(0, vec![None, None]).unwrap();
        raise(&served, 0);
        raise(&served, 0);
        assert_eq!(count(&first), 0);
        let again = event(&served, 0);
        assert_eq!((count(&first), count(&again)), (0, 1));
        raise(&served, 0);
        assert_eq!(count(&again), 1);
    }

    #[test]
    fn vectors_may_be_connected_before_msix_is_enabled_again() {
        let served = served();
        switch_on(&served);
        reset_function(&served);
        let first = event(&served, 0);
        switch_on(&served);
        raise(&served, 0);
        raise(&served, 1);
        assert_eq!(count(&first), 1);
    }

    #[test]
    fn regions_are_the_bars_and_config_space() {
        let served = served();
        let sizes: Vec<_> = (0..9).map(|index| served.region_size(index)).collect();
        assert_eq!(sizes, [0x4000, 0, 0x2000, 0, 0, 0, 0, CONFIG_SIZE, 0]);
        assert_eq!(served.vectors(), 4);
        let mut data = [0; 4];
        served.read(RegionAccess { region: 0, offset: 0x3ffc, count: 4 }, &mut data).unwrap();
        assert_eq!(data, [0xba; 4]);
    }
}
