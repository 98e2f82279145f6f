//! A program whose symbols are of all the kinds that Rust has. What it does is of no interest.
//! Built by tests/unit/rust.c, once for each of the two manglings.

#![allow(dead_code, non_camel_case_types, non_snake_case, mixed_script_confusables)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

// ---- one symbol for each type it is asked about

#[inline(never)]
fn kind<T: ?Sized>() -> usize {
    black_box(std::any::type_name::<T>().len())
}

type HigherRanked = for<'a, 'b> fn(&'a u8, &'b mut u16) -> &'a u8;
type Nested = for<'a> fn(&'a str, for<'b> fn(&'b str, &'a str) -> &'b str);
type Variadic = unsafe extern "C" fn(*const u8, ...) -> i32;
type Deep = Vec<Option<Result<Box<[HashMap<String, Vec<(u8, Box<dyn Display>)>>]>, ()>>>;

fn types() -> usize {
    kind::<bool>() + kind::<char>() + kind::<str>() + kind::<()>() + kind::<f32>() + kind::<f64>()
        + kind::<i8>() + kind::<i16>() + kind::<i32>() + kind::<i64>() + kind::<i128>()
        + kind::<u8>() + kind::<u16>() + kind::<u32>() + kind::<u64>() + kind::<u128>()
        + kind::<isize>() + kind::<usize>()
        + kind::<fn() -> !>() + kind::<[u8]>() + kind::<[u16; 8]>() + kind::<[[i8; 2]; 0]>()
        + kind::<(u8,)>() + kind::<(u8, (char,), [bool; 3])>()
        + kind::<&str>() + kind::<&mut [u8]>() + kind::<*const u8>() + kind::<*mut *const str>()
        + kind::<&'static mut &'static u8>()
        + kind::<fn()>() + kind::<fn(u8) -> u16>() + kind::<unsafe fn()>()
        + kind::<extern "C" fn(i32) -> i32>() + kind::<unsafe extern "system" fn()>()
        + kind::<extern "sysv64" fn()>() + kind::<Variadic>()
        + kind::<HigherRanked>() + kind::<Nested>() + kind::<Deep>()
        + kind::<dyn Debug>() + kind::<dyn Debug + Send + Sync>() + kind::<Box<dyn Fn(u8) -> u16>>()
        + kind::<dyn Iterator<Item = (u8, String)>>() + kind::<dyn Iterator<Item = u8> + Send>()
        + kind::<dyn for<'a> Fn(&'a str) -> &'a str>()
        + kind::<&dyn for<'a> Mapping<'a, u8, Key = &'a u8, Value = [u8; 4]>>()
        + kind::<Pin<Box<dyn Future<Output = Result<(), Box<dyn std::error::Error>>>>>>()
        + kind::<Borrowing<'static, u8>>() + kind::<std::rc::Weak<std::cell::RefCell<Shape<u8>>>>()
}

// ---- constants

struct Unsigned<const N: u64>;
struct Wide<const N: u128>;
struct Signed<const N: i8>;
struct WideSigned<const N: i128>;
struct Flag<const B: bool>;
struct Letter<const C: char>;
struct Matrix<T, const R: usize, const C: usize>([[T; C]; R]);

impl<T: Copy + Default, const R: usize, const C: usize> Matrix<T, R, C> {
    #[inline(never)]
    fn transposed(&self) -> Matrix<T, C, R> {
        static CALLS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut to = [[T::default(); R]; C];
        (0..R).for_each(|r| (0..C).for_each(|c| to[c][r] = self.0[r][c]));
        Matrix(to)
    }
}

fn constants() -> usize {
    kind::<Unsigned<0>>() + kind::<Unsigned<1>>() + kind::<Unsigned<{ u64::MAX }>>()
        + kind::<Wide<{ u128::MAX }>>() + kind::<Wide<{ 1 << 64 }>>() + kind::<Wide<255>>()
        + kind::<Signed<-1>>() + kind::<Signed<{ i8::MIN }>>() + kind::<Signed<127>>()
        + kind::<WideSigned<{ i128::MIN }>>() + kind::<WideSigned<-10>>()
        + kind::<Flag<true>>() + kind::<Flag<false>>()
        + kind::<Letter<'v'>>() + kind::<Letter<'\n'>>() + kind::<Letter<'\''>>()
        + kind::<Letter<'"'>>() + kind::<Letter<'\\'>>() + kind::<Letter<'\0'>>()
        + kind::<Letter<'\u{7f}'>>() + kind::<Letter<'∂'>>() + kind::<Letter<'🤦'>>()
        + kind::<Letter<'\u{200b}'>>() + kind::<Letter<'\u{301}'>>() + kind::<Letter<'\u{e000}'>>()
        + black_box(Matrix([[1u8, 2, 3], [4, 5, 6]]).transposed()).0.len()
}

// ---- traits, impls, shapes of paths

trait Mapping<'a, T> {
    type Key;
    type Value;
}

struct Borrowing<'a, T>(&'a T);

#[derive(Debug, Clone, PartialEq, PartialOrd, Hash, Default)]
enum Shape<T> {
    #[default]
    Point,
    Circle(T),
    Box_ { width: T, height: T },
}

trait Area {
    const SIDES: usize;
    #[inline(never)]
    fn area(&self) -> f64 {
        fn inside<T>(t: T) -> T {
            black_box(t)
        }
        inside(1.0) + Self::SIDES as f64
    }
    fn scaled<F: Fn(f64) -> f64>(&self, by: F) -> f64 {
        by(self.area())
    }
}

impl<T: Clone + Into<f64>> Area for Shape<T> {
    const SIDES: usize = 4;
    #[inline(never)]
    fn area(&self) -> f64 {
        match self.clone() {
            Shape::Point => 0.0,
            Shape::Circle(r) => Some(r).map(|r| 3.0 * r.into()).map(|x| x * x).unwrap(),
            Shape::Box_ { width, height } => width.into() * height.into(),
        }
    }
}

impl Area for [u8; 3] {
    const SIDES: usize = 3;
}

impl Area for (u8, &'static str) {
    const SIDES: usize = 2;
}

impl<'a, T: Debug + ?Sized> Area for &'a mut T {
    const SIDES: usize = 1;
}

impl Area for fn(u8) -> u16 {
    const SIDES: usize = 0;
}

struct Noisy(u8);

impl Drop for Noisy {
    #[inline(never)]
    fn drop(&mut self) {
        black_box(self.0);
    }
}

impl std::ops::Index<std::ops::Range<usize>> for Noisy {
    type Output = u8;
    #[inline(never)]
    fn index(&self, _: std::ops::Range<usize>) -> &u8 {
        &self.0
    }
}

macro_rules! twins {
    ($($name:ident)*) => { $( {
        #[inline(never)]
        fn $name() -> usize {
            struct Local;
            impl Local {
                #[inline(never)]
                fn method<T>(&self) -> usize {
                    kind::<T>() + kind::<Local>()
                }
            }
            Local.method::<u8>() + Local.method::<Local>()
        }
        black_box($name())
    } + )* 0 };
}

fn traits() -> f64 {
    let shapes: Vec<Shape<f32>> =
        vec![Shape::Point, Shape::Circle(1.0), Shape::Box_ { width: 1.0, height: 2.0 }];
    let function: fn(u8) -> u16 = |x| u16::from(x);
    let mut text = String::new();
    let noisy = Noisy(twins!(twin twin twin other) as u8);
    shapes.iter().map(Area::area).sum::<f64>()
        + shapes[1].scaled(|x| x + 1.0)
        + [1u8, 2, 3].area()
        + (1u8, "x").scaled(|x| black_box(x))
        + (&mut text).area()
        + function.scaled(f64::sqrt)
        + f64::from(noisy[0..1])
}

// ---- closures, function pointers, vtables

thread_local! {
    static COUNTER: std::cell::RefCell<BTreeMap<String, u32>> = Default::default();
}

fn closures() -> usize {
    let mut boxed: Vec<Box<dyn FnMut(u8) -> Box<dyn Fn() -> usize>>> = Vec::new();
    for n in 0..2usize {
        boxed.push(Box::new(move |x| {
            let y = move || usize::from(x) + n;
            Box::new(move || [1, 2, 3].iter().map(|z| z + y()).filter(|z| z % 2 == 0).sum())
        }));
    }
    COUNTER.with(|c| *c.borrow_mut().entry("x".to_string()).or_insert(0) += 1);
    let mut words = vec!["b", "a"];
    words.sort_by(|a, b| a.cmp(b));
    words.sort_by_key(|a| std::cmp::Reverse(a.len()));
    let parsed: Result<Vec<u32>, std::num::ParseIntError> = "1 2".split(' ').map(str::parse).collect();
    let thread = std::thread::spawn(move || words.len());
    std::panic::catch_unwind(|| kind::<u8>()).unwrap_or(0)
        + boxed.iter_mut().map(|f| f(1)()).sum::<usize>()
        + parsed.map_or(0, |v| v.len())
        + thread.join().unwrap_or(0)
}

// ---- async

struct Later<T>(Option<T>);

impl<T: Unpin> Future for Later<T> {
    type Output = T;
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        self.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}

async fn leaf<T: Unpin>(x: T) -> T {
    Later(Some(x)).await
}

async fn branch(n: u32) -> u32 {
    let block = async move { leaf(n).await + leaf(2u32).await };
    block.await + leaf([1u32, 2]).await[0]
}

fn run<F: Future>(future: F) -> Option<F::Output> {
    fn raw() -> RawWaker {
        static TABLE: RawWakerVTable = RawWakerVTable::new(|_| raw(), |_| {}, |_| {}, |_| {});
        RawWaker::new(std::ptr::null(), &TABLE)
    }
    let waker = unsafe { Waker::from_raw(raw()) };
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(x) => Some(x),
        Poll::Pending => None,
    }
}

// ---- identifiers

mod gödel {
    pub mod エッシャー {
        #[derive(Clone, Debug)]
        pub struct Größe<T>(pub T);

        impl<T: Clone + std::fmt::Debug> Größe<T> {
            #[inline(never)]
            pub fn საჭმელად_გემრიელი_სადილი(&self) -> usize {
                format!("{:?}", self.clone()).len()
            }
            #[inline(never)]
            pub fn α_ω(&self) -> usize {
                let ρυστ = || std::hint::black_box(3);
                ρυστ()
            }
        }
    }
}

pub mod r#mod {
    pub mod _123 {
        #[inline(never)]
        pub fn _0() -> usize {
            super::r#loop::<1>()
        }
    }
    #[inline(never)]
    pub fn r#loop<const N: usize>() -> usize {
        std::hint::black_box(N)
    }
}

fn identifiers() -> usize {
    let size = gödel::エッシャー::Größe(Noisy2("x"));
    size.საჭმელად_გემრიელი_სადილი() + size.α_ω() + r#mod::_123::_0()
}

#[derive(Clone, Debug)]
struct Noisy2<T>(T);

#[no_mangle]
pub extern "C" fn not_mangled(x: i32) -> i32 {
    x + 1
}

fn main() {
    let total = types() + constants() + closures() + identifiers();
    println!("{} {} {:?} {}", total, traits(), run(branch(1)), not_mangled(1));
}
