//! Lists of the API server, one page at a time.

use kube::{Api, api::ListParams};

use crate::cluster::{ApiError, call};

/// Objects in one page, where they are as large as pods.
pub(super) const PAGE: u32 = 250;

/// A list that is read page by page: one of them is held.
pub(super) struct Pages<K> {
    api: Api<K>,
    params: ListParams,
    what: &'static str,
    ended: bool,
}

impl<K> Pages<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    /// What `params` select, with their page's size; `what` says so in an error.
    pub(super) fn new(api: Api<K>, params: ListParams, what: &'static str) -> Self {
        Self { api, params, what, ended: false }
    }

    /// The next page; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<K>>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let page = call(self.what, self.api.list(&self.params)).await?;
        self.params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        self.ended = self.params.continue_token.is_none();
        Ok(Some(page.items))
    }
}
