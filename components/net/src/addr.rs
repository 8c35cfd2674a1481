//! Addresses by role, so that the peer's address cannot be dialled in place of the original destination.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub SocketAddr);

        impl $name {
            /// The IP address alone, an IPv4-mapped IPv6 address as IPv4.
            pub fn ip(self) -> IpAddr {
                self.0.ip().to_canonical()
            }

            /// The port alone.
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl From<$name> for SocketAddr {
            fn from(addr: $name) -> SocketAddr {
                addr.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

role!(
    /// The remote end of an accepted connection.
    PeerAddr
);
role!(
    /// Our end of an accepted connection.
    LocalAddr
);
role!(
    /// Where a connection was going before the kernel (or its stand-in) redirected it to the proxy.
    OriginalDst
);
