// Reaches into each library, so that its code is linked in. Not meant to be run.
use revm::context::TxEnv;
use revm::database::{CacheDB, EmptyDB};
use revm::{Context, ExecuteEvm, MainBuilder, MainContext};
use wasmtime::{Engine, Instance, Module, Store};

fn wasm(text: &str) -> wasmtime::Result<i32> {
    let engine = Engine::default();
    let module = Module::new(&engine, text)?;
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[])?;
    instance
        .get_typed_func::<(), i32>(&mut store, "run")?
        .call(&mut store, ())
}

fn evm() -> bool {
    let db = CacheDB::<EmptyDB>::default();
    let mut evm = Context::mainnet().with_db(db).build_mainnet();
    evm.transact(TxEnv::default()).is_ok()
}

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    println!("{:?}", wasm(&argument).ok());
    println!("{}", evm());
}
