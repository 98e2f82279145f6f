//! The binding: a profile of all threads lasts as long as the value.

use std::ffi::CString;
use std::os::raw::{c_char, c_int};

extern "C" {
    fn cprof_begin(path: *const c_char) -> c_int; // CPROF_BEGIN: what went wrong is on stderr
    fn cprof_end() -> c_int; // CPROF_END
}

pub struct Profile;

impl Profile {
    pub fn begin(path: &str) -> Profile {
        let path = CString::new(path).expect("no zero in a path");
        unsafe { cprof_begin(path.as_ptr()) };
        Profile
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        unsafe { cprof_end() };
    }
}
