/* Names of Rust symbols: the published examples of both manglings, names made to do harm, and,
   where cargo is, the crate rustc-demangle as the reference for all symbols of a program built
   here with either mangling, of the compiler, and for damaged ones.

   Run:   cc -g -O1 -I. tests/unit/rust.c -o rust -lpthread && ./rust
   Best with -fsanitize=address,undefined. */
#include "unit.h"

/* ---- tables: symbol and name; NULL where the symbol must be refused ---- */

typedef struct {
    const char *symbol, *name;
} pair;

#define HASH "17h0123456789abcdefE"

static const pair legacy[] = {
    {"_ZN4test" HASH, "test"},
    {"ZN4test" HASH, "test"},
    {"__ZN4test" HASH, "test"},
    {"___ZN4test" HASH, NULL},
    {"_ZN3foo3bar" HASH, "foo::bar"},
    {"_ZN4$RP$" HASH, ")"},
    {"_ZN8$RF$test" HASH, "&test"},
    {"_ZN8$BP$test4foob" HASH, "*test::foob"},
    {"_ZN9$u20$test4foob" HASH, " test::foob"},
    {"_ZN35Bar$LT$$u5b$u32$u3b$$u20$4$u5d$$GT$" HASH, "Bar<[u32; 4]>"},
    {"_ZN13test$u20$test4foob" HASH, "test test::foob"},
    {"_ZN12test$BP$test4foob" HASH, "test*test::foob"},
    {"_ZN4$SP$4$LP$3$C$" HASH, "@::(::,"},
    {"_ZN13_$LT$test$GT$" HASH, "<test>"},
    {"_ZN28_$u7b$$u7b$closure$u7d$$u7d$" HASH, "{{closure}}"},
    {"_ZN15__STATIC_FMTSTR" HASH, "__STATIC_FMTSTR"},
    {"_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar" HASH,
     "<Test + 'static as foo::Bar<Test>>::bar"},
    {"_ZN88_$LT$core..result..Result$LT$$u21$$C$$u20$E$GT$$u20$as$u20$std..process..Termination"
     "$GT$6report17hfc41d0da4a40b3e8E",
     "<core::result::Result<!, E> as std::process::Termination>::report"},
    {"_ZN151_$LT$alloc..boxed..Box$LT$alloc..boxed..FnBox$LT$A$C$$u20$Output$u3d$R$GT$$u20$$u2b$"
     "$u20$$u27$a$GT$$u20$as$u20$core..ops..function..FnOnce$LT$A$GT$$GT$9call_once"
     "17h69e8f44b3723e1caE",
     "<alloc::boxed::Box<alloc::boxed::FnBox<A, Output=R> + 'a> as "
     "core::ops::function::FnOnce<A>>::call_once"},
    {"__ZN4core5slice89_$LT$impl$u20$core..iter..traits..IntoIterator$u20$for$u20$$RF$$u27$a$u20$"
     "$u5b$T$u5d$$GT$9into_iter17h450e234d27262170E",
     "core::slice::<impl core::iter::traits::IntoIterator for &'a [T]>::into_iter"},
    {"_ZN11utf8_idents20_$u10e1$$u10d0$_x$u1f926$" HASH, NULL}, /* the length is wrong */
    {"_ZN11utf8_idents25_$u10e1$$u10d0$_x$u1f926$" HASH, "utf8_idents::სა_x🤦"},
    {"_ZN11issue_609253foo37Foo$LT$issue_60925..llv$u6d$..Foo$GT$3foo17h059a991a004536adE",
     "issue_60925::foo::Foo<issue_60925::llvm::Foo>::foo"},
    {"_ZN5a.b.c4d..e" HASH, "a.b.c::d::e"},
    {"_ZN3foo" HASH ".llvm.A5310EB9", "foo"},
    {"_ZN3foo" HASH ".llvm.9D1C9369@@16", "foo"},
    {"_ZN3foo" HASH ".exit.i.i", "foo"},
    {"_ZN3foo" HASH "$tlv$init", "foo"},
    {"_ZN3foo" HASH "v", NULL},
    {"_ZN3foo" HASH " moocow", NULL},
    /* names of C++, or of nobody */
    {"_ZN4testE", NULL},
    {"_ZN3foo3barEv", NULL},
    {"_ZN3foo16h0123456789abcdeE", NULL},
    {"_ZN3foo17h0123456789ABCDEFE", NULL},
    {"_ZN3foo17g0123456789abcdefE", NULL},
    {"_ZN17h0123456789abcdef3fooE", NULL},
    {"_ZN17h0123456789abcdefE", NULL},
    {"_ZN17h0123456789abcdef" HASH, "h0123456789abcdef"},
    {"_ZNfoo" HASH, NULL},
    {"_ZN3foo", NULL},
    {"_ZN", NULL},
    {"_Z", NULL},
    {"_ZN99999999999999999999999foo" HASH, NULL},
    {"_ZN18446744073709551619foo" HASH, NULL},
    {"_ZN5a$XY$" HASH, NULL},
    {"_ZN4a$LT" HASH, NULL},
    {"_ZN5a$ua$" HASH, NULL},
    {"_ZN6a$u7f$" HASH, NULL},
    {"_ZN6a$u9f$" HASH, NULL},
    {"_ZN8a$ud800$" HASH, NULL},
    {"_ZN10a$u110000$" HASH, NULL},
    {"_ZN21a$u10000000000000061$" HASH, NULL},
    {"_ZN4a$u$" HASH, NULL},
    {"_ZN6a$u7B$" HASH, NULL},
    {"_ZN4f\xc3\xb6o" HASH, NULL},
    {"_ZN4a$u63$C$" HASH, NULL}, /* an escape across two parts */
};

/* RFC 2603 and the page "v0 symbol format" of the rustc book. */
static const pair published[] = {
    {"_RNvMsr_NtCs3ssYzQotkvD_3std4pathNtB5_7PathBuf3newCs15kBYyAo9fc_7mycrate",
     "<std::path::PathBuf>::new"},
    {"_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example"},
    {"_RNvMs_Cs4Cv8Wi1oAIB_7mycrateNtB4_7Example3foo", "<mycrate::Example>::foo"},
    {"_RNvXCs15kBYyAo9fc_7mycrateNtB2_7ExampleNtB2_5Trait3foo",
     "<mycrate::Example as mycrate::Trait>::foo"},
    {"_RNvMCs7qp2U7fqm6G_7mycrateNtB2_7Example3foo", "<mycrate::Example>::foo"},
    {"_RNvMs_Cs7qp2U7fqm6G_7mycrateNtB4_7Example3bar", "<mycrate::Example>::bar"},
    {"_RNvYNtCs15kBYyAo9fc_7mycrate7ExampleNtB4_5Trait7exampleB4_",
     "<mycrate::Example as mycrate::Trait>::example"},
    {"_RNCNvCsgStHSCytQ6I_7mycrate4main0B3_", "mycrate::main::{closure#0}"},
    {"_RNCNvCsgStHSCytQ6I_7mycrate4mains_0B3_", "mycrate::main::{closure#1}"},
    {"_RINvCsgStHSCytQ6I_7mycrate7examplelKj1_EB2_", "mycrate::example::<i32, 1>"},
    {"_RNvNtNtCsgOH4LzxkuMq_7mycrateu8gdel_5qa6escher4bach", "mycrate::gödel::escher::bach"},
    {"_RINvCs7qp2U7fqm6G_7mycrate7exampleFG0_RL1_hRL0_tEuEB2_",
     "mycrate::example::<for<'a, 'b> fn(&'a u8, &'b u16)>"},
    {"_RINvCs7qp2U7fqm6G_7mycrate7exampleKy12345678_EB2_", "mycrate::example::<305419896>"},
    {"_RNvNvMCsd9PVOYlP1UU_7mycrateINtB4_7ExamplepKpE3foo14EXAMPLE_STATIC",
     "<mycrate::Example<_, _>>::foo::EXAMPLE_STATIC"},
    {"_RINvCs7qp2U7fqm6G_7mycrate7exampleAtj8_EB2_", "mycrate::example::<[u16; 8]>"},
    {"_RINvCs7qp2U7fqm6G_7mycrate7exampleNtB2_7ExampleBw_EB2_",
     "mycrate::example::<mycrate::Example, mycrate::Example>"},
    {"_RINvMsY_NtCseXNvpPnDBDp_3std4pathNtB6_4Path3neweECs7qp2U7fqm6G_7mycrate",
     "<std::path::Path>::new::<str>"},
    {"_RNvNvNvCs7qp2U7fqm6G_7mycrate7EXAMPLE7___getit5___KEY$tlv$init",
     "mycrate::EXAMPLE::__getit::__KEY"},
    {"_RNvC1cu6f_5gaa", "c::føø"},
    {"_RNvC1cu7___ylb7e", "c::α_ω"},
    {"_RNvC1cu6n84amf", "c::铁锈"},
    {"_RNvC1cu4fq9h", "c::🤦"},
    {"_RNvC1cu6_2xaedc", "c::ρυστ"},
    {"_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"},
    {"_RINvNtC3std3mem8align_ofdE", "std::mem::align_of::<f64>"},
    {"_RINvNtC3std3mem8align_ofjE", "std::mem::align_of::<usize>"},
    {"_RINvNtC3std3mem8align_ofRcE", "std::mem::align_of::<&char>"},
    {"_RINvNtC3std3mem8align_ofNtNtC3std3mem12DiscriminantE",
     "std::mem::align_of::<std::mem::Discriminant>"},
    {"_RINvNtC3std3mem8align_ofQTReuEE", "std::mem::align_of::<&mut (&str, ())>"},
    {"_RINvNtC3std3mem8align_ofjEC3foo", "std::mem::align_of::<usize>"},
    {"_RINvNtC3std3mem8align_ofjEC3bar", "std::mem::align_of::<usize>"},
    {"_RNCNvNtC7mycrate3foo3bar0", "mycrate::foo::bar::{closure#0}"},
    {"_RNCNvNtC7mycrate3foo3bars_0", "mycrate::foo::bar::{closure#1}"},
    {"_RNvNvXs2_C7mycrateINtC7mycrate3FoopEINtNtC3std7convert4FrompE4from3MSG",
     "<mycrate::Foo<_> as std::convert::From<_>>::from::MSG"},
    {"_RINtNtC3std4iter5ChainINtNtC3std4iter3ZipINtNtC3std3vec8IntoItermEINtNtC3std3vec8IntoItermE"
     "EE",
     "std::iter::Chain::<std::iter::Zip<std::vec::IntoIter<u32>, std::vec::IntoIter<u32>>>"},
    {"_RINtNtC3std4iter5ChainINtB2_3ZipINtNtB4_3vec8IntoItermEBu_EE", /* there Bt_, one less */
     "std::iter::Chain::<std::iter::Zip<std::vec::IntoIter<u32>, std::vec::IntoIter<u32>>>"},
    {"_RNvNtNtCs1234_7mycrate3foo3bar3baz", "mycrate::foo::bar::baz"},
    {"_RNvNvMCs1234_7mycrateINtCs1234_7mycrate3FoopE3bar4QUUX", "<mycrate::Foo<_>>::bar::QUUX"},
    {"_RNvNvXCs1234_7mycrateINtCs1234_7mycrate3FoopENtNtC3std5clone5Clone5clone4QUUX",
     "<mycrate::Foo<_> as std::clone::Clone>::clone::QUUX"},
    {"_RNvNvCs1234_7mycrate4QUUX3FOO", "mycrate::QUUX::FOO"},
};

/* What the examples leave out, by the grammar. */
static const pair grammar[] = {
    {"RNvC1a1b", "a::b"},
    {"__RNvC1a1b", "a::b"},
    {"___RNvC1a1b", NULL},
    {"_RC4f128", "f128"},
    {"RC4_init", NULL}, /* a C function */
    {"_RNvC6_123foo3bar", "123foo::bar"},
    {"_RNvC1a1b.llvm.9D1C9369", "a::b"},
    {"_RNvC1a1b.llvm.9D1C9369@@16", "a::b"},
    {"_RNvC1a1b.0.0", "a::b"},
    {"_RNvC1a1b@@V1", "a::b"},
    {"_RNvC1a3b.c", NULL},
    {"_RNvC1a3b$c", NULL},
    {"_RNvC1a1b-", NULL},
    {"_RNvC1a1b-x.y", NULL},
    {"_RNvC1a1b c", NULL},
    {"_RNvC1a1bx", NULL},
    {"_RNvC1a1bC", NULL}, /* an instantiating crate, cut off */
    {"_R0NvC1a1b", NULL}, /* another version */
    {"_R", NULL},
    {"R", NULL},
    {"", NULL},
    {"_", NULL},
    {"_RC0", NULL}, /* nothing to show */
    {"_RNvC1a2\xc3\xb6", NULL},
    /* namespaces */
    {"_RNCC1a3foo", "a::{closure:foo#0}"},
    {"_RNSNvC1a1b6vtable", "a::b::{shim:vtable#0}"},
    {"_RNXC1as0_3foo", "a::{X:foo#2}"},
    {"_RNtC1a0", "a"},
    {"_RNvNCNvC1a1b01c", "a::b::{closure#0}::c"},
    {"_RN1C1a1b", NULL},
    {"_RN_C1a1b", NULL},
    /* numbers */
    {"_RNCC1asZ_0", "a::{closure#63}"},
    {"_RNCC1as10_0", "a::{closure#64}"},
    {"_RNCC1aslYGhA16ahyd_0", "a::{closure#18446744073709551615}"},
    {"_RNCC1aslYGhA16ahye_0", NULL},
    {"_RNCC1aslYGhA16ahyf_0", NULL},
    {"_RNCC1asZZZZZZZZZZZZZ_0", NULL},
    {"_RNCC1as0000000000000000000a_0", "a::{closure#12}"},
    {"_RNCC1a_0", NULL},
    {"_RNCC1as-_0", NULL},
    {"_RNCC1as0", NULL},
    {"_RNvC1a18446744073709551617b", NULL},
    {"_RNvC1a99999999999999999999999b", NULL},
    /* types */
    {"_RIC1aabcdefhijlmnopstuvxyzE",
     "a::<i8, bool, char, f64, str, f32, u8, isize, usize, i32, u32, i128, u128, _, i16, u16, (), "
     "..., i64, u64, !>"},
    {"_RIC1agE", NULL},
    {"_RIC1akE", NULL},
    {"_RIC1aqE", NULL},
    {"_RIC1arE", NULL},
    {"_RIC1aE", "a::<>"},
    {"_RIC1aShAhj3_AhpE", "a::<[u8], [u8; 3], [u8; _]>"},
    {"_RIC1aTETaETabEE", "a::<(), (i8,), (i8, bool)>"},
    {"_RIC1aRhQhPhOhE", "a::<&u8, &mut u8, *const u8, *mut u8>"},
    {"_RIC1aRL_hQL_hE", "a::<&u8, &mut u8>"},
    {"_RIC1aL_E", "a::<'_>"},
    {"_RIC1aL0_E", NULL}, /* a lifetime that is not bound */
    {"_RIC1aINtB2_1bhEE", NULL},
    {"_RIC1aINtB0_1bhEE", "a::<a::b<u8>>"},
    {"_RIC1aFEuFEhFhjEzFUEuFKCEuFUKCPhvEuFK9C_cmse_xxEuFK8fastcallhEuE",
     "a::<fn(), fn() -> u8, fn(u8, usize) -> !, unsafe fn(), extern \"C\" fn(), unsafe extern "
     "\"C\" fn(*const u8, ...), extern \"C-cmse-xx\" fn(), extern \"fastcall\" fn(u8)>"},
    {"_RIC1aFKu4fq9hEuE", NULL},
    {"_RIC1aFK0EuE", NULL},
    {"_RIC1aFG_RL0_eEuRL0_eE", NULL},
    {"_RIC1aFG_RL0_eEuB6_E", NULL},
    {"_RIC1aFG_RL0_eEuFG_B6_EuE", "a::<for<'a> fn(&'a str), for<'a> fn(&'a str)>"},
    {"_RIC1aFG_RL0_eFG_RL0_eRL1_eERL0_eERL0_eE",
     "a::<for<'a> fn(&'a str, for<'b> fn(&'b str, &'a str) -> &'b str) -> &'a str>"},
    {"_RIC1aFGp_RLq_hRL0_hEuE",
     "a::<for<'a, 'b, 'c, 'd, 'e, 'f, 'g, 'h, 'i, 'j, 'k, 'l, 'm, 'n, 'o, 'p, 'q, 'r, 's, 't, 'u, "
     "'v, 'w, 'x, 'y, 'z, '_26> fn(&'a u8, &'_26 u8)>"},
    {"_RIC1aDNtC1t5DebugEL_E", "a::<dyn t::Debug>"},
    {"_RIC1aDNtC1t5DebugNtC1t4SendEL_E", "a::<dyn t::Debug + t::Send>"},
    {"_RIC1aDEL_E", "a::<dyn >"},
    {"_RIC1aDINtC1t2FnThEEp6OutputtEL_E", "a::<dyn t::Fn<(u8,), Output = u16>>"},
    {"_RIC1aDNtC1t8Iteratorp4ItemhNtC1t4SendEL_E", "a::<dyn t::Iterator<Item = u8> + t::Send>"},
    {"_RIC1aDNtC1t1Tp1AhpE1BtEL_E", NULL},
    {"_RIC1aDNtC1t1Tp1Ahp1BtEL_E", "a::<dyn t::T<A = u8, B = u16>>"},
    {"_RIC1aDNtC1t1Tp1NKj0_EL_E", "a::<dyn t::T<N = 0>>"},
    {"_RIC1aDG_INtC1t2FnTRL0_eEEp6OutputRL0_eEL_E",
     "a::<dyn for<'a> t::Fn<(&'a str,), Output = &'a str>>"},
    {"_RIC1aFG_DNtC1t1TEL0_EuE", "a::<for<'a> fn(dyn t::T + 'a)>"},
    {"_RIC1aINtC1t2FnhEDB3_p6OutputtEL_E", "a::<t::Fn<u8>, dyn t::Fn<u8, Output = u16>>"},
    {"_RIC1aDNtC1t1TEE", NULL}, /* without its lifetime */
    {"_RIC1aWmRm1_m9_E", "a::<u32 is 1..=9>"},
    {"_RIC1aWmORm1_m2_Rm5_m6_EE", "a::<u32 is 1..=2 | 5..=6>"},
    {"_RIC1aWPhNE", "a::<*const u8 is !null>"},
    {"_RIC1aWmORm1_m2_Rm5_m6_", NULL},
    {"_RIC1aFwTlEEuE", "a::<fn(#[splat] (i32,))>"},
    /* impls: where they stand is read and not shown */
    {"_RNvMC1ah1f", "<u8>::f"},
    {"_RNvMs2_NvC1a1xINtB5_1SpE1f", "<a::x::S<_>>::f"},
    {"_RNvXINvC1a1xB_EhNtC1b1T1f", "<u8 as b::T>::f"}, /* B_ is not followed there */
    {"_RNvMIC1aFGZZZZZZZZZ_RL_hEuEh1f", "<u8>::f"}, /* as many lifetimes as one likes */
    {"_RNvYINtC1a1ShENtC1b1T1f", "<a::S<u8> as b::T>::f"},
    {"_RINvYhNtC1b1T1ftE", "<u8 as b::T>::f::<u16>"},
    /* references back */
    {"_RNvB_1b", NULL},
    {"_RNvB0_1b", NULL},
    {"_RB_", NULL},
    {"_RNvB9_1b", NULL},
    {"_RIC1aTTTpB6_EB5_EB4_E", NULL},
    {"_RIC1aTTTpB6_EB5_EB4_EE", "a::<(((_, _), (_, _)), ((_, _), (_, _)))>"},
    {"_RNCINkXs25_NgCsbmNqQUJIY6D_4core5sliceINyB9_4IterhENuNgNoBb_4iter8iterator8Iterator9rpositio"
     "nNCNgNpB9_6memchr7memrchrs_0E0Bb_",
     "<core::slice::Iter<u8> as core::iter::iterator::Iterator>::rposition::"
     "<core::slice::memchr::memrchr::{closure#1}>::{closure#0}"},
    {"_RINbNbCskIICzLVDPPb_5alloc5alloc8box_freeDINbNiB4_5boxed5FnBoxuEp6OutputuEL_ECs1iopQbuBiw2_3"
     "std",
     "alloc::alloc::box_free::<dyn alloc::boxed::FnBox<(), Output = ()>>"},
    /* Punycode */
    {"_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y",
     "utf8_idents::საჭმელად_გემრიელი_სადილი"},
    {"_RNvC1cu8gdel_Fqa", NULL},
    {"_RNvC1cu0", NULL},
    {"_RNvC1cu2a_", NULL},
    {"_RNvC1cu3999", NULL},
    {"_RNvC1cu6a_zzzz", NULL},
    {"_RNvC1cu9zzzzzzzzz", NULL},
    {"_RNvC1cu18ls124498107776961m", NULL}, /* a number that is small modulo 2^64 */
    {"_RNvC1cu140_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
     "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb_5gaa",
     NULL}, /* long */
    /* constants */
    {"_RIC1aKpKh0_Kh_Kj7b_Kyffffffffffffffff_E", "a::<_, 0, 0, 123, 18446744073709551615>"},
    {"_RIC1aKo10000000000000000_E", "a::<0x10000000000000000>"},
    {"_RIC1aKoff00ff00ff00ff00ff_E", "a::<0xff00ff00ff00ff00ff>"},
    {"_RIC1aKo00000000000000000000ff_E", "a::<255>"},
    {"_RIC1aKs98_Kanb_Kn80_Knn80000000000000000000000000000000_E",
     "a::<152, -11, 128, -0x80000000000000000000000000000000>"},
    {"_RIC1aKhn1_E", NULL},
    {"_RIC1aKb0_Kb1_E", "a::<false, true>"},
    {"_RIC1aKb2_E", NULL},
    {"_RIC1aKbn1_E", NULL},
    {"_RIC1aKhA_E", NULL},
    {"_RIC1aKd0_E", NULL},
    {"_RIC1aKc76_Kc22_Kc27_Kca_K_E", NULL},
    {"_RIC1aKc76_Kc22_Kc27_Kca_Kcd_Kc9_Kc0_Kc5c_E",
     "a::<'v', '\"', '\\'', '\\n', '\\r', '\\t', '\\0', '\\\\'>"},
    {"_RIC1aKc2202_Kc1f926_Kc7f_Kc1_Kc200b_Kc301_Kce000_E",
     "a::<'∂', '🤦', '\\u{7f}', '\\u{1}', '\\u{200b}', '\\u{301}', '\\u{e000}'>"},
    {"_RIC1aKcd800_E", NULL},
    {"_RIC1aKc110000_E", NULL},
    {"_RIC1aKc100000061_E", NULL},
    {"_RIC1aKe616263_E", "a::<{*\"abc\"}>"},
    {"_RIC1aKRe616263_E", "a::<\"abc\">"},
    {"_RIC1aKRe_E", "a::<\"\">"},
    {"_RIC1aKRe2722_Ke090a_E", "a::<\"'\\\"\", {*\"\\t\\n\"}>"},
    {"_RIC1aKRee28882c3bcf09fa4a6_E", "a::<\"∂ü🤦\">"},
    {"_RIC1aKRe6_E", NULL},
    {"_RIC1aKRe616_E", NULL},
    {"_RIC1aKReg1_E", NULL},
    {"_RIC1aKRe80_E", NULL},
    {"_RIC1aKRec3_E", NULL},
    {"_RIC1aKRec341_E", NULL},
    {"_RIC1aKRec0af_E", NULL},
    {"_RIC1aKRee08080_E", NULL},
    {"_RIC1aKReeda080_E", NULL},
    {"_RIC1aKRef4908080_E", NULL},
    {"_RIC1aKRef8808080_E", NULL},
    {"_RIC1aKRpKRh7b_KRRRh0_KQAEKRRRe_E", "a::<{&_}, {&123}, {&&&0}, {&mut []}, {&&\"\"}>"},
    {"_RIC1aKAEKAh1_h2_EKAARe61_EAEEE", "a::<{[]}, {[1, 2]}, {[[\"a\"], []]}>"},
    {"_RIC1aKTEKTj0_EKTh1_b0_EE", "a::<{()}, {(0,)}, {(1, false)}>"},
    {"_RIC1aKVNvINtC1o6OptionjE4NoneUKVNvINtC1o6OptionjE4SomeTj0_EE",
     "a::<{o::Option::<usize>::None}, {o::Option::<usize>::Some(0)}>"},
    {"_RIC1aKVNtC3foo3BarS1sRe616263_2chc78_s_5sliceRAh1_h2_EEE",
     "a::<{foo::Bar { s: \"abc\", ch: 'x', slice: &[1, 2] }}>"},
    {"_RIC1aKVNtC3foo3BarQE", NULL},
    {"_RIC1aKRh7b_KB4_E", "a::<{&123}, {&123}>"},
    {"_RIC1aKRh7b_KRB5_E", "a::<{&123}, {&123}>"},
};

static bool demangles_to(const char *symbol, const char *name) {
    char out[4096];
    bool ok = cprofi_rust_demangle(symbol, out, sizeof out);
    if (ok == (name != NULL) && strcmp(out, name ? name : "") == 0) return true;
    printf("# %s: %s, not %s\n", symbol, ok ? out : "refused", name ? name : "refused");
    return false;
}

static void test_table(const char *promise, const pair *table, size_t count) {
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) wrong += !demangles_to(table[i].symbol, table[i].name);
    check(wrong == 0, promise, "%zu of %zu are wrong", wrong, count);
}

/* All symbols of the tables. */
static const char *symbol_at(size_t i) {
    if (i < CPROFI_COUNT(legacy)) return legacy[i].symbol;
    i -= CPROFI_COUNT(legacy);
    if (i < CPROFI_COUNT(published)) return published[i].symbol;
    i -= CPROFI_COUNT(published);
    return i < CPROFI_COUNT(grammar) ? grammar[i].symbol : NULL;
}

/* ---- what holds for any name ---- */

static bool is_utf8(const char *text) {
    const uint8_t *s = (const uint8_t *)text;
    while (*s) {
        int more = *s < 0x80 ? 0 : *s < 0xe0 ? 1 : *s < 0xf0 ? 2 : 3;
        if (*s < 0x20 || *s == 0x7f || (*s & 0xc0) == 0x80 || *s > 0xf4) return false;
        if (s[0] == 0xc0 || s[0] == 0xc1 || (s[0] == 0xe0 && s[1] < 0xa0) ||
            (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
            (s[0] == 0xf4 && s[1] > 0x8f))
            return false;
        for (s++; more--; s++)
            if ((*s & 0xc0) != 0x80) return false;
    }
    return true;
}

/* In memory of exactly the size they have, so that the sanitizers see what is beyond. */
static bool sane(const char *symbol, size_t symbol_size, size_t room) {
    char *in = (char *)malloc(symbol_size + 1), *out = (char *)malloc(room ? room : 1);
    bool ok, sane;
    memcpy(in, symbol, symbol_size);
    in[symbol_size] = 0;
    memset(out, 'x', room ? room : 1);
    ok = cprofi_rust_demangle(in, out, room);
    sane = !room ? !ok && out[0] == 'x'
           : ok  ? memchr(out, 0, room) && out[0] && is_utf8(out)
                 : out[0] == 0;
    if (!sane) printf("# %s: %.*s\n", in, (int)room, out);
    free(in);
    free(out);
    return sane;
}

static void test_room(void) {
    size_t wrong = 0;
    char out[4096], again[4096];
    const char *symbol;
    for (size_t i = 0; (symbol = symbol_at(i)) != NULL; i++) {
        size_t size;
        if (!cprofi_rust_demangle(symbol, out, sizeof out)) continue;
        size = strlen(out) + 1;
        wrong += !cprofi_rust_demangle(symbol, again, size) || strcmp(out, again) != 0;
        for (size_t room = 0; room < size; room++)
            wrong += cprofi_rust_demangle(symbol, again, room) ||
                     !sane(symbol, strlen(symbol), room);
    }
    check(wrong == 0, "a name is whole or refused, whatever the room", "%zu times not", wrong);
}

static void test_cut_short(void) {
    size_t wrong = 0;
    const char *symbol;
    for (size_t i = 0; (symbol = symbol_at(i)) != NULL; i++)
        for (size_t size = 0; size <= strlen(symbol); size++) wrong += !sane(symbol, size, 4096);
    check(wrong == 0, "symbols cut short at each byte are shown or refused", "%zu are not", wrong);
}

/* A symbol of the tables, somewhat damaged; at most `room` with the 0. */
static void damage(char *to, size_t room) {
    static const char alphabet[] =
        "0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ$.";
    size_t tables = CPROFI_COUNT(legacy) + CPROFI_COUNT(published) + CPROFI_COUNT(grammar), size;
    snprintf(to, room, "%s", symbol_at(random_below(tables)));
    for (size_t edits = 1 + random_below(4); edits--;) {
        size_t at = random_below((size = strlen(to)) + 1), n = random_below(8);
        const char *other = symbol_at(random_below(tables));
        size_t from = random_below(strlen(other) + 1);
        switch (random_below(4)) {
        case 0: /* another letter */
            if (at < size) to[at] = alphabet[random_below(sizeof alphabet - 1)];
            break;
        case 1: /* some less */
            if (at + n <= size) memmove(to + at, to + at + n, size - at - n + 1);
            break;
        case 2: /* some from elsewhere */
            n = strlen(other + from) < n ? strlen(other + from) : n;
            if (size + n + 1 > room) break;
            memmove(to + at + n, to + at, size - at + 1);
            memcpy(to + at, other + from, n);
            break;
        default: /* a reference back */
            if (size + 4 > room) break;
            memmove(to + at + 3, to + at, size - at + 1);
            to[at] = 'B';
            to[at + 1] = alphabet[random_below(62)];
            to[at + 2] = '_';
        }
    }
}

static void test_damaged(void) {
    const char *rounds = getenv("CPROF_TEST_ROUNDS");
    size_t wrong = 0, shown = 0, count = rounds ? (size_t)strtoull(rounds, NULL, 10) : 200000;
    for (size_t i = 0; i < count; i++) {
        char symbol[512], out[4096];
        damage(symbol, sizeof symbol);
        if (i % 8 == 0) symbol[random_below(strlen(symbol) + 1)] = (char)random_below(256);
        wrong += !sane(symbol, strlen(symbol), i % 2 ? 4096 : random_below(100));
        shown += cprofi_rust_demangle(symbol, out, sizeof out);
    }
    printf("# %zu of %zu damaged symbols can still be shown\n", shown, count);
    check(wrong == 0 && shown > count / 100, "damaged symbols are shown or refused",
          "%zu are not, %zu shown", wrong, shown);
}

/* ---- names made to do harm ---- */

enum { LONG = 1 << 20, ROOM = 1 << 16 };

static char *append(char *to, const char *text) {
    size_t size = strlen(text);
    memcpy(to, text, size + 1);
    return to + size;
}

/* `before`, n times `part`, `middle`, n times `end`; room for one letter more. */
static char *repeated(const char *before, size_t n, const char *part, const char *middle,
                      const char *end) {
    size_t size = strlen(before) + strlen(middle) + n * (strlen(part) + strlen(end)) + 2;
    char *text = (char *)malloc(size), *to;
    if (!text) abort();
    to = append(text, before);
    for (size_t i = 0; i < n; i++) to = append(to, part);
    to = append(to, middle);
    for (size_t i = 0; i < n; i++) to = append(to, end);
    return text;
}

typedef struct {
    const char *before, *part, *middle, *end;
} nest;

static const nest nests[] = {
    {"_R", "Nv", "C1a", "1b"},     {"_R", "I", "C1a", "E"},         {"_RMC1a", "R", "h", ""},
    {"_RMC1a", "S", "h", ""},      {"_RMC1a", "T", "h", "E"},       {"_RMC1a", "A", "h", "j1_"},
    {"_RMC1a", "F", "h", "Eu"},    {"_RMC1a", "FG_", "h", "Eu"},    {"_RMC1a", "FT", "h", "EEu"},
    {"_R", "M", "C1a", "h"},       {"_R", "Y", "h", "C1a"},         {"_R", "XC1ah", "C1a", ""},
    {"_RIC1aK", "R", "h1_", ""},   {"_RIC1aK", "A", "h1_", "E"},
    {"_RIC1aK", "VC1aT", "h1_", "E"},
    {"_RMC1aWm", "O", "N", "E"},   {"_RMC1a", "DIC1a", "h", "EEL_"}, {"_RMC1a", "w", "h", ""},
    {"_RMC1a", "DNtC1a1bp1c", "h", "EL_"}, {"_R", "X", "C1a", "hC1b"},
};

static size_t deepest(const nest *n, size_t limit) {
    size_t depth = 0;
    char *out = (char *)malloc(ROOM);
    for (bool ok = true; ok && depth < limit; depth++) {
        char *text = repeated(n->before, depth + 1, n->part, n->middle, n->end);
        if (strncmp(n->before, "_RIC1aK", 7) == 0) append(text + strlen(text), "E");
        ok = cprofi_rust_demangle(text, out, ROOM);
        free(text);
        if (!ok) break;
    }
    free(out);
    return depth;
}

static void test_deep(void) {
    size_t bad = 0, least = SIZE_MAX;
    char *out = (char *)malloc(ROOM);
    for (size_t i = 0; i < CPROFI_COUNT(nests); i++) {
        const nest *n = nests + i;
        char *text = repeated(n->before, LONG / 16, n->part, n->middle, n->end);
        size_t depth = deepest(n, 1000);
        if (cprofi_rust_demangle(text, out, ROOM)) bad++;
        if (depth < least) least = depth;
        if (depth < 30 || depth >= 1000)
            printf("# %s %s: %zu levels\n", n->before, n->part, depth);
        free(text);
    }
    free(out);
    check(bad == 0, "65536 levels of nesting are refused", "%zu are not", bad);
    check(least >= 30, "30 levels of nesting are shown", "%zu of some", least);
}

/* How much of a stack of its own the deepest nesting uses, beyond what a shallow one does. */
enum { STACK = 1 << 20, PAINT = 0x5a };

static void *demangle_nests(void *levels) {
    static char out[ROOM];
    for (size_t i = 0; i < CPROFI_COUNT(nests); i++) {
        const nest *n = nests + i;
        char *text = repeated(n->before, *(size_t *)levels, n->part, n->middle, n->end);
        cprofi_rust_demangle(text, out, sizeof out);
        free(text);
    }
    return NULL;
}

static size_t stack_of(size_t levels) {
    uint8_t *stack = (uint8_t *)aligned_alloc(4096, STACK);
    size_t used = STACK;
    pthread_t thread;
    pthread_attr_t attributes;
    memset(stack, PAINT, STACK);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, STACK);
    if (pthread_create(&thread, &attributes, demangle_nests, &levels) != 0) abort();
    pthread_join(thread, NULL);
    while (used && stack[STACK - used] == PAINT) used--;
    pthread_attr_destroy(&attributes);
    free(stack);
    return used;
}

static void test_stack(void) {
    const char *promise = "the deepest nesting takes less than 32 KB of stack";
#if defined __SANITIZE_ADDRESS__
    (void)stack_of;
    printf("# %s: not asked of a sanitized build\n", promise);
#else
    size_t shallow = stack_of(1), deep = stack_of(LONG / 16);
    printf("# stack: %zu bytes, %zu of them for nesting\n", deep, deep - shallow);
    check(deep - shallow < 32768, promise, "%zu bytes", deep - shallow);
#endif
}

static void test_bombs(void) {
    char *out = (char *)malloc(ROOM), *text;
    char bomb[2048], *to = bomb;
    size_t wrong = 0;
    /* Tuples in each other, each twice the one within: 2^40 of them. */
    to += sprintf(to, "_RMC0");
    for (int i = 0; i < 40; i++) *to++ = 'T';
    *to++ = 'p';
    for (int i = 40; i--;) to += sprintf(to, "B%c_E", i + 2 < 10 ? '0' + i + 2 : 'a' + i + 2 - 10);
    *to = 0;
    if (cprofi_rust_demangle(bomb, out, ROOM)) wrong |= 1;
    /* A thousand references to a number of 10000 digits that is shown as one: little output. */
    text = repeated("_RIC0Kh", 10000, "0", "1_", "KB3_");
    append(text + strlen(text), "E");
    if (cprofi_rust_demangle(text, out, ROOM)) wrong |= 2;
    free(text);
    /* As many, where it is short, are an honest symbol. */
    text = repeated("_RIC0Kh1_", 10000, "KB3_", "E", "");
    if (!cprofi_rust_demangle(text, out, ROOM) || strlen(out) != 30000 + 5) wrong |= 4;
    free(text);
    /* Lifetimes without end. */
    if (cprofi_rust_demangle("_RMC0FGZZZZZZZZZZ_EuE", out, ROOM)) wrong |= 8;
    /* A reference to what contains it. */
    if (cprofi_rust_demangle("_RMC0TB2_E", out, ROOM)) wrong |= 16;
    /* Long words. */
    text = repeated("_RNvC1a1000000", LONG, "b", "", "");
    if (cprofi_rust_demangle(text, out, ROOM)) wrong |= 32;
    free(text);
    text = repeated("_RNvC1au9999", 9999, "b", "", "");
    if (cprofi_rust_demangle(text, out, ROOM)) wrong |= 64;
    free(text);
    free(out);
    check(wrong == 0, "references back cannot blow up, in time or in size", "%zx", wrong);
}

/* ---- against rustc-demangle ---- */

static char scratch[256];

/* The path of a file in the scratch directory. */
static const char *at(const char *name) {
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static char reference[512];

/* Builds the reference, under build/ so that it is there the next time. NULL, or why there is
   none. */
static const char *build_reference(void) {
    const char *build = getenv("CPROF_TEST_BUILD"), *crate = "tests/unit/rust_crate";
    char cargo[1024];
    if (!run("command -v cargo >/dev/null && command -v rustc >/dev/null"))
        return "there is no cargo, or no rustc";
    if (!build || !build[0]) build = "build";
    snprintf(cargo, sizeof cargo,
             "CARGO_TARGET_DIR='%s/rust_crate' CARGO_NET_RETRY=0 CARGO_HTTP_TIMEOUT=15 cargo build "
             "--locked --release --quiet --manifest-path %s/Cargo.toml",
             build, crate);
    snprintf(reference, sizeof reference, "%s/rust_crate/release/reference", build);
    if (run("%s --offline 2>/dev/null", cargo) || run("%s 2>'%s'", cargo, at("cargo.txt")))
        return NULL;
    run("sed 's/^/# /' '%s'", at("cargo.txt"));
    return run("cargo fetch --locked --quiet --manifest-path %s/Cargo.toml 2>/dev/null", crate)
               ? "cargo cannot build the reference"
               : "cargo cannot fetch rustc-demangle";
}

/* Whether a legacy hash is there, and where its E is. */
static size_t end_of_hash(const char *symbol) {
    for (const char *s = symbol; (s = strstr(s, "17h")) != NULL; s++)
        if (strspn(s + 3, "0123456789abcdef") == 16 && s[19] == 'E' && strchr(".$@", s[20]))
            return (size_t)(s + 20 - symbol);
    return 0;
}

/* What our name must be, given the reference's: "=name" or "!"; "?" if it is our own business. */
static const char *expected(const char *symbol, const char *theirs, bool damaged) {
    static const char *const errors[] = {"{invalid syntax}", "{recursion limit reached}",
                                         "{size limit reached}"};
    bool v0 = symbol[strspn(symbol, "_")] == 'R';
    if (theirs[0] == '!' || !theirs[1]) return "!";
    for (size_t i = 0; i < CPROFI_COUNT(errors); i++)
        if (strstr(theirs, errors[i])) return "!";
    if (strlen(theirs) > ROOM || (!v0 && !end_of_hash(symbol))) return "!"; /* too long; C++ */
    if (symbol[0] == 'R' && symbol[1] == 'C') return "!";
    /* Escaped by other tables; not decoded; an error in what is skipped, which says only "?";
       a hash that is not where it belongs. */
    if (damaged && v0 &&
        (strstr(theirs, "\\u{") || strstr(theirs, "punycode{") || strchr(theirs, '?')))
        return "?";
    if (damaged && !v0 && (strchr(theirs, '$') || strstr(theirs, "17h"))) return "?";
    return theirs;
}

/* Compares all symbols of a file, one a line; `damaged`: not all need be names. Returns how many
   could be compared. */
static size_t compare(const char *promise, const char *list, size_t least, bool damaged) {
    size_t compared = 0, shown = 0, wrong = 0, size = 0;
    char *line = NULL, *theirs = NULL;
    FILE *in = fopen(list, "r"), *cut = fopen(at("cut"), "w"), *names;
    static char ours[1 + ROOM]; /* the mark, the name and its 0 */
    if (!in || !cut) abort();
    while (getline(&line, &size, in) > 0) {
        size_t end = end_of_hash(line);
        line[strcspn(line, "\n")] = 0;
        if (!end) end = line[strspn(line, "_")] == 'R' ? strcspn(line, ".$@") : strlen(line);
        fprintf(cut, "%.*s\n", (int)end, line);
    }
    fclose(cut);
    rewind(in);
    if (!run("'%s' <'%s' >'%s'", reference, at("cut"), at("names"))) abort();
    names = fopen(at("names"), "r");
    while (getline(&line, &size, in) > 0) {
        size_t theirs_size = 0;
        const char *want;
        line[strcspn(line, "\n")] = 0;
        free(theirs);
        theirs = NULL;
        if (!names || getline(&theirs, &theirs_size, names) <= 0) abort();
        theirs[strcspn(theirs, "\n")] = 0;
        want = expected(line, theirs, damaged);
        if (want[0] == '?') continue;
        ours[0] = cprofi_rust_demangle(line, ours + 1, ROOM) ? '=' : '!';
        compared++;
        shown += ours[0] == '=';
        if (strcmp(ours, want) != 0 && wrong++ < 5)
            printf("# %s\n#   ours   %.500s\n#   theirs %.500s\n", line, ours, theirs);
    }
    fclose(in);
    fclose(names);
    free(line);
    free(theirs);
    printf("# %s: %zu symbols, %zu of them Rust's\n", promise, compared, shown);
    check(wrong == 0 && shown >= least, promise, "%zu of %zu differ; %zu were names, not %zu",
          wrong, compared, shown, least);
    return compared;
}

static void test_program(const char *promise, const char *flags, size_t least) {
    FILE *f = fopen(at("empty.rs"), "w");
    if (!f || fputs("fn main() {}\n", f) < 0 || fclose(f) != 0) abort();
    if (!run("RUSTC_BOOTSTRAP=1 rustc %s -o '%s' '%s' 2>/dev/null", flags, at("empty"),
             at("empty.rs"))) {
        skip(promise, "rustc does not know the options");
        return;
    }
    if (!run("RUSTC_BOOTSTRAP=1 rustc --edition 2021 %s -o '%s' "
             "tests/unit/rust_crate/symbols.rs", flags, at("program")) ||
        !run("nm '%s' | sed 's/.* //' | sort -u >'%s'", at("program"), at("symbols"))) {
        check(false, promise, "the program cannot be built");
        return;
    }
    compare(promise, at("symbols"), least, false);
}

static void test_reference(void) {
    const char *const promises[] = {"the symbols of the tables are named as by rustc-demangle",
                                    "legacy symbols of a program, too", "its v0 symbols, too",
                                    "those of the compiler, too", "damaged ones, too"};
    const char *none = build_reference(), *symbol;
    FILE *f;
    if (none) {
        for (size_t i = 0; i < CPROFI_COUNT(promises); i++) skip(promises[i], none);
        return;
    }
    f = fopen(at("symbols"), "w");
    for (size_t i = 0; f && (symbol = symbol_at(i)) != NULL; i++)
        if (is_utf8(symbol)) fprintf(f, "%s\n", symbol);
    if (!f || fclose(f) != 0) abort();
    compare(promises[0], at("symbols"), 100, true);
    test_program(promises[1], "-Z unstable-options -C symbol-mangling-version=legacy", 300);
    test_program(promises[2], "-C symbol-mangling-version=v0", 1000);
    if (run("nm \"$(rustc --print sysroot)\"/lib/librustc_driver-*.so 2>/dev/null | "
            "sed 's/.* //' | sort -u >'%s' && test -s '%s'", at("symbols"), at("symbols")))
        compare(promises[3], at("symbols"), 1000, false);
    else
        skip(promises[3], "it has none");
    f = fopen(at("symbols"), "w");
    for (size_t i = 0; f && i < 100000; i++) {
        char text[512];
        do damage(text, sizeof text);
        while (!is_utf8(text) || strpbrk(text, " \xc3\xe1") || !text[0]);
        fprintf(f, "%s\n", text);
    }
    if (!f || fclose(f) != 0) abort();
    compare(promises[4], at("symbols"), 3000, true);
}

int main(void) {
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_table("legacy symbols", legacy, CPROFI_COUNT(legacy));
    test_table("the published examples of v0", published, CPROFI_COUNT(published));
    test_table("the rest of the v0 grammar", grammar, CPROFI_COUNT(grammar));
    test_room();
    test_cut_short();
    test_damaged();
    test_deep();
    test_stack();
    test_bombs();
    snprintf(scratch, sizeof scratch, "%s/cprof-rust-XXXXXX", tmp);
    if (!mkdtemp(scratch)) {
        skip("names as by rustc-demangle", "no directory for the reference");
    } else {
        test_reference();
        run("rm -rf '%s'", scratch);
    }
    return failures != 0;
}
