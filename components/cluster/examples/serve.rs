//! Serves an empty in-memory cluster on the address given as the only argument, for kubectl and curl.

use std::{error::Error, sync::Arc, time::Duration};

use conduit_cluster::{Cluster, Config, SliceVersion};
use conduit_net::TokioNetwork;
use conduit_runtime::{Seed, drain};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8001".to_owned()).parse()?;
    #[allow(clippy::disallowed_methods, reason = "the outermost place is where the clock is chosen")]
    let clock =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut config = Config::new(Arc::new(clock), Seed::from_os()?);
    if std::env::args().nth(2).as_deref() == Some("old") {
        (config.slices, config.version) = (SliceVersion::V1Beta1, (1, 20));
    }
    let cluster = Cluster::new(config);
    let (_trigger, watch) = drain::channel();
    let serving = cluster.serve(&TokioNetwork::shared(), addr, watch.clone()).await?;
    tokio::join!(serving.server, cluster.run_controllers(watch));
    Ok(())
}
