//! Types that are strings on the wire. serde reads them by `try_from = "String"` and writes them by `into = "String"`;
//! [`as_text`] implements both conversions by `FromStr` and `Display`.

/// Implements `TryFrom<String>` and `Into<String>` for types with their parse errors: `as_text! { Day, InvalidDay; }`.
macro_rules! as_text {
    ($($name:ident, $error:ident;)+) => {
        $(
            impl TryFrom<String> for $name {
                type Error = $error;

                fn try_from(text: String) -> Result<Self, $error> {
                    text.parse()
                }
            }

            impl From<$name> for String {
                fn from(value: $name) -> Self {
                    value.to_string()
                }
            }
        )+
    };
}

pub(crate) use as_text;
