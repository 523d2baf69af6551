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
	DropQueueFull                    // the way to the peer, or the host, does not keep up, and the queue is full
	DropQueueDelay                   // it waited in a queue for too long for too long (CoDel, RFC 8289)
	DropTooBig                       // longer than the carrier takes; the sender gets Packet Too Big
	DropHopLimit                     // TTL or hop limit used up between two peers
	DropNICRefused                   // the host's network stack refused a write; a joined super-packet counts once
	DropNICUnreadable                // what the host handed over could not be read as packets; counts once per read
	DropOffload                      // the host's request to cut it, or to complete its checksum, does not fit the packet
	DropCongestion                   // the outer packet met congestion, which the inner one cannot report (RFC 6040)
	DropLaneForged                   // a lane packet that does not open: forged, damaged or of a key that is gone
	DropLaneEnded                    // a lane packet that comes when the lane has just ended
	DropLaneReplayed                 // a lane packet that was opened before, or is too old to tell
	DropLaneFrames                   // a lane packet whose frames, or context, are not what was agreed
	DropPieces                       // a packet that was sent in pieces and did not become whole again
	DropLaneKey                      // the lane's key may seal no more
	DropSend                         // the host could not send the lane packet: no way out, no memory, too long for the link
	reasonCount
)

var reasonNames = [reasonCount]string{
	"malformed", "not_forwardable", "source_not_assigned", "no_route", "no_session", "queue_full", "queue_delay", "too_big",
	"hop_limit", "nic_refused", "nic_unreadable", "offload", "congestion", "lane_forged", "lane_ended",
	"lane_replayed", "lane_frames", "lane_pieces", "lane_key", "send_failed",
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
	Lane                           *LaneStats // nil while packets go through carriers
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
			SentPackets: p.sentPackets.Load(), SentBytes: p.sentBytes.Load(), Lane: p.lane.Load().stats(),
		}
	}
	return s
}
