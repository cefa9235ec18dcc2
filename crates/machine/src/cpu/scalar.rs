// SPDX-License-Identifier: Apache-2.0
//! Numbers of guest memory, and how they are loaded and stored.
// Unaligned loads and stores by raw pointers.
#![allow(unsafe_code)]

/// Types that guest memory can be read and written as: little-endian unsigned integers.
pub trait Scalar: Copy + PartialEq + Into<u128> {
    const SIZE: usize;
    fn from_u128(v: u128) -> Self;
    /// Reads it at a host address.
    ///
    /// # Safety
    /// `p` must be readable for `SIZE` bytes.
    unsafe fn load(p: *const u8) -> Self;
    /// Writes it at a host address.
    ///
    /// # Safety
    /// `p` must be writable for `SIZE` bytes.
    unsafe fn store(self, p: *mut u8);
}

macro_rules! scalar {
    ($($t:ty),*) => {$(
        impl Scalar for $t {
            const SIZE: usize = std::mem::size_of::<$t>();
            #[inline(always)]
            fn from_u128(v: u128) -> Self {
                v as $t
            }
            #[inline(always)]
            unsafe fn load(p: *const u8) -> Self {
                // SAFETY: the caller's promise. One host load for aligned data, so guests see no torn words.
                <$t>::from_le(unsafe { p.cast::<$t>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { p.cast::<$t>().write_unaligned(self.to_le()) }
            }
        }
    )*};
}
scalar!(u8, u16, u32, u64, u128);
