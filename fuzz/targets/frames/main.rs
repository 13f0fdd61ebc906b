//! The decoder on bytes in any pieces: the events and the error of the reference whole, byte by byte
//! and in the pieces the input asks for, with memory and work bounded by the bytes received.

#![no_main]

mod memory;
mod reference;
mod script;

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use stentor::proto::{Decoder, DecoderLimits, Event, ProtocolError};
use stentor_fuzz::{Plan, within_cpu_time};

use crate::memory::{CountingAllocator, Usage};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Messages just beyond the third length form; so few empty fragments that they are soon too many.
const LIMITS: DecoderLimits = DecoderLimits { message_bytes_max: 66_000, empty_fragments_max: 3 };

/// What a decoder may hold of anything, whatever has arrived: its state, the least a buffer takes.
const HELD_BYTES_BASE: usize = 256;

/// Bytes a decoder may allocate in all for each byte received. A ping of 6 bytes that comes in
/// pieces costs a state of 144; what is copied again with each piece costs far more in the end.
const ALLOCATED_PER_BYTE_MAX: usize = 64;

/// Up to this many bytes a stream comes byte by byte, and beyond in so many pieces.
const PIECES_MAX: usize = 1024;

/// What became of a stream: the events, and the error that ended it.
type Outcome = (Vec<Event<'static>>, Option<ProtocolError>);

fuzz_target!(|input: &[u8]| {
    let Some(Plan { mode, sizes, body }) = Plan::read(input) else { return };
    // Frames, as they are or from a script that mostly keeps to the rules.
    let bytes = if mode & 1 == 0 { Cow::Borrowed(body) } else { Cow::Owned(script::play(body)) };
    within_cpu_time(bytes.len(), || {
        let expected = reference::decode(&bytes, &LIMITS);
        // Long streams come in larger pieces, or there would be time for few of them.
        let unit = bytes.len() / PIECES_MAX + 1;
        let sizes = sizes.iter().map(|size| size * unit).collect::<Vec<_>>();
        for sizes in [&[usize::MAX], &[unit], &sizes[..]] {
            assert_eq!(decode(&bytes, sizes), expected, "in pieces of {sizes:?}");
        }
    });
});

/// Feeds `bytes` in pieces of these sizes, over and over; stops at an error and after a close.
fn decode(bytes: &[u8], sizes: &[usize]) -> Outcome {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    let mut meter = Meter::default();
    let mut bytes = bytes.to_vec();
    let mut rest = bytes.as_mut_slice();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut input, after) = rest.split_at_mut((*size).min(rest.len()));
        rest = after;
        loop {
            let left = input.len();
            let (result, usage) = memory::measure(|| decoder.next(&mut input, &LIMITS));
            let event = result.as_ref().ok().and_then(Option::as_ref);
            meter.read(&usage, left - input.len(), event, decoder.holds_partial());
            match result {
                Ok(Some(event)) => events.push(own(event)),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
            if matches!(events.last(), Some(Event::Close(_))) {
                return (events, None);
            }
        }
        assert!(input.is_empty(), "`None` means that the input is used up");
    }
    (events, None)
}

/// What a decoder has cost so far.
#[derive(Default)]
struct Meter {
    received_bytes: usize,
    /// Of these, since nothing was held the last time.
    open_bytes: usize,
    held_bytes: isize,
    allocated_bytes: usize,
}

impl Meter {
    /// Takes in one call that consumed so many bytes and returned this event.
    fn read(&mut self, usage: &Usage, consumed: usize, event: Option<&Event<'_>>, holds: bool) {
        self.received_bytes += consumed;
        self.open_bytes += consumed;
        self.allocated_bytes += usage.allocated_bytes;

        // A message takes at most twice its bytes so far.
        let held_max = 2 * self.open_bytes + HELD_BYTES_BASE;
        let peak = self.held_bytes + usage.peak_bytes;
        assert!(peak <= held_max as isize, "{peak} bytes for {} received", self.open_bytes);
        let allocated_max = ALLOCATED_PER_BYTE_MAX * self.received_bytes + HELD_BYTES_BASE;
        assert!(self.allocated_bytes <= allocated_max, "{} allocated", self.allocated_bytes);

        self.held_bytes += usage.held_bytes - event.map_or(0, heap_bytes) as isize;
        if !holds {
            assert_eq!(self.held_bytes, 0, "memory is held between messages");
            self.open_bytes = 0;
        }
    }
}

/// What leaves the decoder with this event.
fn heap_bytes(event: &Event<'_>) -> usize {
    match event {
        Event::Text(Cow::Owned(text)) => text.capacity(),
        Event::Binary(Cow::Owned(bytes))
        | Event::Ping(Cow::Owned(bytes))
        | Event::Pong(Cow::Owned(bytes)) => bytes.capacity(),
        Event::Close(Some(frame)) => frame.reason.capacity(),
        Event::Text(Cow::Borrowed(_))
        | Event::Binary(Cow::Borrowed(_))
        | Event::Ping(Cow::Borrowed(_))
        | Event::Pong(Cow::Borrowed(_))
        | Event::Close(None) => 0,
    }
}

fn own(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Text(text) => Event::Text(Cow::Owned(text.into_owned())),
        Event::Binary(bytes) => Event::Binary(Cow::Owned(bytes.into_owned())),
        Event::Ping(bytes) => Event::Ping(Cow::Owned(bytes.into_owned())),
        Event::Pong(bytes) => Event::Pong(Cow::Owned(bytes.into_owned())),
        Event::Close(frame) => Event::Close(frame),
    }
}
