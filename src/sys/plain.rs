// SPDX-License-Identifier: GPL-2.0

//! Structs that are shared with user space and consist of integers.

/// Declares structs of integers without padding, which can be read from and written to user
/// memory.
macro_rules! plain_structs {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type),*
        }

        impl $name {
            /// The struct with all bytes zero.
            #[allow(dead_code)] // Not every struct needs it.
            pub(crate) const ZERO: Self = Self { $($field: 0),* };
        }

        // SAFETY: All bytes are initialised: there is no padding, as the assertion below says.
        unsafe impl ::kernel::transmute::AsBytes for $name {}
        // SAFETY: Integers allow all bit patterns: only those fit the constant above.
        unsafe impl ::kernel::transmute::FromBytes for $name {}

        const _: () = assert!(
            ::core::mem::size_of::<$name>() == 0 $(+ ::core::mem::size_of::<$type>())*
        );
    )*};
}
pub(crate) use plain_structs;
