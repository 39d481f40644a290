//! Makes one thread of another program panic or hang, at a moment of the test's choosing.
//!
//! The program is the one that users run: a library that is loaded before the C library's fails its
//! reading of the clock. See `thread_fault.c`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What happens to the thread.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Panic,
    Hang,
}

/// A fault that waits for its moment.
pub struct ThreadFault {
    /// Holds the library and, once the moment has come, the file that says so.
    folder: PathBuf,
}

impl ThreadFault {
    /// Prepares the program that `command` starts: its thread named `thread` will fail.
    pub fn prepare(command: &mut Command, thread: &str, kind: Kind) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("thread-fault-{}-{number}", std::process::id());
        let fault = Self { folder: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name) };
        fs::create_dir_all(&fault.folder).unwrap();
        let library = fault.folder.join("thread_fault.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/thread_fault.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
        let output = compiler.output().unwrap_or_else(|error| {
            panic!("`cc` does not start: {error} (tests/run installs it: gcc)")
        });
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kind = match kind {
            Kind::Panic => "panic",
            Kind::Hang => "hang",
        };
        command.env("LD_PRELOAD", &library).env("FAULT_FILE", fault.moment());
        command.env("FAULT_THREAD", thread).env("FAULT_KIND", kind);
        fault
    }

    /// From now on the thread fails as soon as it reads the clock.
    pub fn strike(&self) {
        fs::write(self.moment(), "").unwrap();
    }

    fn moment(&self) -> PathBuf {
        self.folder.join("now")
    }
}

impl Drop for ThreadFault {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
