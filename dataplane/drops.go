package dataplane

// Reason says why a packet was not passed on.
type Reason uint8

// The reasons. Each has a counter in Stats.
const (
	DropMalformed      Reason = iota // not exactly one IPv4 or IPv6 packet
	DropNotForwardable               // link-local, multicast, loopback or unspecified address
	DropSource                       // the sender may not use this source address
	DropNoRoute                      // nobody has the destination address
	DropNoSession                    // the peer that has it is not connected, or was cut off before its turn came
	DropQueueFull                    // the peer's carrier, or the host, does not keep up
	DropTooBig                       // longer than the carrier takes; the sender gets Packet Too Big
	DropHopLimit                     // TTL or hop limit used up between two peers
	DropNICRefused                   // the host's network stack refused a write; a joined super-packet counts once
	DropNICUnreadable                // what the host handed over could not be read as packets; counts once per read
	reasonCount
)

var reasonNames = [reasonCount]string{
	"malformed", "not_forwardable", "source_not_assigned", "no_route", "no_session", "queue_full", "too_big",
	"hop_limit", "nic_refused", "nic_unreadable",
}

// String returns the reason as it appears in status and metrics.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

func (e *Engine) drop(r Reason) { e.drops[r].Add(1) }

// Stats is a reading of all counters.
type Stats struct {
	Drops map[string]uint64    `json:"drops"` // by reason, all reasons present
	Peers map[PeerID]PeerStats `json:"-"`
}

// PeerStats counts what the carriers of one peer brought and took since the peer became known: packets dropped on
// arrival are received ones, and errors sent to the peer are sent ones.
type PeerStats struct {
	ReceivedPackets, ReceivedBytes uint64
	SentPackets, SentBytes         uint64
}

// Stats reads the counters. Each is exact; together they are not one instant.
func (e *Engine) Stats() Stats {
	s := Stats{Drops: make(map[string]uint64, reasonCount), Peers: make(map[PeerID]PeerStats)}
	for r := range reasonCount {
		s.Drops[r.String()] = e.drops[r].Load()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, p := range e.peers {
		s.Peers[id] = PeerStats{
			ReceivedPackets: p.receivedPackets.Load(), ReceivedBytes: p.receivedBytes.Load(),
			SentPackets: p.sentPackets.Load(), SentBytes: p.sentBytes.Load(),
		}
	}
	return s
}
