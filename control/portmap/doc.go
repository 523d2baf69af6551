// Package portmap asks the home router to forward one UDP port to this host and keeps the mapping alive.
//
// Three protocols are known: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP Internet Gateway Device versions 1
// and 2. [Client.Run] first asks all three at once with questions that change nothing (PCP ANNOUNCE, the
// NAT-PMP external address, an SSDP search), then requests the mapping through those that answered, in the
// order PCP, NAT-PMP, UPnP, until one grants it. The order prefers what is exact and cheap: PCP binds the
// mapping to a nonce and tells of lost state, UPnP parses XML from a stranger. A mapping is renewed between
// half and five eighths of its life (RFC 6887 section 11.2.1), re-created when the router says that it lost
// its state, and removed at the end within [ReleaseTimeout]. A crash leaves it to its lifetime, which is why
// the lifetime is short.
//
// Only IPv4 is served: a global IPv6 address needs no translation. Every answer is bounded in size and time;
// the sockets for PCP and NAT-PMP take datagrams from the router alone; a UPnP description is fetched only
// from the very address that answered the search, without redirects, proxies or name lookups. No protocol of
// the three is authenticated: whoever controls the LAN can make the external address wrong, never the
// identity behind it.
package portmap
