//! `/api/v1/why`: whether traffic is encrypted, and if not, which link is broken.

use axum::{Json, extract::State};

use super::{Api, Pairs, diagnosis::must_exist, pairs, parameters::Given};
use crate::{
    inventory::Object,
    kind::Kind,
    problem::Problem,
    query::{DEFAULT_WINDOW, Invalid, parse_resource},
    why::{self, End, Facts, LATEST, Question, Why},
};

/// The parameters there are, in alphabetical order.
pub(super) const PARAMETERS: [&str; 4] = ["from", "namespace", "to", "to_namespace"];

pub(super) async fn why(State(api): State<Api>, parameters: Pairs) -> Result<Json<Why>, Problem> {
    let question = question(&pairs(parameters)?)?;
    let inventory = api.inventory()?;
    must_exist("from", &question.from, &inventory)?;
    question.to.iter().try_for_each(|to| must_exist("to", to, &inventory))?;
    let (latest, all) = (api.source.samples(LATEST).await?, api.source.samples(DEFAULT_WINDOW).await?);
    let facts = Facts {
        inventory: &inventory,
        proxies: &api.source.proxies().await?,
        samples: [&latest, &all],
        control_plane: &api.control_plane,
        now: api.clock.now(),
    };
    Ok(Json(why::answer(&question, &facts)))
}

fn question(pairs: &[(String, String)]) -> Result<Question, Invalid> {
    let given = Given::read(pairs, &PARAMETERS)?;
    let namespace = given.must("namespace", "say in which namespace")?;
    let from = given.must("from", "say who sends: TYPE/NAME")?;
    let (to, to_namespace) = (given.get("to"), given.get("to_namespace"));
    let to = to.map(|to| end("to", to, to_namespace.unwrap_or(namespace), End::To)).transpose()?;
    if let (None, Some(unused)) = (&to, to_namespace) {
        return Err(Invalid::new("to_namespace", unused, "say who receives as well, with to"));
    }
    Ok(Question { from: end("from", from, namespace, End::From)?, to })
}

fn end(parameter: &'static str, text: &str, namespace: &str, end: End) -> Result<Object, Invalid> {
    let refused = |why: &str| Invalid::new(parameter, text, &format!("{text}: {why}, such as deploy/web"));
    match parse_resource(parameter, text)? {
        (Some(kind), Some(name)) if why::is_asked_about(kind, end) => Ok(Object::new(kind, namespace, name)),
        (Some(Kind::Service), Some(_)) => Err(refused("a service sends nothing; name a workload or a pod")),
        (Some(_), Some(_)) => Err(refused("name a workload or a pod")),
        _ => Err(refused("name one, TYPE/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Question, Invalid> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        question(&pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn a_question_is_about_one_or_two_ends() {
        let web = Object::new(Kind::Deployment, "shop", "web");
        assert_eq!(read("from=deploy/web namespace=shop"), Ok(Question { from: web.clone(), to: None }));
        let to = Some(Object::new(Kind::Service, "back", "db"));
        assert_eq!(
            read("from=deploy/web namespace=shop to=svc/db to_namespace=back"),
            Ok(Question { from: web, to })
        );
    }

    #[test]
    fn senseless_questions_are_refused_by_parameter() {
        for (text, parameter) in [
            ("", "namespace"),
            ("namespace=shop", "from"),
            ("from=deploy namespace=shop", "from"),
            ("from=svc/web namespace=shop", "from"),
            ("from=ns/shop namespace=shop", "from"),
            ("from=po/a namespace=shop to=au/x", "to"),
            ("from=po/a namespace=shop to=all", "to"),
            ("from=po/a namespace=shop to_namespace=b", "to_namespace"),
            ("from=po/a from=po/b namespace=shop", "from"),
            ("widget=1", "parameter"),
        ] {
            assert_eq!(read(text).unwrap_err().parameter, parameter, "{text}");
        }
    }
}
