//! Allocations of the hot path, counted: none for a delivery, a few for a publication.

#[path = "../benches/support/null.rs"]
mod null;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use null::NullServer;

/// `shared/design/architecture.md`, 6.
const PER_PUBLICATION_MAX: u64 = 4;
const PUBLICATIONS: u64 = 100;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Counts what this thread allocates.
struct Counting;

// SAFETY: everything is the system allocator's; the counter is a plain cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps to the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of one publication, on average, once everything has its size.
fn allocations(mut server: NullServer) -> f64 {
    for _ in 0..20 {
        server.publish();
    }
    let before = COUNT.get();
    for _ in 0..PUBLICATIONS {
        server.publish();
    }
    (COUNT.get() - before) as f64 / PUBLICATIONS as f64
}

#[test]
fn a_delivery_allocates_nothing_and_a_publication_little() {
    let data = format!("\"{}\"", "some data of a publisher ".repeat(4));
    for start in [NullServer::new, NullServer::protobuf] {
        let counts = [1, 10, 1000, 10_000]
            .map(|subscribers| (subscribers, allocations(start(subscribers, &data))));
        println!("allocations of a publication by its subscribers: {counts:?}");
        for (subscribers, count) in counts {
            assert!(count <= PER_PUBLICATION_MAX as f64, "{subscribers} subscribers: {count}");
            assert_eq!(count, counts[0].1, "{subscribers} subscribers");
        }
    }
}
