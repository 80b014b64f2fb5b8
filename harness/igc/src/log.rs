//! What is said of a place that comes and goes: on standard error, or in a file of the run's folder where nobody listens.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::{fmt, fs::File};

use cluster::install::progress::{self, Lines, Progress};

/// Where lines go; every clone writes to the same place.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<OnceLock<File>>);

impl Log {
    pub fn to_file(&self, file: File) {
        _ = self.0.set(file); // it is the first: a command has one run
    }

    pub fn say(&self, line: impl fmt::Display) {
        _ = writeln!(self.clone(), "{line}"); // a closed terminal is no reason to stop
    }

    pub fn progress(&self) -> Arc<dyn Progress> {
        match self.0.get() {
            Some(_) => Arc::new(Lines::new(self.clone())),
            None => progress::on_stderr(),
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.get() {
            Some(file) => (&*file).write(bytes),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // neither of them keeps anything back
    }
}
