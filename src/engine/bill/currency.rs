//! Amounts of a currency in a bill: rounded to the smallest coin and written with all of its decimal places (ISO 4217).

use api::Decimal;

/// Decimal places of the smallest coin of a currency.
#[must_use]
pub fn minor_places(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX"
        | "UYI" | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

/// Formats an amount with all decimal places of its currency.
pub(super) fn shown(amount: Decimal, places: u32) -> String {
    match places {
        0 => amount.to_string(),
        places => amount.with_places(places as usize),
    }
}
