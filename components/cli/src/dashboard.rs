//! `conduit dashboard`: the mesh in a browser.

use std::{net::IpAddr, process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use clap::ValueEnum;
use conduit_net::{Accepted, TokioNetwork};
use conduit_runtime::{drain, serve, signal};

use crate::{
    args::Global,
    client::{Client, Connection},
    output,
};

/// Connections at once: a browser opens six.
const MAX_CONNECTIONS: usize = 64;

/// Open the dashboard in a browser
///
/// The browser reaches the control plane through this command, as long as it runs; nobody else on the network does. A demo on
/// this machine is reached directly.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Local port for the browser; 0 is any that is free
    #[arg(long, short = 'p', value_name = "PORT", default_value_t = 50750)]
    port: u16,
    /// Local address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// What to do with the address of the dashboard
    #[arg(long, value_enum, default_value_t = Show::Browser)]
    show: Show,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Show {
    /// Open it in a browser, and print it
    Browser,
    /// Only print it
    Url,
}

/// Opens the dashboard, and forwards to it until a signal comes.
///
/// # Errors
/// The control plane cannot be reached, the local port is taken, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    // Before anybody is told to come.
    let shutdown = signal::shutdown();
    let client = Arc::new(Client::find(global).await?);
    if let Some(addr) = client.address() {
        args.show(&format!("http://{addr}/"))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Told here, where there is somebody to read it, rather than in the browser.
    drop(client.connect_in_time().await?);
    let net = TokioNetwork::shared();
    let bound = net.bind((args.address, args.port).into()).await;
    let listener = bound.with_context(|| {
        format!("cannot listen on {}:{}; choose another port with --port", args.address, args.port)
    })?;
    args.show(&format!("http://{}/", listener.local_addr()))?;
    output::note("forwarding until Ctrl-C");
    let (trigger, watch) = drain::channel();
    let serving = serve::accept_loop(listener, MAX_CONNECTIONS, watch, move |accepted| {
        forward(client.clone(), accepted)
    });
    tokio::select! {
        () = serving => bail!("the local port was closed"),
        () = shutdown => drop(trigger),
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn show(&self, url: &str) -> anyhow::Result<()> {
        output::stdout(&format!("{url}\n"))?;
        if self.show == Show::Browser
            && let Err(error) = open::that_detached(url)
        {
            output::note(&format!("note: no browser could be opened ({error}); open the address above"));
        }
        Ok(())
    }
}

async fn forward(client: Arc<Client>, accepted: Accepted) {
    let mut browser = accepted.io;
    let copied = async {
        let Connection { mut io, forward } = client.connect_in_time().await?;
        let copied = tokio::io::copy_bidirectional(&mut browser, &mut io).await;
        // The forward lives as long as what goes through it.
        drop(forward);
        // A browser that leaves is no trouble.
        drop(copied);
        anyhow::Ok(())
    };
    if let Err(error) = copied.await {
        output::note(&format!("warning: the control plane cannot be reached: {error:#}"));
    }
}
