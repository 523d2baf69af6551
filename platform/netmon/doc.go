// Package netmon tells when the host's network changes: addresses, links and default routes of interfaces
// other than our own, so that a session can look for a new path at once.
//
// [Monitor.Run] subscribes to the kernel and sends coalesced [Change] events on [Monitor.Changes]. Bursts,
// such as a link going up with all its addresses, become one event. The channel holds one event; while the
// consumer is busy later events are merged into it, so nothing is lost and nothing grows. What the kernel
// merely repeats (router advertisements refreshing a lifetime, wireless statistics) is no change.
package netmon
