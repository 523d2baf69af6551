package lane

import (
	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

// EventKind says what an [Event] asks for.
type EventKind uint8

// The events.
const (
	// EventReady says that both sides agree: Params.
	EventReady EventKind = iota + 1
	// EventIssue asks to take packets for the connection ID ID.
	EventIssue
	// EventRetire asks to take none any more for the connection ID ID.
	EventRetire
	// EventPeerIDs says that the peer has issued PeerIDs: one for each new path ([Negotiation.RetirePeerID]).
	EventPeerIDs
	// EventInstall asks to open packets of Epoch with Open. A server may hand Seal over for the moment at which a packet
	// of the epoch has been opened ([Sealer.InstallAfter]); EventSeal then comes late and says nothing new.
	EventInstall
	// EventSeal asks to seal with Epoch and Seal from now on.
	EventSeal
	// EventSealStop asks to seal nothing: packets go over the session.
	EventSealStop
	// EventWipe asks to forget the keys of Epoch ([Opener.Expire], or [Sealer.Withdraw] for one that never sealed).
	EventWipe
	// EventPing asks to seal one packet with a PING at once.
	EventPing
	// EventAdopted says that the lane is bound to the new session and goes on with Epoch ([Opener.Keep]). Sealing keys
	// that wait to be taken are void ([Sealer.Withdraw]); EventSeal follows.
	EventAdopted
	// EventAdoptionFailed says that the lane cannot be adopted: a new one has to be made, and this one closed with
	// [Negotiation.Drop] once the new one carries packets.
	EventAdoptionFailed
	// EventClosed says that the lane is over, for Reason: all its keys and connection IDs are to be forgotten.
	EventClosed
)

// String names the kind for log lines.
func (k EventKind) String() string {
	names := [...]string{
		"none", "ready", "issue", "retire", "peer IDs", "install", "seal", "seal stop", "wipe", "ping", "adopted",
		"adoption failed", "closed",
	}
	if int(k) >= len(names) {
		return names[0]
	}
	return names[k]
}

// Event is one thing for the dataplane to do or for control to know. Only the fields that its kind names are set.
type Event struct {
	Kind    EventKind
	Epoch   uint32
	Open    *aead.PacketKey
	Seal    *aead.PacketKey
	ID      ConnectionID
	PeerIDs []IssuedID // in ascending order of sequence numbers
	Params  *Params
	Reason  Reason
}

// Outgoing is a message to send on a session, as the payload of a lane capsule.
type Outgoing struct {
	Session *Session
	Payload []byte
}

// Output is what a call leads to. The events come first, in their order, then the messages: an answer that says a key
// is installed must not overtake the key.
type Output struct {
	Events   []Event
	Messages []Outgoing
}

// take hands out what has gathered.
func (n *Negotiation) take() Output {
	out := n.out
	n.out = Output{}
	return out
}

func (n *Negotiation) emit(e Event) { n.out.Events = append(n.out.Events, e) }

func (n *Negotiation) send(to *Session, m Message) []byte {
	payload := m.Append(nil)
	n.resend(to, payload)
	return payload
}

func (n *Negotiation) resend(to *Session, payload []byte) {
	n.out.Messages = append(n.out.Messages, Outgoing{Session: to, Payload: payload})
}
