package control

import (
	"fmt"
	"net/netip"
	"time"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventListening    EventKind = "listening"    // a gateway takes sessions
	EventDialing      EventKind = "dialing"      // a member tries to reach the gateway
	EventDialFailed   EventKind = "dial_failed"  // none of the gateway's addresses answered
	EventJoined       EventKind = "joined"       // an invite was redeemed
	EventConnected    EventKind = "connected"    // a session is up
	EventDisconnected EventKind = "disconnected" // a session ended
	EventReady        EventKind = "ready"        // packets pass
	EventRoutes       EventKind = "routes"       // routes offered, approved or withdrawn
	EventRevoked      EventKind = "revoked"      // a node lost its admission
	EventNotice       EventKind = "notice"       // something the operator should know
	EventAddress      EventKind = "address"      // the gateway's own addresses changed
)

// Event is one fact for people, status lines and logs. It holds no secrets.
type Event struct {
	Kind     EventKind
	Node     string         // name of the other node, when there is one
	Remote   netip.AddrPort // where the other node is
	Prefixes []netip.Prefix // addresses or routes concerned
	Group    string         // negotiated key exchange of a connected session
	RTT      time.Duration  // round trip measured, zero when not
	Text     string         // free text, one line
	Err      error          // cause, when there is one
}

// String is the status line of the event, without a time, safe for a terminal: parts of it are peers' words.
func (e Event) String() string { return printable([]byte(e.line())) }

func (e Event) line() string {
	line := string(e.Kind)
	if e.Node != "" {
		line += " " + e.Node
	}
	for _, p := range e.Prefixes {
		line += " " + p.String()
	}
	if e.Remote.IsValid() {
		line += " at " + e.Remote.String()
	}
	if e.Group != "" {
		line += ", " + e.Group
	}
	if e.RTT > 0 {
		line += fmt.Sprintf(", rtt %s", e.RTT.Round(10*time.Microsecond))
	}
	if e.Text != "" {
		line += ": " + e.Text
	}
	if e.Err != nil {
		line += ": " + e.Err.Error()
	}
	return line
}
