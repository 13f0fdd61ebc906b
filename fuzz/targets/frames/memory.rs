//! The system's allocator, and how much of it is in use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::AtomicIsize;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes in use now.
static LIVE: AtomicIsize = AtomicIsize::new(0);
/// Most bytes in use since it was last set.
static PEAK: AtomicIsize = AtomicIsize::new(0);
/// Bytes of all allocations there ever were.
static ALLOCATED: AtomicIsize = AtomicIsize::new(0);

/// What one call did to the heap. Exact, as long as no other thread allocates.
pub struct Usage {
    /// In use after it and not before it.
    pub held_bytes: isize,
    /// The most in use at once and not before it.
    pub peak_bytes: isize,
    /// Of all its allocations, those it gave back too.
    pub allocated_bytes: usize,
}

/// Runs `call` and says what it took.
pub fn measure<T>(call: impl FnOnce() -> T) -> (T, Usage) {
    let (live, allocated) = (LIVE.load(Relaxed), ALLOCATED.load(Relaxed));
    PEAK.store(live, Relaxed);
    let result = call();
    let usage = Usage {
        held_bytes: LIVE.load(Relaxed) - live,
        peak_bytes: PEAK.load(Relaxed) - live,
        allocated_bytes: (ALLOCATED.load(Relaxed) - allocated) as usize,
    };
    (result, usage)
}

pub struct CountingAllocator;

impl CountingAllocator {
    fn count(taken: usize, given_back: usize) {
        let change = taken as isize - given_back as isize;
        let live = LIVE.fetch_add(change, Relaxed) + change;
        PEAK.fetch_max(live, Relaxed);
        ALLOCATED.fetch_add(taken as isize, Relaxed);
    }
}

// SAFETY: `System` does all the work, under the contract that it shares with this; counting neither
// allocates nor panics.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size(), 0);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::count(0, layout.size());
        // SAFETY: the caller keeps the contract; `pointer` is from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::count(new_size, layout.size());
        // SAFETY: the caller keeps the contract; `pointer` is from `System`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
