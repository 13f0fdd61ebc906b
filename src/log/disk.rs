//! The files of a store: what is asked of a disk, and the real one. No meaning of bytes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One folder of files, which nobody else writes.
pub trait Disk {
    type File: DiskFile;

    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An empty file, in place of one of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// To read, and to write where the disk was opened for that.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Returns when what was created, renamed and removed is so after a power loss too.
    fn sync_folder(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills `bytes` from position `at` on; a file that ends before is an error.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
    /// Writes all of `bytes` at position `at`. After an error any part of it may be there.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Returns when everything written is on disk. After an error none of what was written since the
    /// last success may be assumed there, not even after a later success.
    fn sync(&mut self) -> io::Result<()>;
}

/// What is not there need not be removed.
pub fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Held by a server, as an exclusive lock, and by whoever only reads, as a shared one.
pub const LOCK_NAME: &str = "lock";

/// A folder of the file system, locked for as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    writable: bool,
    _lock: File,
}

/// Why a folder cannot be had.
#[derive(Debug)]
pub enum FolderError {
    /// Another process has it.
    Locked,
    /// It holds files, and none of them is a lock of ours.
    Foreign,
    /// It is none, or has no lock file: no store was ever there.
    Missing(io::Error),
    Io(io::Error),
}

impl Folder {
    /// For a server: makes the folder if there is none, and locks out everybody else.
    pub fn for_writing(path: &Path) -> Result<Self, FolderError> {
        fs::create_dir_all(path).map_err(FolderError::Io)?;
        // Looked at before the lock is made: a folder of somebody else stays as it is.
        let empty = fs::read_dir(path).map_err(FolderError::Io)?.next().is_none();
        if !empty && !path.join(LOCK_NAME).exists() {
            return Err(FolderError::Foreign);
        }
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).open(path.join(LOCK_NAME))
        };
        let lock = open().map_err(FolderError::Io)?;
        lock.try_lock().map_err(refused)?;
        Ok(Self { path: path.to_path_buf(), writable: true, _lock: lock })
    }

    /// For a look at the store of a server that does not run. Nothing is written, not even the lock.
    pub fn for_reading(path: &Path) -> Result<Self, FolderError> {
        let lock = File::open(path.join(LOCK_NAME)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FolderError::Missing(error),
            _ => FolderError::Io(error),
        })?;
        lock.try_lock_shared().map_err(refused)?;
        Ok(Self { path: path.to_path_buf(), writable: false, _lock: lock })
    }
}

fn refused(error: TryLockError) -> FolderError {
    match error {
        TryLockError::WouldBlock => FolderError::Locked,
        TryLockError::Error(error) => FolderError::Io(error),
    }
}

impl Disk for Folder {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        fs::read_dir(&self.path)?.map(name).collect()
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(self.writable).open(self.path.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        // Enough for the length too; times do not matter.
        self.sync_data()
    }
}
