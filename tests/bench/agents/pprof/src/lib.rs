//! pprof-rs as an agent: its report becomes a folded file, as its own flame graph does it.
//! `huge-depth`: 512 frames, the deepest that it can be built with.

use std::ffi::{c_char, c_int, CStr};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::Mutex;

static STATE: Mutex<Option<(pprof::ProfilerGuard<'static>, c_int, Option<String>)>> = Mutex::new(None);

fn start(hz: c_int) -> Option<pprof::ProfilerGuard<'static>> {
    // Without this list, which its documentation advises, it may deadlock in dl_iterate_phdr.
    let builder = pprof::ProfilerGuardBuilder::default().frequency(hz);
    builder.blocklist(&["libc", "libgcc", "pthread", "vdso"]).build().ok()
}

#[no_mangle]
pub unsafe extern "C" fn agent_begin(hz: c_int, path: *const c_char) -> c_int {
    let path = (!path.is_null()).then(|| CStr::from_ptr(path).to_string_lossy().into_owned());
    match start(hz) {
        Some(guard) => {
            *STATE.lock().unwrap() = Some((guard, hz, path));
            0
        }
        None => -1,
    }
}

static PAUSED: Mutex<Option<(c_int, Option<String>)>> = Mutex::new(None);
/// Samples of sessions that a pause has ended.
static BEFORE: AtomicIsize = AtomicIsize::new(0);

#[no_mangle]
pub extern "C" fn agent_pause() {
    if let Some((guard, hz, path)) = STATE.lock().unwrap().take() {
        if let Ok(report) = guard.report().build_unresolved() {
            BEFORE.fetch_add(report.data.values().sum(), Ordering::Relaxed);
        }
        drop(guard);
        *PAUSED.lock().unwrap() = Some((hz, path));
    }
}

#[no_mangle]
pub extern "C" fn agent_resume() {
    if let Some((hz, path)) = PAUSED.lock().unwrap().take() {
        if let Some(guard) = start(hz) {
            *STATE.lock().unwrap() = Some((guard, hz, path));
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn agent_end(json: *mut c_char, size: usize) -> c_int {
    let (mut samples, mut folded) = (0, String::new());
    let taken = STATE.lock().unwrap().take();
    let Some((guard, _, path)) = taken else {
        *json = 0;
        return 0;
    };
    let Ok(report) = guard.report().build() else { return -1 };
    for (stack, count) in &report.data {
        samples += *count;
        folded += &stack.thread_name_or_id().replace([';', '\n'], ":");
        for symbol in stack.frames.iter().rev().flat_map(|inlined| inlined.iter().rev()) {
            folded.push(';');
            folded += &symbol.name().replace([';', '\n'], ":");
        }
        let _ = writeln!(folded, " {count}");
    }
    if let Some(path) = path {
        if std::fs::write(path, folded).is_err() {
            return -1;
        }
    }
    samples += BEFORE.swap(0, Ordering::Relaxed);
    let text = format!("\"samples\": {samples}\0");
    if text.len() <= size {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), json, text.len());
    }
    0
}

#[no_mangle]
pub extern "C" fn agent_cpu() -> u64 {
    0
}

#[no_mangle]
pub extern "C" fn agent_thread() {}
