//! What this crate promises of a Kubernetes API, as cases that run on any: on the one in memory with every test run, and
//! on a real one by name. A case that only one of them passes is a bug in that one, or in the case.
//!
//! Each case gets a namespace of its own and a client that may do everything. Cases ask the API for its version where
//! versions differ; the oldest they were run on is 1.20.
//!
//! - `objects.rs`: creating, replacing, refusing · `lists.rs` · `watches.rs` · `patches.rs` · `applies.rs`
//! - `deletions.rs`: finalizers, garbage collection, namespaces · `endpoints.rs`: the controllers' work
//! - `scratch.rs`: what cases are written with

use futures::future::BoxFuture;
use kube::Client;

mod applies;
mod deletions;
mod endpoints;
mod lists;
mod objects;
mod patches;
mod scratch;
mod watches;

use scratch::Scratch;
pub use scratch::{ANCIENT_VERSION, Failed};

/// One promise.
pub struct Case {
    /// The claim.
    pub name: &'static str,
    run: fn(Scratch) -> BoxFuture<'static, Result<(), Failed>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Case {
    /// Runs it in the namespace `namespace`, which it makes and deletes. The namespace must not exist.
    ///
    /// The client must not try refused requests again (`Config::default_retry`), and somebody must run the endpoints
    /// controllers. Of the history since [`ANCIENT_VERSION`] the API must have all or, as the one in memory after
    /// [`crate::Cluster::compact`], nothing.
    ///
    /// # Errors
    /// What the API did that the case does not allow.
    pub async fn run(&self, client: Client, namespace: &str) -> Result<(), Failed> {
        let scratch = Scratch::make(client, namespace).await?;
        let outcome = (self.run)(scratch.clone()).await;
        let cleaned = scratch.remove().await;
        outcome.and(cleaned)
    }
}

macro_rules! cases {
    ($($module:ident { $($case:ident)* })*) => {
        /// Every promise, in the order they are best read.
        pub static CASES: &[Case] = &[
            $($(Case { name: stringify!($case), run: |scratch| Box::pin($module::$case(scratch)) },)*)*
        ];
    };
}

// A macro because the name of a case is the name of its function, and must stay so.
cases! {
    objects {
        a_created_object_has_an_identity
        a_name_is_taken_once
        a_generated_name_keeps_its_prefix
        nothing_is_created_in_a_namespace_that_is_not_there
        objects_that_break_the_rules_are_refused
        requests_that_do_not_fit_are_refused
        a_replacement_names_the_version_it_replaces
        a_replacement_that_changes_nothing_is_no_new_version
        what_the_server_wrote_cannot_be_changed
        status_and_spec_are_written_apart
        a_generation_counts_changes_of_the_spec
        some_kinds_are_created_by_replacing
        secrets_take_plain_text_and_keep_their_type
        what_is_immutable_stays
        a_dry_run_stores_nothing
        a_service_keeps_its_address
        a_pod_is_bound_once
        a_lease_changes_hands_by_version
        defaults_are_filled_in
        reviews_are_answered
        discovery_lists_the_kinds
    }
    lists {
        selectors_select
        a_list_is_in_the_order_of_names
        pages_show_one_version
        a_list_says_where_a_watch_goes_on
        field_selectors_know_their_kind
    }
    watches {
        a_watch_reports_changes_in_order
        a_watch_without_a_version_begins_with_what_is_there
        entering_and_leaving_a_selection_is_being_added_and_deleted
        a_watch_of_one_name_sees_no_other
        a_watch_from_an_ancient_version_is_complete_or_told_that_it_expired
        a_watch_ends_in_time_and_says_how_far_it_came
        a_streaming_list_ends_with_a_bookmark
        a_watcher_of_kube_sees_every_object
    }
    patches {
        a_merge_patch_sets_and_removes
        a_json_patch_tests_before_it_changes
        a_strategic_patch_merges_lists_by_key
        a_patch_with_a_version_is_conditional
        patches_of_unknown_form_are_refused
    }
    applies {
        applying_creates_and_then_changes
        what_is_no_longer_applied_goes
        contested_fields_conflict_until_forced
        equal_values_are_shared
        an_update_takes_fields_over
        list_items_are_applied_by_key
        applying_without_a_manager_is_refused
    }
    deletions {
        a_deletion_says_what_it_deleted
        preconditions_protect_another_object_of_the_name
        finalizers_hold_an_object
        no_finalizer_is_added_to_what_is_being_deleted
        dependents_go_with_their_owner
        a_dependent_stays_while_one_owner_lives
        orphans_lose_their_owner
        a_blocked_owner_waits_for_its_dependents
        a_selection_is_deleted_at_once
        a_namespace_takes_its_content_along
        a_pod_on_a_node_is_given_time
    }
    endpoints {
        endpoints_follow_pods_and_their_readiness
        named_ports_are_resolved_for_each_pod
        a_pod_without_a_named_port_is_missing_from_that_port_alone
        unready_pods_are_published_on_demand
        a_service_without_selector_is_left_alone
        endpoints_by_hand_are_mirrored_into_slices
        only_endpoints_of_a_service_without_selector_are_mirrored
        a_finished_pod_is_no_endpoint
        a_terminating_pod_takes_no_traffic
        endpoints_go_with_their_service
    }
}
