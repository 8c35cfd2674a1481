//! How many files, and so connections, this process may have open.

/// Raises the limit to what the system allows at most: most systems start a process with 1,024, for the sake of programs
/// that do not ask. Returns the limit that holds now; none where there is no such limit, or it cannot be told.
pub fn raise_limit() -> Option<u64> {
    raise()
}

#[cfg(unix)]
fn raise() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, ?before, "cannot raise the number of open files");
            before
        }
    }
}

#[cfg(not(unix))]
fn raise() -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::process::{Resource, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn the_limit_becomes_what_the_system_allows() {
        let mut limit = getrlimit(Resource::Nofile);
        // Enough for the tests beside this one.
        limit.current = limit.maximum.map_or(Some(1_000), |most| Some(most.saturating_sub(1)));
        setrlimit(Resource::Nofile, limit).unwrap();
        assert_eq!(raise_limit(), limit.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }
}
