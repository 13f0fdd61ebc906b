//! The address that a connection comes from: one address has only so many ports.

use std::net::{IpAddr, Ipv4Addr};

/// The kernel has some 28,000 ports for one source address.
const CONNECTIONS_PER_SOURCE: usize = 25_000;

/// The source to bind for a connection, counted from 0 over the whole run; `None`: the kernel chooses.
///
/// `sources` is the number of addresses to take in turn, 127.0.0.1, 127.0.0.2 …; 0 takes another one for
/// each [`CONNECTIONS_PER_SOURCE`]. Only IPv4 has a whole network of loopback addresses: other targets
/// have no such choice.
pub fn source_address(target: IpAddr, sources: usize, connection: usize) -> Option<Ipv4Addr> {
    let IpAddr::V4(target) = target else { return None };
    let source = match sources {
        0 => connection / CONNECTIONS_PER_SOURCE,
        sources => connection % sources,
    };
    // The first is what the kernel takes anyhow.
    if source == 0 || !target.is_loopback() {
        return None;
    }
    let [_, b, c, d] = (source as u32 + 1).to_be_bytes();
    Some(Ipv4Addr::new(127, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[track_caller]
    fn expect(sources: usize, connection: usize, wanted: Option<[u8; 4]>) {
        let source = source_address(LOOPBACK, sources, connection);
        assert_eq!(source, wanted.map(Ipv4Addr::from), "{sources} sources, {connection}");
    }

    #[test]
    fn every_25000_connections_have_another_source() {
        expect(0, 0, None);
        expect(0, 24_999, None);
        expect(0, 25_000, Some([127, 0, 0, 2]));
        expect(0, 49_999, Some([127, 0, 0, 2]));
        expect(0, 50_000, Some([127, 0, 0, 3]));
        expect(0, 254 * 25_000, Some([127, 0, 0, 255]));
        expect(0, 255 * 25_000, Some([127, 0, 1, 0]));
    }

    #[test]
    fn sources_that_were_asked_for_take_turns() {
        expect(1, 80_000, None);
        expect(3, 0, None);
        expect(3, 1, Some([127, 0, 0, 2]));
        expect(3, 2, Some([127, 0, 0, 3]));
        expect(3, 3, None);
        expect(300, 299, Some([127, 0, 1, 44]));
    }

    #[test]
    fn only_the_loopback_of_ipv4_has_sources() {
        for target in ["::1", "2001:db8::1", "::ffff:127.0.0.1", "192.0.2.1", "0.0.0.0"] {
            let target: IpAddr = target.parse().unwrap();
            assert_eq!(source_address(target, 0, 60_000), None, "{target}");
            assert_eq!(source_address(target, 4, 1), None, "{target}");
        }
        let other = "127.9.9.9".parse().unwrap();
        assert_eq!(source_address(other, 4, 1), Some(Ipv4Addr::new(127, 0, 0, 2)));
    }
}
