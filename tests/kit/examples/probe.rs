//! What a static program in a pod can do: resolve the names that it is given, and speak TLS with the
//! API server as its service account. Prints a line each; a test reads them.

use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for name in std::env::args().skip(1) {
        match tokio::net::lookup_host((name.as_str(), 443)).await {
            Ok(found) => {
                let addresses: Vec<_> = found.map(|address| address.ip().to_string()).collect();
                println!("{name} {}", addresses.join(","));
            }
            Err(error) => println!("{name} failed: {error}"),
        }
    }
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "another crypto provider is installed")?;
    let version = kube::Client::try_default().await?.apiserver_version().await?;
    println!("kubernetes {}.{}", version.major, version.minor);
    Ok(())
}
