use export_to_secrets::{App, handle};

/// Keys pass through buffers of the SDK and of TLS too: whatever is freed is overwritten.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let app = App::new(runtime::vars::Vars::of_environment(), &runtime::sdk_config(env!("CARGO_PKG_NAME")))?;
    runtime::run(async |event, invocation| Box::pin(handle(&app, event, invocation)).await).await
}
