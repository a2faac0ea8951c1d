// SPDX-License-Identifier: GPL-2.0

//! Protections.

use crate::layout::Prot;

#[test]
fn protections_are_the_bits_of_mmap() {
    assert_eq!(Prot::from_bits(0), Some(Prot::NONE));
    assert_eq!(Prot::from_bits(3), Some(Prot::READ | Prot::WRITE));
    assert_eq!(Prot::from_bits(8), None);
    assert_eq!(Prot::from_bits(u32::MAX), None);
    let all = Prot::READ | Prot::WRITE | Prot::EXEC;
    assert_eq!(all.bits(), 7);
    assert!(all.contains(Prot::EXEC) && !Prot::READ.contains(all));
    assert!(Prot::NONE.contains(Prot::NONE) && !Prot::NONE.contains(Prot::READ));
}
