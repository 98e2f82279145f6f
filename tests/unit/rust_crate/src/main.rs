//! Reads symbols, one a line, and prints what rustc-demangle makes of each: "=" and the name without
//! hash, or "!" when it is not one of Rust's.

use std::io::{self, BufRead, Write};

fn main() -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout());
    for line in io::stdin().lock().lines() {
        match rustc_demangle::try_demangle(&line?) {
            Ok(name) => writeln!(out, "={:#}", name)?,
            Err(_) => writeln!(out, "!")?,
        }
    }
    out.flush()
}
