//! words: cprof in a Rust program, through the binding in cprof.rs. Threads have the names that Builder
//! gives them; names are demangled, functions that were inlined have boxes of their own.
//!
//!     cargo build --release --manifest-path examples/rust/Cargo.toml
//!     examples/rust/target/release/words
//!     python3 tools/flamegraph.py words.folded -o words.svg

mod cprof;

use std::collections::HashMap;
use std::thread;

/// One word after the other, from a small random number generator.
struct Words {
    state: u64,
}

impl Words {
    fn step(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

impl Iterator for Words {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut number = self.step() % 5000;
        let mut word = String::new();
        while number > 0 {
            word.push((b'a' + (number % 26) as u8) as char);
            number /= 26;
        }
        Some(word)
    }
}

fn count(seed: u64, words: usize) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for word in (Words { state: seed }).take(words) {
        *counts.entry(word).or_insert(0) += 1;
    }
    counts
}

/// Small, so it is inlined; its box is there all the same.
#[inline]
fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x100000001b3).rotate_left(23)
}

#[inline(never)]
fn checksum<T: AsRef<[u8]>>(items: &[T], rounds: usize) -> u64 {
    let mut hash = 0xcbf29ce484222325;
    for round in 0..rounds {
        for item in items {
            for &byte in item.as_ref() {
                hash = mix(hash, byte as u64 + round as u64);
            }
        }
    }
    hash
}

fn main() {
    let _profile = cprof::Profile::begin("words.folded");
    let threads: Vec<_> = (1..=2)
        .map(|n| {
            thread::Builder::new()
                .name(format!("count-{n}"))
                .spawn(move || count(n, 1_000_000).len())
                .expect("a thread")
        })
        .collect();
    let words: Vec<String> = Words { state: 7 }.take(10_000).collect();
    println!("checksum {:x}", checksum(&words, 5_000));
    for thread in threads {
        println!("{} different words", thread.join().expect("no panic"));
    }
}
