//! What the arithmetic needs of the global allocator, mimalloc.

use libmimalloc_sys::{mi_option_set, mi_option_t};
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ops::RangeInclusive;

/// `mi_option_purge_delay` of mimalloc 3, which the bindings do not name: milliseconds until freed pages go back to the
/// system.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed pages for a minute instead of a second. A training step of a large network takes longer than a second, and
/// clearing its pages anew each time took a third of it. To be called first in `main`.
pub fn keep_freed_pages() {
    // SAFETY: no other thread runs yet that could read the option
    unsafe { mi_option_set(PURGE_DELAY, 60_000) };
}

/// mimalloc, with the blocks at hand that a computing thread freed last. By itself it hands out the one that was freed
/// longest ago, which has left the processor's caches.
pub struct Allocator;

/// Sizes of blocks that are kept.
const SIZES: RangeInclusive<usize> = 16 << 10..=4 << 20;
/// Most blocks that a thread keeps, and most bytes in them.
const MOST_BLOCKS: usize = 32;
const MOST_BYTES: usize = 16 << 20;

/// Blocks of one thread, the last freed at the end.
struct Kept {
    blocks: [(*mut u8, usize); MOST_BLOCKS],
    count: usize,
    bytes: usize,
}

thread_local! {
    /// Null for threads that keep nothing.
    static KEPT: Cell<*mut Kept> = const { Cell::new(std::ptr::null_mut()) };
}

/// Lets the calling thread keep the blocks that it frees, until [`give_blocks_back`] or its end.
pub(super) fn keep_blocks() {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            give_blocks_back();
        }
    }
    thread_local! {
        static END: End = const { End };
    }
    if KEPT.get().is_null() && END.try_with(|_| ()).is_ok() {
        let none = Kept { blocks: [(std::ptr::null_mut(), 0); MOST_BLOCKS], count: 0, bytes: 0 };
        KEPT.set(Box::into_raw(Box::new(none)));
    }
}

/// Ends what [`keep_blocks`] began.
pub(super) fn give_blocks_back() {
    let kept = KEPT.replace(std::ptr::null_mut());
    if !kept.is_null() {
        // SAFETY: `keep_blocks` made it from a box.
        let mut kept = unsafe { Box::from_raw(kept) };
        while kept.count > 0 {
            kept.free_oldest();
        }
    }
}

/// What this thread keeps, if it may keep such blocks.
fn kept(layout: Layout) -> Option<&'static mut Kept> {
    if !SIZES.contains(&layout.size()) {
        return None;
    }
    // SAFETY: `keep_blocks` made it for this thread, and nothing that is done with it here gets at it again.
    unsafe { KEPT.get().as_mut() }
}

impl Kept {
    /// A block for `layout`.
    fn take(&mut self, layout: Layout) -> Option<*mut u8> {
        let fits =
            |&(block, size): &(*mut u8, usize)| size == layout.size() && block.addr().is_multiple_of(layout.align());
        let i = self.blocks[..self.count].iter().rposition(fits)?;
        Some(self.remove(i).0)
    }

    fn keep(&mut self, block: *mut u8, size: usize) {
        while self.count == MOST_BLOCKS || self.bytes + size > MOST_BYTES {
            self.free_oldest();
        }
        self.blocks[self.count] = (block, size);
        self.count += 1;
        self.bytes += size;
    }

    fn free_oldest(&mut self) {
        let (block, _) = self.remove(0);
        // SAFETY: its owner gave the block up, and mimalloc knows its layout.
        unsafe { MiMalloc.dealloc(block, Layout::new::<()>()) }
    }

    fn remove(&mut self, i: usize) -> (*mut u8, usize) {
        let removed = self.blocks[i];
        self.blocks.copy_within(i + 1..self.count, i);
        self.count -= 1;
        self.bytes -= removed.1;
        removed
    }
}

// SAFETY: all blocks are mimalloc's. One that is kept was given up by its owner, and is handed out once for what it fits.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match kept(layout).and_then(|kept| kept.take(layout)) {
            Some(block) => block,
            // SAFETY: the caller's contract.
            None => unsafe { MiMalloc.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match kept(layout) {
            Some(kept) => kept.keep(block, layout.size()),
            // SAFETY: the caller's contract.
            None => unsafe { MiMalloc.dealloc(block, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(block) = kept(layout).and_then(|kept| kept.take(layout)) else {
            // SAFETY: the caller's contract.
            return unsafe { MiMalloc.alloc_zeroed(layout) };
        };
        // SAFETY: the block has this size.
        unsafe { block.write_bytes(0, layout.size()) };
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: no other test changes options.
        let value = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(value(), 1000, "mimalloc's default purge delay");
        keep_freed_pages();
        assert_eq!(value(), 60_000);
    }

    #[test]
    fn a_computing_thread_gets_the_block_it_freed_last() {
        let layout = |size: usize| Layout::from_size_align(size, 64).unwrap();
        // SAFETY: the layout is not empty.
        let [a, b] = [0; 2].map(|_| unsafe { Allocator.alloc(layout(1 << 20)) });
        keep_blocks();
        // SAFETY: each block is freed once, with the layout that it was allocated for.
        unsafe {
            a.write_bytes(7, 1 << 20);
            Allocator.dealloc(b, layout(1 << 20));
            Allocator.dealloc(a, layout(1 << 20));
            assert_ne!(Allocator.alloc(layout(3 << 19)), a, "of another size");
            let zeros = Allocator.alloc_zeroed(layout(1 << 20));
            assert!(zeros == a && std::slice::from_raw_parts(zeros, 1 << 20).iter().all(|v| *v == 0));
            assert_eq!(Allocator.alloc(layout(1 << 20)), b);
            // no more than may be kept: the oldest go
            let blocks: Vec<*mut u8> = (0..40).map(|_| Allocator.alloc(layout(1 << 20))).collect();
            blocks.iter().for_each(|block| Allocator.dealloc(*block, layout(1 << 20)));
            let kept = || KEPT.get().as_ref().map(|kept| (kept.count, kept.bytes, kept.blocks[kept.count - 1].0));
            assert_eq!(kept(), Some((16, 16 << 20, blocks[39])));
            let small: Vec<*mut u8> = (0..40).map(|_| Allocator.alloc(layout(1 << 15))).collect();
            small.iter().for_each(|block| Allocator.dealloc(*block, layout(1 << 15)));
            assert_eq!(kept(), Some((32, 32 << 15, small[39])));
        }
        give_blocks_back();
        assert!(KEPT.get().is_null());
    }
}
