//! The emoji one can vote for, and which method of the voting service is whose.

use tonic::{Response, Status};

use crate::{
    contract::{VoteRequest, VoteResponse, voting_service_client::VotingServiceClient},
    rpc::Channel,
};

/// The emoji whose votes always fail.
pub const DOUGHNUT: &str = ":doughnut:";

/// What the voting service says to a vote for the doughnut. Whoever counts failures knows the intended one by it.
pub const DOUGHNUT_REFUSAL: &str = "the doughnut cannot be voted for";

/// Every emoji's short code, the doughnut's first.
pub const SHORTCODES: [&str; 10] = [
    DOUGHNUT,
    ":cat:",
    ":ghost:",
    ":heart:",
    ":joy:",
    ":pizza:",
    ":rainbow:",
    ":rocket:",
    ":sunglasses:",
    ":tada:",
];

/// The characters, in the order of [`SHORTCODES`].
const CHARACTERS: [&str; SHORTCODES.len()] = ["🍩", "🐱", "👻", "❤️", "😂", "🍕", "🌈", "🚀", "😎", "🎉"];

/// The emoji with that short code.
pub(crate) fn character(shortcode: &str) -> Option<&'static str> {
    let place = SHORTCODES.iter().position(|known| *known == shortcode)?;
    Some(CHARACTERS[place])
}

/// Votes through the method that belongs to `shortcode`.
pub(crate) async fn vote(
    client: &mut VotingServiceClient<Channel>,
    shortcode: &str,
) -> Result<Response<VoteResponse>, Status> {
    let vote = VoteRequest {};
    match shortcode {
        DOUGHNUT => client.vote_doughnut(vote).await,
        ":cat:" => client.vote_cat(vote).await,
        ":ghost:" => client.vote_ghost(vote).await,
        ":heart:" => client.vote_heart(vote).await,
        ":joy:" => client.vote_joy(vote).await,
        ":pizza:" => client.vote_pizza(vote).await,
        ":rainbow:" => client.vote_rainbow(vote).await,
        ":rocket:" => client.vote_rocket(vote).await,
        ":sunglasses:" => client.vote_sunglasses(vote).await,
        ":tada:" => client.vote_tada(vote).await,
        other => Err(Status::invalid_argument(format!("{other} is no emoji of ours"))),
    }
}
