// Package firewall keeps one nftables table of our own and the host's forwarding switches.
//
// The desired state of the table is a [Plan], a value; [Manager.Set] compares it with what the kernel has and
// replaces it in one transaction, through netlink and without the nft program. The table is in the inet
// family, is named by the plan, and has these base chains:
//
//	shield   prerouting, raw      drops what arrives on another interface than ours but claims to be inner traffic:
//	                              packets for our tunnel address (CVE-2019-14899) and packets from tunnel prefixes
//	mark     prerouting, mangle   gives our mark to UDP packets for our own ports, so that strict rp_filter with
//	                              src_valid_mark looks up their source where their answers go
//	clamp    forward, mangle      lowers the MSS of TCP SYNs that are forwarded in or out of our interface
//	source   postrouting, srcnat  masquerades tunnel sources toward granted prefixes on other interfaces
//
// Each rule carries a comment with the fingerprint of its plan. Rules without one are somebody else's: they
// are kept when the table is replaced or undone, and reported.
//
// Forwarding is a second plan, [Forwarding]: the kernel parameters that must be held for the granted
// prefixes. [ForeignDrops] finds the rules of others that would drop what we forward and names the remedy.
//
// All functions act on the network namespace of the calling thread.
package firewall
