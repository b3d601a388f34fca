//! An endpoint as its driver uses it: its row, with all that need not be worked out for each request.

use crate::outbound::Url;
use crate::store;
use crate::store::push_endpoint::EndpointRow;
use api::SubscriptionName;
use api::push::PushSettings;

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its row.
    pub row: EndpointRow,
    /// Its settings.
    pub settings: PushSettings,
    /// Where requests go.
    pub url: Url,
    /// The subscription.
    pub subscription: SubscriptionName,
}

impl Endpoint {
    /// An endpoint of a row.
    ///
    /// # Errors
    /// When the row holds what the service did not write.
    pub fn of(row: EndpointRow) -> Result<Self, store::Error> {
        let corrupt = |column| store::Error::Corrupt {
            table: "push_endpoint",
            column,
            row: row.subscription_id.to_string(),
        };
        let settings: PushSettings =
            serde_json::from_str(&row.settings).map_err(|_| corrupt("settings"))?;
        let url = settings.url.as_deref().unwrap_or_default();
        let url = Url::parse(url).map_err(|_| corrupt("settings"))?;
        let subscription = row.subscription.parse();
        let subscription = subscription.map_err(|_| corrupt("subscription"))?;
        Ok(Self {
            settings,
            url,
            subscription,
            row,
        })
    }
}
