// inlines_rust: what inlines_c.c is, in Rust: a module, a trait, a generic function, a closure.
// A static library that inlines_rust_main.c calls.
#![crate_type = "staticlib"]

pub mod vm {
    pub trait Op {
        fn apply(&self, x: u64) -> u64;
    }

    pub struct Mul(pub u64);

    impl Op for Mul {
        #[inline(always)]
        fn apply(&self, x: u64) -> u64 {
            mix::<u32>(x | 1, self.0 as u32) // -> mix
        }
    }

    #[inline(always)]
    fn mix<T: Into<u64>>(mut x: u64, seed: T) -> u64 {
        let seed: u64 = seed.into();
        let mut i = 0;
        while i < 400 {
            x = (x ^ x >> 29) * 0x1ce4e5b9 + seed;
            unsafe { core::arch::asm!("/* {0} */", inout(reg) x) };
            i += 1;
        }
        x
    }

    #[inline(never)]
    pub fn interpret<O: Op>(x: u64, op: &O) -> u64 {
        let step = |y: u64| op.apply(y); // -> apply
        step(step(x)) // -> {closure}
    }
}

#[no_mangle]
pub extern "C" fn rust_run(x: u64) -> u64 {
    vm::interpret(x, &vm::Mul(7)).wrapping_add(1) // -> interpret
}
