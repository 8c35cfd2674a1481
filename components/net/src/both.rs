//! Two listeners as one.

use std::{io, net::SocketAddr};

use futures::future::{BoxFuture, FutureExt};

use crate::{Accepted, Listener};

/// Accepts from `first` and from `second`; told as the address of `first`.
pub fn both(first: Box<dyn Listener>, second: Box<dyn Listener>) -> Box<dyn Listener> {
    Box::new(Both { first, second })
}

struct Both {
    first: Box<dyn Listener>,
    second: Box<dyn Listener>,
}

impl Listener for Both {
    fn local_addr(&self) -> SocketAddr {
        self.first.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move {
            // In random order, so that a crowd at one does not keep the other waiting.
            tokio::select! {
                accepted = self.first.accept() => accepted,
                accepted = self.second.accept() => accepted,
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Network, TokioNetwork};

    #[tokio::test]
    async fn connections_to_either_address_are_accepted() {
        let net = TokioNetwork::default();
        let bind = async || net.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (first, second) = (bind().await, bind().await);
        let addrs = [second.local_addr(), first.local_addr()];
        let mut listener = both(first, second);
        assert_eq!(listener.local_addr(), addrs[1]);
        for addr in addrs {
            let (client, accepted) = tokio::join!(net.connect(addr), listener.accept());
            client.unwrap();
            assert_eq!(SocketAddr::from(accepted.unwrap().local), addr);
        }
    }
}
