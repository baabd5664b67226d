//! How tests reach a running Kubernetes: clients with different rights, namespaces of their own, and
//! the record of what it was asked.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use super::{ServerError, kubeconfig, until, write};

/// Life of the tokens that [`Access::kubeconfig_for`] asks for.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// A running Kubernetes, as its users see it.
#[derive(Clone, Debug)]
pub struct Access {
    pub(crate) state: PathBuf,
    pub(crate) url: String,
    pub(crate) ca_pem: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) audit_log: Option<PathBuf>,
    pub(crate) controllers: bool,
}

impl Access {
    /// A client that may do everything. Make one in each test: its connections belong to the
    /// runtime of the test.
    ///
    /// # Errors
    /// [`ServerError::Kubeconfig`].
    pub async fn client(&self) -> Result<Client, ServerError> {
        kubeconfig::client(&self.kubeconfig).await
    }

    /// The kubeconfig of that client; complete in itself, so that it can be copied.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where the API server listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes a namespace that nobody else has, `<prefix>-<random>`, and returns its name. Where there
    /// are controllers, pods can be made in it at once.
    ///
    /// # Errors
    /// [`ServerError::Api`], [`ServerError::NotReady`].
    pub async fn namespace(&self, prefix: &str) -> Result<String, ServerError> {
        let client = self.client().await?;
        let name = new_namespace(client.clone(), prefix).await?;
        if self.controllers {
            until(&mut [], "the controllers have made a service account", || async {
                has_account(&client, &name).await
            })
            .await?;
        }
        Ok(name)
    }

    /// A kubeconfig with the rights of a service account, which must exist.
    ///
    /// # Errors
    /// [`ServerError::Api`] when it does not exist.
    pub async fn kubeconfig_for(
        &self,
        namespace: &str,
        account: &str,
    ) -> Result<PathBuf, ServerError> {
        let token = token(self.client().await?, namespace, account).await?;
        let path = self.state.join(format!("{namespace}.{account}.kubeconfig"));
        write(&path, &kubeconfig::for_token(&self.url, &self.ca_pem, &token))?;
        Ok(path)
    }

    /// A client with the rights of a service account, which must exist.
    ///
    /// # Errors
    /// [`ServerError::Api`] when it does not exist.
    pub async fn client_for(&self, namespace: &str, account: &str) -> Result<Client, ServerError> {
        kubeconfig::client(&self.kubeconfig_for(namespace, account).await?).await
    }

    /// The audit log (one JSON object a line), when it was asked for. The server writes a line
    /// before it answers the request.
    #[must_use]
    pub fn audit_log(&self) -> Option<AuditLog> {
        self.audit_log.clone().map(|path| AuditLog { path })
    }
}

/// What an API server was asked, by whom.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All events so far, as `audit.k8s.io/v1` objects. A line that is being written is left out.
    ///
    /// # Errors
    /// [`ServerError::Audit`] when the file can't be read.
    pub fn events(&self) -> Result<Vec<serde_json::Value>, ServerError> {
        let text = std::fs::read_to_string(&self.path)
            .map_err(|source| ServerError::Audit { path: self.path.clone(), source })?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The requests in a namespace for a resource and, unless it is empty, its subresource, such as
    /// `pods` and `log`: one event each. Long requests have an event when they start and another
    /// when they end; of these it is the later.
    ///
    /// # Errors
    /// [`ServerError::Audit`] when the file can't be read.
    pub fn requests_for(
        &self,
        namespace: &str,
        resource: &str,
        subresource: &str,
    ) -> Result<Vec<serde_json::Value>, ServerError> {
        let mut requests: Vec<serde_json::Value> = Vec::new();
        for event in self.events()? {
            let object = &event["objectRef"];
            if object["namespace"] != namespace
                || object["resource"] != resource
                || object["subresource"].as_str().unwrap_or("") != subresource
            {
                continue;
            }
            match requests.iter_mut().find(|earlier| earlier["auditID"] == event["auditID"]) {
                Some(earlier) => *earlier = event,
                None => requests.push(event),
            }
        }
        Ok(requests)
    }
}

async fn new_namespace(client: Client, prefix: &str) -> Result<String, ServerError> {
    let wanted = Namespace {
        metadata: ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let made = Api::<Namespace>::all(client).create(&PostParams::default(), &wanted).await?;
    Ok(made.metadata.name.unwrap_or_default())
}

/// Pods are refused until the account of their namespace exists, with its token.
pub(super) async fn has_account(client: &Client, namespace: &str) -> bool {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    accounts.get("default").await.is_ok_and(|account| account.secrets.is_some())
}

async fn token(client: Client, namespace: &str, name: &str) -> Result<String, ServerError> {
    let request = TokenRequest {
        // No audience: the server's own.
        spec: Some(TokenRequestSpec {
            expiration_seconds: i64::try_from(TOKEN_LIFE.as_secs()).ok(),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = Api::<ServiceAccount>::namespaced(client, namespace)
        .create_token_request(name, &PostParams::default(), &request)
        .await?;
    answer.status.and_then(|status| status.token).ok_or_else(|| ServerError::NoToken {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}
