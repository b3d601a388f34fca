//! Networks of IP addresses, as an operator writes them: `10.0.0.0/8`, or one address. Pure: `outbound` decides with
//! them what it may dial, and `http` which peers are proxies that say who sent a request.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: the addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its first address, as IPv6; an IPv4 address is mapped.
    first: u128,
    /// Bits that all of its addresses have in common.
    prefix: u8,
}

/// The text is not a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address or a network such as 10.0.0.0/8 or fd00::/8")]
pub struct InvalidNetwork;

/// Bits of an IPv6 address before the IPv4 address that is mapped into it.
const MAPPED_BITS: u8 = 96;

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl Network {
    /// Whether the address is in the network. An IPv4 address that is mapped into IPv6 is the IPv4 address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        bits(ip) & mask(self.prefix) == self.first
    }

    /// Whether all of its addresses are of this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let holds =
            |all: Network| all.prefix <= self.prefix && self.first & mask(all.prefix) == all.first;
        loopback().into_iter().any(holds)
    }
}

/// The addresses of this machine.
#[must_use]
pub fn loopback() -> [Network; 2] {
    let of = |first: IpAddr, prefix| Network {
        first: bits(first),
        prefix,
    };
    [
        of(Ipv4Addr::new(127, 0, 0, 0).into(), MAPPED_BITS + 8),
        of(Ipv6Addr::LOCALHOST.into(), 128),
    ]
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| InvalidNetwork)?;
        let before = if ip.is_ipv4() { MAPPED_BITS } else { 0 };
        let prefix = match length {
            None => 128,
            Some(length) => {
                let length: u8 = length.parse().map_err(|_| InvalidNetwork)?;
                before.checked_add(length).ok_or(InvalidNetwork)?
            }
        };
        let first = bits(ip);
        // Bits behind the prefix are a mistake: 10.1.2.3/8 would let in more than it seems to.
        if prefix > 128 || first & mask(prefix) != first {
            return Err(InvalidNetwork);
        }
        Ok(Self { first, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = Ipv6Addr::from_bits(self.first);
        match ip.to_ipv4_mapped() {
            Some(v4) if self.prefix >= MAPPED_BITS => {
                write!(f, "{v4}/{}", self.prefix - MAPPED_BITS)
            }
            _ => write!(f, "{ip}/{}", self.prefix),
        }
    }
}

/// Whether the address is one of the public internet: not of this machine, of a private network, of the link (where
/// clouds serve the credentials of a machine), or reserved.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_public_v4(v4),
            // Only this part of IPv6 is given out, but for documentation (2001:db8::/32, 3fff::/20).
            None => {
                let [first, second, ..] = v6.segments();
                let is_documentation =
                    (first == 0x2001 && second == 0x0db8) || (first == 0x3fff && second < 0x1000);
                first & 0xe000 == 0x2000 && !is_documentation
            }
        },
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let is_special = match (a, b, c) {
        // This network; shared by a carrier; protocols and 6to4 relays; benchmarks; multicast and reserved.
        (0 | 224..=255, _, _)
        | (100, 64..=127, _)
        | (192, 0, 0)
        | (192, 88, 99)
        | (198, 18 | 19, _) => true,
        _ => v4.is_documentation(),
    };
    !(is_special || v4.is_private() || v4.is_loopback() || v4.is_link_local())
}

/// The IPv4 address that a gateway reaches by this IPv6 address: NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let joined = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    if [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return Some(joined(g, h));
    }
    (a == 0x2002).then(|| joined(b, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_with_its_prefix() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("0.0.0.0/0", "8.8.8.8", "2001::1"),
            ("::/0", "2001::1", ""),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(
                network.contains(inside.parse().unwrap()),
                "{network} {inside}"
            );
            if let Ok(outside) = outside.parse() {
                assert!(!network.contains(outside), "{network} {outside}");
            }
        }
        let is_loopback = |text: &str| text.parse::<Network>().unwrap().is_loopback();
        assert!(
            ["127.0.0.0/8", "127.0.0.1", "::1"]
                .into_iter()
                .all(is_loopback)
        );
        assert!(
            !["0.0.0.0/0", "126.0.0.0/7", "::/0", "::/127", "10.0.0.1"]
                .into_iter()
                .any(is_loopback)
        );
        for text in ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "a",
            "10.0.0.0/",
            "10.0.0.0/255",
        ] {
            assert_eq!(wrong.parse::<Network>(), Err(InvalidNetwork), "{wrong}");
        }
    }

    #[test]
    fn only_the_internet_is_public() {
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "2606:4700::1",
            "64:ff9b::808:808",
            "100.128.0.1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "2001:db8::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }
}
