//! Mounts that only a test sees.

use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;
use std::thread;

/// Runs `act` on a thread of its own. Its mounts are seen by this thread and its children alone.
/// Needs root.
pub fn in_mount_namespace(act: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            // SAFETY: no memory is involved. The thread gets a file system context of its own, too.
            let left = unsafe { libc::unshare(libc::CLONE_NEWNS) };
            assert_eq!(left, 0, "{}", io::Error::last_os_error());
            mount(c"none", Path::new("/"), c"", libc::MS_REC | libc::MS_PRIVATE, c"");
            act();
        });
        acting.join().unwrap();
    });
}

pub fn mount(source: &CStr, at: &Path, kind: &CStr, flags: u64, data: &CStr) {
    let at = CString::new(at.to_str().unwrap()).unwrap();
    let data = data.as_ptr().cast();
    // SAFETY: all of them are C strings that outlive the call.
    let result = unsafe { libc::mount(source.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, data) };
    assert_eq!(result, 0, "mount(2) on {at:?}: {}", io::Error::last_os_error());
}

/// Mounts a file over another one.
pub fn mount_over(file: &Path, over: &Path) {
    let file = CString::new(file.to_str().unwrap()).unwrap();
    mount(&file, over, c"", libc::MS_BIND, c"");
}
