// Compiles cprof.h with the C compiler that cc finds: cl.exe for the -msvc targets, gcc or clang else.
fn main() {
    cc::Build::new().file("src/cprof.c").include("../..").compile("cprof");
    println!("cargo:rerun-if-changed=src/cprof.c");
    println!("cargo:rerun-if-changed=../../cprof.h");
}
