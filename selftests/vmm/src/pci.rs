// SPDX-License-Identifier: GPL-2.0

//! A PCI bus with configuration mechanism 1, and the configuration space of a virtio
//! function.

use anyhow::Result;

use crate::msix;

/// Where the functions' registers begin.
pub const BARS: u64 = 0xd000_0000;
/// Where memory that devices share with their drivers begins, and where it ends, which is also
/// the end of the bus's memory.
pub const WINDOWS: u64 = 0xd800_0000;
pub const MEMORY_END: u64 = 0xe000_0000;
/// How many bytes of it each function has.
pub const BAR_LENGTH: u64 = 0x8000;

// Offsets in the registers of a function.
pub const COMMON: u64 = 0;
pub const ISR: u64 = 0x1000;
pub const DEVICE: u64 = 0x2000;
pub const NOTIFY: u64 = 0x3000;
pub const MSIX_TABLE: u64 = 0x4000;
pub const MSIX_PENDING: u64 = 0x5000;

/// How far the queues' notification registers are apart.
pub const NOTIFY_MULTIPLIER: u64 = 4;

const COMMAND: usize = 0x04;
const BAR: usize = 0x10;
/// That of the shared memory, which takes two.
const SHARED_BAR: usize = 0x18;
const MSIX: usize = 0x40;

/// The number of a device on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u8);

impl Slot {
    /// Bus, device and function as one number, which is also an endpoint's for
    /// the IOMMU.
    pub fn bdf(self) -> u32 {
        u32::from(self.0) << 3
    }

    pub fn bar(self) -> u64 {
        BARS + u64::from(self.0) * BAR_LENGTH
    }
}

/// A function on the bus, as the CPU sees it.
pub trait Function {
    fn config(&self) -> &Config;
    fn write_config(&mut self, at: usize, bytes: &[u8]) -> Result<()>;
    /// Reads its registers.
    fn read(&self, offset: u64, bytes: &mut [u8]);
    /// Writes its registers.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// The offset of an address in its registers, if it is there.
    fn offset(&self, addr: u64) -> Option<u64> {
        let offset = addr.checked_sub(self.config().bar()?)?;
        (offset < BAR_LENGTH).then_some(offset)
    }
}

/// Memory that a device shares with its driver, in a BAR of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Which of the device's memories it is.
    pub id: u8,
    /// Its address, a multiple of the length,
    pub addr: u64,
    /// which is a power of two.
    pub length: u64,
}

/// The configuration space of a function.
pub struct Config {
    bytes: [u8; 256],
    writable: [u8; 256],
}

impl Config {
    fn new(vendor: u16, device: u16, class: u32) -> Config {
        let mut config = Config {
            bytes: [0; 256],
            writable: [0; 256],
        };
        config.put(0, &vendor.to_le_bytes());
        config.put(2, &device.to_le_bytes());
        config.put(8, &(class << 8).to_le_bytes());
        config
    }

    /// That of the bridge between CPU and bus, without which a guest finds no bus.
    pub fn bridge() -> Config {
        Config::new(0x8086, 0x0d57, 0x060000)
    }

    /// That of a virtio device of this kind.
    pub fn virtio(
        slot: Slot,
        kind: u16,
        class: u32,
        vectors: u16,
        shared: Option<Shared>,
    ) -> Config {
        let mut config = Config::new(0x1af4, 0x1040 + kind, class);
        config.put(8, &[1]);
        config.writable[COMMAND..COMMAND + 2].copy_from_slice(&[0x07, 0x04]);
        config.put(BAR, &(slot.bar() as u32).to_le_bytes());
        let size = !(BAR_LENGTH as u32 - 1);
        config.writable[BAR..BAR + 4].copy_from_slice(&size.to_le_bytes());
        config.put(0x2c, &0x1af4_u16.to_le_bytes());
        config.put(0x2e, &kind.to_le_bytes());

        // The list of capabilities begins with MSI-X.
        config.put(0x06, &0x0010_u16.to_le_bytes());
        config.put(0x34, &[MSIX as u8]);
        config.put(MSIX, &[0x11, 0x50]);
        config.put(MSIX + 2, &(vectors - 1).to_le_bytes());
        config.put(MSIX + 4, &(MSIX_TABLE as u32).to_le_bytes());
        config.put(MSIX + 8, &(MSIX_PENDING as u32).to_le_bytes());
        config.writable[MSIX + 3] = 0xc0;
        let mut capability = |at: usize, next: u8, what: u8, offset: u64, length: u32| {
            let size = if what == 2 { 20 } else { 16 };
            config.put(at, &[0x09, next, size, what, 0, 0, 0, 0]);
            config.put(at + 8, &(offset as u32).to_le_bytes());
            config.put(at + 12, &length.to_le_bytes());
        };
        capability(0x50, 0x60, 1, COMMON, 0x38);
        capability(0x60, 0x78, 2, NOTIFY, 0x1000);
        capability(0x78, 0x88, 3, ISR, 1);
        let after = if shared.is_some() { 0x98 } else { 0 };
        capability(0x88, after, 4, DEVICE, 0x1000);
        config.put(0x70, &(NOTIFY_MULTIPLIER as u32).to_le_bytes());
        if let Some(shared) = shared {
            config.put_shared(after.into(), shared);
        }
        config
    }

    /// A prefetchable BAR of 64 bits, and the capability that says what it is.
    fn put_shared(&mut self, at: usize, shared: Shared) {
        const PREFETCHABLE_64: u64 = 0xc;
        self.put(SHARED_BAR, &(shared.addr | PREFETCHABLE_64).to_le_bytes());
        let size = !(shared.length - 1);
        self.writable[SHARED_BAR..SHARED_BAR + 8].copy_from_slice(&size.to_le_bytes());
        self.put(at, &[0x09, 0, 24, 8, 2, shared.id]);
        // The offset in the BAR is 0, and each number is in two parts.
        let [low, high] = [shared.length as u32, (shared.length >> 32) as u32];
        self.put(at + 12, &low.to_le_bytes());
        self.put(at + 20, &high.to_le_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        for (at, byte) in (at..).zip(bytes) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        for (at, byte) in (at..256).zip(bytes) {
            let writable = self.writable[at];
            self.bytes[at] = self.bytes[at] & !writable | byte & writable;
        }
    }

    /// Where its registers are, if they are enabled.
    pub fn bar(&self) -> Option<u64> {
        let bar = u32::from_le_bytes(self.bytes[BAR..BAR + 4].try_into().unwrap());
        (self.bytes[COMMAND] & 2 != 0).then_some(u64::from(bar))
    }

    /// Where its shared memory is, if it has any and it is enabled.
    pub fn shared(&self) -> Option<u64> {
        let bar = u64::from_le_bytes(self.bytes[SHARED_BAR..SHARED_BAR + 8].try_into().unwrap());
        (self.bytes[COMMAND] & 2 != 0 && bar != 0).then_some(bar & !0xf)
    }

    /// How its interrupts are to be delivered.
    pub fn msix(&self) -> msix::State {
        match self.bytes[MSIX + 3] & 0xc0 {
            0x80 => msix::State::Enabled,
            _ => msix::State::Masked,
        }
    }
}

/// The address register of the mechanism.
#[derive(Default)]
pub struct Address(u32);

impl Address {
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        for (at, byte) in (at..).zip(bytes) {
            *byte = self.0.to_le_bytes().get(at).copied().unwrap_or(0xff);
        }
    }

    /// Only a write of all four bytes has an effect.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        if let (0, Ok(bytes)) = (at, bytes.try_into()) {
            self.0 = u32::from_le_bytes(bytes);
        }
    }

    /// The device and the register that it addresses, if they are on this bus.
    pub fn target(&self) -> Option<(Slot, usize)> {
        let enabled = self.0 & (1 << 31) != 0;
        let others = self.0 & 0x00ff_0700 != 0;
        let slot = Slot(((self.0 >> 11) & 0x1f) as u8);
        (enabled && !others).then_some((slot, (self.0 & 0xfc) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(config: &Config, at: usize) -> u32 {
        let mut bytes = [0; 4];
        config.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn driver_finds_the_length_of_the_registers() {
        let slot = Slot(2);
        let mut config = Config::virtio(slot, 2, 0x010000, 2, None);
        assert_eq!(config.bar(), None);
        config.write(COMMAND, &[2, 0]);
        assert_eq!(config.bar(), Some(slot.bar()));
        config.write(BAR, &[0xff; 4]);
        assert_eq!(word(&config, BAR), !(BAR_LENGTH as u32 - 1));
        config.write(BAR, &(slot.bar() as u32).to_le_bytes());
        assert_eq!(config.bar(), Some(slot.bar()));
        assert_eq!(word(&config, BAR + 4), 0);
    }

    #[test]
    fn driver_finds_all_capabilities() {
        let mut config = Config::virtio(Slot(1), 23, 0x080600, 3, None);
        let mut at = word(&config, 0x34) as usize & 0xff;
        let mut kinds = Vec::new();
        while at != 0 {
            let [id, next, _, kind] = word(&config, at).to_le_bytes();
            kinds.push(if id == 0x09 { kind } else { 0 });
            at = usize::from(next);
        }
        assert_eq!(kinds, [0, 1, 2, 3, 4]);
        assert!(config.msix() == msix::State::Masked);
        config.write(MSIX + 2, &[0xff, 0x80]);
        assert!(config.msix() == msix::State::Enabled);
        assert_eq!((word(&config, MSIX) >> 16) & 0x7ff, 2);
    }

    #[test]
    fn driver_finds_the_shared_memory() {
        let shared = Shared {
            id: 3,
            addr: 0xd800_0000,
            length: 16 << 20,
        };
        let mut config = Config::virtio(Slot(1), 26, 0x018000, 3, Some(shared));
        assert_eq!(config.shared(), None);
        config.write(COMMAND, &[2, 0]);
        assert_eq!(config.shared(), Some(shared.addr));
        config.write(SHARED_BAR, &[0xff; 8]);
        assert_eq!(word(&config, SHARED_BAR), !(shared.length as u32 - 1) | 0xc);
        assert_eq!(word(&config, SHARED_BAR + 4), !0);

        let mut at = word(&config, 0x34) as usize & 0xff;
        while word(&config, at).to_le_bytes()[3] != 8 {
            at = usize::from(word(&config, at).to_le_bytes()[1]);
            assert_ne!(at, 0);
        }
        assert_eq!(word(&config, at + 4) & 0xffff, 0x0302);
        assert_eq!([8, 16].map(|offset| word(&config, at + offset)), [0, 0]);
        assert_eq!(word(&config, at + 12), shared.length as u32);
        assert_eq!(word(&config, at + 20), 0);
    }

    #[test]
    fn address_is_that_of_bus_0_and_function_0() {
        let mut address = Address::default();
        assert_eq!(address.target(), None);
        for (written, target) in [
            (0x8000_1010, Some((Slot(2), 0x10))),
            (0x0000_1010, None),
            (0x8000_1110, None),
            (0x8001_1010, None),
        ] {
            address.write(0, &u32::to_le_bytes(written));
            assert_eq!(address.target(), target, "{written:#x}");
        }
        address.write(0, &[0x80]);
        assert_eq!(address.target(), None);
    }
}
