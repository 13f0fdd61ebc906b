//! Memory that the kernel receives into: a ring of buffers that both sides share
//! (io_uring_register_buf_ring(3)).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Memory shared with the kernel begins on a page.
const PAGE_BYTES: usize = 4096;

/// A buffer that the kernel has filled and handed over. Not [`Copy`]: whoever has it is its only owner,
/// until it goes back with [`Buffers::recycle`].
#[derive(Debug)]
pub struct Buffer {
    id: u16,
    bytes: usize,
}

/// A fixed number of buffers of one size. Untouched ones take no memory.
pub struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// A power of two.
    count: u16,
    buffer_bytes: usize,
    /// Our end of the ring; the kernel sees it in the first entry.
    tail: u16,
    /// Handed over and not yet back. Invariant: as many as there are [`Buffer`]s.
    out: u16,
}

// SAFETY: the pointers are to memory of its own, which no other thread refers to.
unsafe impl Send for Buffers {}

impl Buffers {
    /// `count` is a power of two.
    pub fn new(count: u16, buffer_bytes: usize) -> Self {
        assert!(count.is_power_of_two(), "the ring's mask needs it");
        let entries = allocate(entries_layout(count)).cast();
        let memory = allocate(memory_layout(count, buffer_bytes));
        let mut buffers = Self { entries, memory, count, buffer_bytes, tail: 0, out: 0 };
        for id in 0..count {
            buffers.give(id);
        }
        buffers
    }

    /// Tells `ring` of them, as group `group`.
    ///
    /// # Safety
    ///
    /// The ring's requests end before this value does.
    pub unsafe fn register(&self, ring: &IoUring, group: u16) -> io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: the entries are valid, aligned to a page, and outlive the requests (see above).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, self.count, group, 0) }
    }

    /// The buffer of a completion.
    ///
    /// # Safety
    ///
    /// `id` and `bytes` come from one completion of the ring that these buffers are registered with,
    /// and are taken up once.
    pub unsafe fn take_up(&mut self, id: u16, bytes: usize) -> Buffer {
        assert!(id < self.count && bytes <= self.buffer_bytes, "the kernel keeps to our buffers");
        self.out += 1;
        Buffer { id, bytes }
    }

    /// What was received into it.
    pub fn bytes<'a>(&'a mut self, buffer: &'a Buffer) -> &'a mut [u8] {
        let offset = usize::from(buffer.id) * self.buffer_bytes;
        // SAFETY: within the memory, zeroed at first, and the kernel's no more: see `Buffer`.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr().add(offset), buffer.bytes) }
    }

    /// Gives it back to the kernel.
    pub fn recycle(&mut self, buffer: Buffer) {
        self.out -= 1;
        self.give(buffer.id);
    }

    /// Buffers that are not the kernel's now.
    pub fn out(&self) -> u16 {
        self.out
    }

    fn give(&mut self, id: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(id) * self.buffer_bytes;
        // SAFETY: `place` is within the entries, and the kernel does not look at it before the tail
        // says so. The tail is a field of the first entry that `set_…` does not touch.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.memory.as_ptr().add(offset) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with these layouts.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.buffer_bytes));
        }
    }
}

fn entries_layout(count: u16) -> Layout {
    layout(usize::from(count) * size_of::<BufRingEntry>())
}

fn memory_layout(count: u16, buffer_bytes: usize) -> Layout {
    layout(usize::from(count) * buffer_bytes)
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE_BYTES).expect("far below the address space")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
