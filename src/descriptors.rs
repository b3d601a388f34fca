//! Open files of this process, which bound its connections. The usual soft limit of 1,024 is meant for programs that
//! use `select`; at the start it is raised to the hard limit. What the node itself opens is set aside, so that
//! clients cannot keep it from its database. Called once by `app`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Hard limits may be as high as the kernel can count; no node needs more than this.
const FILES_MAX: u64 = 1 << 20;
/// Fewest connections that are worth a start.
const CONNECTIONS_MIN: u32 = 16;
/// Connections to others at most: endpoints, event sinks, key sets.
const OUTBOUND_MAX: u32 = 8_192;
/// Files apart from connections and from what the caller counts: the log, the poller, sockets that listen, look-ups of
/// names, files that are open for a moment.
const OTHERS: u32 = 128;

/// Raises the soft limit of open files as far as possible, and returns it.
#[must_use]
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    if current < wanted && setrlimit(Resource::Nofile, raised).is_ok() {
        return wanted;
    }
    current
}

/// How many connections to others a limit of open files leaves: an eighth of it at most.
#[must_use]
pub fn outbound(limit: u64) -> u32 {
    u32::try_from(limit / 8).map_or(OUTBOUND_MAX, |eighth| eighth.min(OUTBOUND_MAX))
}

/// The limit of open files is too low to serve at all.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, and this node needs {needed} for itself and {CONNECTIONS_MIN} connections: raise it \
     (ulimit -n, or LimitNOFILE= of systemd)"
)]
pub struct TooFew {
    limit: u64,
    needed: u32,
}

/// How many connections of clients a limit of open files leaves, at most `wanted`, when the node opens `own` files for
/// its database, its object storage and spare connections.
///
/// # Errors
/// When they are too few to serve.
pub fn connections(limit: u64, wanted: u32, own: u32) -> Result<u32, TooFew> {
    let own = own.saturating_add(OTHERS);
    let left = limit.saturating_sub(own.into());
    let left = u32::try_from(left).unwrap_or(u32::MAX).min(wanted);
    if left < CONNECTIONS_MIN.min(wanted) {
        return Err(TooFew {
            limit,
            needed: own.saturating_add(CONNECTIONS_MIN),
        });
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_node_leaves_of_the_limit() {
        assert_eq!(connections(20_000, 16_384, 200).unwrap(), 16_384);
        assert_eq!(connections(4_096, 16_384, 200).unwrap(), 3_768);
        assert_eq!(connections(u64::MAX, 5, 200).unwrap(), 5);
        let refused = connections(256, 16_384, 200).unwrap_err().to_string();
        assert!(refused.contains("256") && refused.contains("ulimit -n"));
    }

    #[test]
    fn connections_to_others_get_an_eighth_at_most() {
        let of = [256, 4_096, 1 << 20, u64::MAX].map(outbound);
        assert_eq!(of, [32, 512, 8_192, 8_192]);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let raised = raise();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.maximum, before.maximum);
        assert_eq!(after.current, Some(raised));
        assert!(raised >= before.current.unwrap());
    }
}
