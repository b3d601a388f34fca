//! An endpoint as its driver uses it: its row, with all that need not be worked out for each request.

use crate::engine::push::rate::Rate;
use crate::outbound::Url;
use crate::store;
use crate::store::push_endpoint::EndpointRow;
use api::SubscriptionName;
use api::push::PushSettings;

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its row.
    pub row: EndpointRow,
    /// Its settings.
    pub settings: PushSettings,
    /// Where requests go.
    pub url: Url,
    /// The subscription.
    pub subscription: SubscriptionName,
    /// Lets requests pass at the rate that was set, or that the endpoint has consented to.
    pub(super) rate: Option<Rate>,
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
            rate: Rate::of(settings.limits.as_ref(), row.granted_per_minute),
            settings,
            url,
            subscription,
            row,
        })
    }
}
