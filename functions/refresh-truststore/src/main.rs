use refresh_truststore::{App, handle};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let app = App::new(runtime::vars::Vars::of_environment(), &runtime::sdk_config(env!("CARGO_PKG_NAME")))?;
    runtime::run(async |event, invocation| Box::pin(handle(&app, event, invocation)).await).await
}
