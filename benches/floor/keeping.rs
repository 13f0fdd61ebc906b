//! What a server does at the least that acknowledges publications when they are on disk: takes the number
//! out of each, lets a thread write whatever came meanwhile and sync it once, and answers. Nothing is checked,
//! ordered, indexed or kept in memory, and the file is written over and over: no file system has less to do.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;

/// Bytes after which the file is written from its beginning again.
const FILE_BYTES: u64 = 64 << 20;

/// What came in one turn, and whom it is from.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Connection and number of each publication.
    from: Vec<(usize, u64)>,
}

/// Publications on their way to the disk, and back as acknowledgements.
pub struct Keeping {
    batch: Batch,
    /// `None`: they are acknowledged at once.
    log: Option<(Sender<Batch>, Receiver<Batch>)>,
    spares: Vec<Batch>,
    /// Acknowledgements by connection, and the connections that have some.
    answers: Vec<Vec<u8>>,
    answered: Vec<usize>,
}

impl Keeping {
    pub fn new(file: Option<&Path>, waker: Arc<Waker>) -> io::Result<Self> {
        let log = match file {
            Some(path) => Some(start(File::create(path)?, waker)),
            None => None,
        };
        let (batch, spares) = (Batch::default(), Vec::new());
        Ok(Self { batch, log, spares, answers: Vec::new(), answered: Vec::new() })
    }

    /// Takes a publication in, if it is one that is to be acknowledged.
    pub fn take(&mut self, connection: usize, payload: &[u8]) -> bool {
        const NAME: &[u8] = b"\"id\":";
        let Some(at) = payload.windows(NAME.len()).position(|window| window == NAME) else {
            return false;
        };
        let (number, _) = super::split_number(&payload[at + NAME.len()..]);
        if self.log.is_some() {
            self.batch.bytes.extend_from_slice(payload);
        }
        self.batch.from.push((connection, number as u64));
        true
    }

    /// Ends a turn: hands over what came, and calls `send` with what is to be sent to each connection.
    pub fn turn(&mut self, mut send: impl FnMut(usize, &[u8])) {
        let spare = self.spares.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batch, spare);
        let done = match &self.log {
            Some((to, from)) => {
                if !batch.from.is_empty() {
                    to.send(batch).expect("the disk takes it");
                }
                from.try_iter().collect()
            }
            None => vec![batch],
        };
        for mut batch in done {
            for (connection, number) in batch.from.drain(..) {
                if self.answers.len() <= connection {
                    self.answers.resize_with(connection + 1, Vec::new);
                }
                let answers = &mut self.answers[connection];
                if answers.is_empty() {
                    self.answered.push(connection);
                }
                let begin = answers.len();
                answers.extend_from_slice(&[0x81, 0]);
                let offset = number + 1;
                write!(answers, r#"{{"type":"ack","requestId":{number},"channel":"durable:bench-0000-00","offset":{offset}}}"#)
                    .expect("it is memory");
                answers[begin + 1] = (answers.len() - begin - 2) as u8;
            }
            batch.bytes.clear();
            self.spares.push(batch);
        }
        for connection in self.answered.drain(..) {
            send(connection, &self.answers[connection]);
            self.answers[connection].clear();
        }
    }
}

/// The thread that writes: one sync for whatever came during the one before.
fn start(file: File, waker: Arc<Waker>) -> (Sender<Batch>, Receiver<Batch>) {
    let (to, inbox) = mpsc::channel::<Batch>();
    let (outbox, from) = mpsc::channel();
    thread::spawn(move || -> io::Result<()> {
        let mut at = 0;
        let mut bytes = Vec::new();
        while let Ok(first) = inbox.recv() {
            let batches: Vec<_> = std::iter::once(first).chain(inbox.try_iter()).collect();
            bytes.clear();
            batches.iter().for_each(|batch| bytes.extend_from_slice(&batch.bytes));
            file.write_all_at(&bytes, at)?;
            file.sync_data()?;
            at += bytes.len() as u64;
            if at >= FILE_BYTES {
                at = 0;
            }
            for batch in batches {
                if outbox.send(batch).is_err() {
                    return Ok(());
                }
            }
            waker.wake()?;
        }
        Ok(())
    });
    (to, from)
}
