//! The files of finished segments that are open for reading: a few, the ones used last.

use std::io;

use super::disk::Disk;

/// Files open at once. A reader that follows one topic needs two at a time.
const OPEN_MAX: usize = 8;

/// Open files by name, the one used last at the end.
#[derive(Debug)]
pub struct Files<F> {
    open: Vec<(String, F)>,
}

impl<F> Default for Files<F> {
    fn default() -> Self {
        Self { open: Vec::new() }
    }
}

impl<F> Files<F> {
    /// The file of that name; opened if it is not.
    pub fn get<D: Disk<File = F>>(&mut self, disk: &D, name: &str) -> io::Result<&F> {
        let entry = match self.open.iter().position(|(open, _)| open == name) {
            Some(at) => self.open.remove(at),
            None => (name.to_string(), disk.open(name)?),
        };
        if self.open.len() == OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push(entry);
        Ok(&self.open.last().expect("it was just put there").1)
    }

    /// Closes it, if it is open.
    pub fn forget(&mut self, name: &str) {
        self.open.retain(|(open, _)| open != name);
    }
}
