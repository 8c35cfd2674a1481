//! The emoji service: which emoji there are, by gRPC, and its own status, by HTTP.

use std::net::SocketAddr;

use conduit_net::{Listener, Net};
use conduit_runtime::drain;
use http::StatusCode;
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    contract::{
        self, FindByShortcodeRequest, FindByShortcodeResponse, ListAllRequest, ListAllResponse,
        emoji_service_server::{EmojiService, EmojiServiceServer},
    },
    http_server,
    rpc::{self, BindError},
    votes,
};

/// Where the emoji service listens.
#[derive(Debug, Clone)]
pub struct Config {
    /// gRPC; 8080 in a cluster.
    pub grpc: SocketAddr,
    /// The HTTP status; 8888 in a cluster.
    pub status: SocketAddr,
}

/// An emoji service that listens and does not answer yet.
pub struct Emoji {
    grpc: Box<dyn Listener>,
    status: Box<dyn Listener>,
}

/// Listens.
///
/// # Errors
/// An address cannot be bound.
pub async fn bind(net: &Net, config: &Config) -> Result<Emoji, BindError> {
    Ok(Emoji { grpc: rpc::bind(net, config.grpc).await?, status: rpc::bind(net, config.status).await? })
}

impl Emoji {
    /// Where gRPC is served, with the real port.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    /// Where the status is served, with the real port.
    pub fn status_addr(&self) -> SocketAddr {
        self.status.local_addr()
    }

    /// Answers until the drain, and what is under way to its end.
    pub async fn run(self, drain: drain::Watch) {
        let routes = Routes::new(EmojiServiceServer::new(Catalogue));
        let status = http_server::serve(self.status, drain.clone(), |request| async move {
            match request.uri().path() {
                "/" | "/status" => http_server::answer(StatusCode::OK, "text/plain", "emoji: ok\n"),
                _ => http_server::answer(StatusCode::NOT_FOUND, "text/plain", "only /status is here\n"),
            }
        });
        tokio::join!(rpc::serve(self.grpc, routes, drain), status);
    }
}

struct Catalogue;

#[tonic::async_trait]
impl EmojiService for Catalogue {
    async fn list_all(&self, _: Request<ListAllRequest>) -> Result<Response<ListAllResponse>, Status> {
        let list = votes::SHORTCODES.iter().filter_map(|shortcode| find(shortcode)).collect();
        Ok(Response::new(ListAllResponse { list }))
    }

    async fn find_by_shortcode(
        &self,
        request: Request<FindByShortcodeRequest>,
    ) -> Result<Response<FindByShortcodeResponse>, Status> {
        Ok(Response::new(FindByShortcodeResponse { emoji: find(&request.get_ref().shortcode) }))
    }
}

fn find(shortcode: &str) -> Option<contract::Emoji> {
    let unicode = votes::character(shortcode)?.to_owned();
    Some(contract::Emoji { unicode, shortcode: shortcode.to_owned() })
}
