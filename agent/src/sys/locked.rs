//! Memory for keys: locked against swapping, left out of core dumps, zeroed when it is given back.
//!
//! Owns the pages of one value each. What the value itself copies elsewhere (registers, the stack of a signature in the
//! making) is not covered. Where the kernel refuses to lock (RLIMIT_MEMLOCK without CAP_IPC_LOCK), the value is kept all
//! the same and says so: a key in memory that might be swapped is still one that is never written by us.

use std::alloc::Layout;
use std::ops::Deref;
use std::ptr::NonNull;

use zeroize::Zeroize as _;

/// A value in pages of its own. Dropped in place, then overwritten with zeros, then unmapped.
pub struct Locked<T> {
    value: NonNull<T>,
    bytes: usize,
    locked: bool,
}

// SAFETY: it owns its value like a `Box`, and nobody else has the pages.
unsafe impl<T: Send> Send for Locked<T> {}

// SAFETY: it gives out shared references only, like a `Box`.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Moves a value into pages of its own. Ends the process when there is no memory for them, as `Box` does.
    #[must_use]
    pub fn new(value: T) -> Self {
        const { assert!(align_of::<T>() <= 4096, "a page is aligned well enough for every key") };
        let bytes = size_of::<T>().max(1).next_multiple_of(4096);
        // SAFETY: an anonymous private mapping at a place of the kernel's choice touches nothing that exists.
        let pages = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let place = if pages == libc::MAP_FAILED { None } else { NonNull::new(pages.cast::<T>()) };
        let Some(place) = place else { std::alloc::handle_alloc_error(Layout::new::<T>()) };
        // SAFETY: the mapping made above, whole.
        let locked = unsafe { libc::mlock(pages, bytes) } == 0;
        // SAFETY: the mapping made above, whole; advice changes no content of it.
        unsafe { libc::madvise(pages, bytes, libc::MADV_DONTDUMP) };
        // SAFETY: writable, large enough, aligned to a page, and holding no value yet.
        unsafe { place.write(value) };
        Self { value: place, bytes, locked }
    }

    /// Whether the kernel keeps it out of swap.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: holds a value from `new` to `drop`.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: holds a value, which nobody uses after this.
        unsafe { self.value.drop_in_place() };
        // SAFETY: the mapping is still there, and plain bytes now.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.value.as_ptr().cast::<u8>(), self.bytes) };
        bytes.zeroize();
        // SAFETY: the mapping made in `new`, which nothing refers to any more. Unmapping unlocks.
        unsafe { libc::munmap(self.value.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_value_is_used_and_dropped_once() {
        struct Counts<'a>(&'a std::cell::Cell<u32>, [u8; 100]);
        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = std::cell::Cell::new(0);
        let locked = Locked::new(Counts(&dropped, [7; 100]));
        assert_eq!((locked.1[99], dropped.get()), (7, 0));
        drop(locked);
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn its_pages_are_in_the_kernels_list_of_locked_memory() {
        let locked = Locked::new([0x5a_u8; 4096]);
        // Of this mapping and no other: other tests lock pages of their own meanwhile.
        let address = std::ptr::from_ref(&*locked).addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut inside = false;
        let flags = maps.lines().find_map(|line| {
            if let Some((from, rest)) = line.split_once('-')
                && let (Ok(from), Some((to, _))) = (usize::from_str_radix(from, 16), rest.split_once(' '))
            {
                inside = (from..usize::from_str_radix(to, 16).expect("an address")).contains(&address);
            }
            line.strip_prefix("VmFlags:").filter(|_| inside)
        });
        // A host may forbid it; then it says so.
        assert_eq!(locked.is_locked(), flags.expect("the mapping").split(' ').any(|flag| flag == "lo"));
    }
}
