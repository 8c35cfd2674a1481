//! The voting service: counts votes in memory. A vote for the doughnut always fails.

use std::{collections::BTreeMap, net::SocketAddr};

use conduit_net::{Listener, Net};
use conduit_runtime::drain;
use parking_lot::Mutex;
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    contract::{
        ResultsRequest, ResultsResponse, VoteRequest, VoteResponse, VotingResult,
        voting_service_server::{VotingService, VotingServiceServer},
    },
    rpc::{self, BindError},
    votes::DOUGHNUT_REFUSAL,
};

/// Where the voting service listens.
#[derive(Debug, Clone)]
pub struct Config {
    /// gRPC; 8080 in a cluster.
    pub grpc: SocketAddr,
}

/// A voting service that listens and does not answer yet.
pub struct Voting {
    grpc: Box<dyn Listener>,
}

/// Listens.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(net: &Net, config: &Config) -> Result<Voting, BindError> {
    Ok(Voting { grpc: rpc::bind(net, config.grpc).await? })
}

impl Voting {
    /// Where gRPC is served, with the real port.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    /// Answers until the drain, and what is under way to its end.
    pub async fn run(self, drain: drain::Watch) {
        rpc::serve(self.grpc, Routes::new(VotingServiceServer::new(BallotBox::default())), drain).await;
    }
}

#[derive(Default)]
struct BallotBox {
    votes: Mutex<BTreeMap<&'static str, u64>>,
}

impl BallotBox {
    fn count(&self, shortcode: &'static str) -> Result<Response<VoteResponse>, Status> {
        *self.votes.lock().entry(shortcode).or_default() += 1;
        Ok(Response::new(VoteResponse {}))
    }
}

type Voted = Result<Response<VoteResponse>, Status>;

#[tonic::async_trait]
impl VotingService for BallotBox {
    async fn vote_doughnut(&self, _: Request<VoteRequest>) -> Voted {
        Err(Status::unknown(DOUGHNUT_REFUSAL))
    }

    async fn vote_cat(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":cat:")
    }

    async fn vote_ghost(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":ghost:")
    }

    async fn vote_heart(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":heart:")
    }

    async fn vote_joy(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":joy:")
    }

    async fn vote_pizza(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":pizza:")
    }

    async fn vote_rainbow(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":rainbow:")
    }

    async fn vote_rocket(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":rocket:")
    }

    async fn vote_sunglasses(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":sunglasses:")
    }

    async fn vote_tada(&self, _: Request<VoteRequest>) -> Voted {
        self.count(":tada:")
    }

    async fn results(&self, _: Request<ResultsRequest>) -> Result<Response<ResultsResponse>, Status> {
        let mut results: Vec<VotingResult> = (self.votes.lock().iter())
            .map(|(shortcode, votes)| VotingResult { shortcode: (*shortcode).to_owned(), votes: *votes })
            .collect();
        // Stable: equal counts stay in the order of their short codes.
        results.sort_by_key(|result| std::cmp::Reverse(result.votes));
        Ok(Response::new(ResultsResponse { results }))
    }
}
