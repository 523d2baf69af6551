package lane

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/kem"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// Times of a lane's life. PROTOCOL.md says what each is for.
const (
	// RatchetAfter is the age of an epoch at which the session's client begins the next one.
	RatchetAfter = 120 * time.Second
	// SealFor is how long an epoch seals at most: a lane without a ratchet falls silent after it.
	SealFor = 180 * time.Second
	// KeepFor is how long what is no longer used is kept for packets still under way: the keys of an epoch after the
	// first packet of the next one, and after [SealFor]; a connection ID that the peer has retired.
	KeepFor = 3 * time.Second
	// AnswerWithin is how long an offer and a request to adopt wait for their answer.
	AnswerWithin = 10 * time.Second

	firstPingAfter = 250 * time.Millisecond
	maxPingAfter   = 5 * time.Second
)

// A client gets this many ratchets at once and one more per ratchetRefill; a ratchet costs the server a KEM.
const (
	ratchetBurst  = 16
	ratchetRefill = time.Second
)

// Errors of the methods of [Negotiation]. Peek's and Parse's come on top.
var (
	// ErrIgnored says that a message or call is out of place and changed nothing: a duplicate, one of another session,
	// one for a lane that is closed.
	ErrIgnored = errors.New("out of place")
	// ErrViolation says that the other side broke the protocol; the lane is closed.
	ErrViolation = errors.New("lane protocol violation")
	// ErrInternal says that keys could not be made; the lane is closed.
	ErrInternal = errors.New("lane keys could not be made")
	// ErrConfig says that a Config is out of bounds.
	ErrConfig = errors.New("bad lane configuration")
)

// NodeID names a node, as crypto/identity does.
type NodeID [32]byte

// Session is what a [Negotiation] has to know of an HTTP/3 session with the peer. The pointer is its identity: one
// Session value per session. Whoever makes it has checked that the other end is the node of [Config.Peer].
type Session struct {
	// Role is this side's in the session.
	Role keyschedule.Role
	// Export is the TLS exporter (RFC 8446 section 7.5).
	Export func(label string, context []byte, length int) ([]byte, error)
}

// Config is this side's part of a lane.
type Config struct {
	Local, Peer NodeID
	// Number is the lane's, 0 to [MaxLaneNumber].
	Number uint8
	// QuarterStreamID is the session's, at most [MaxQuarterStreamID]. Only the client's counts.
	QuarterStreamID uint8
	// MaxPacketBytes is the longest UDP payload that this side takes, [MinMaxPacketBytes] to [MaxMaxPacketBytes].
	MaxPacketBytes int
	// Suites are those allowed here, best first for this machine; see [aead.Preferred].
	Suites []aead.Suite
	// Contexts are the kinds that this side takes, none twice.
	Contexts []ContextKind
	// Issue returns a connection ID that it never returns again, and its token.
	Issue func() (ConnectionID, ResetToken)
}

func (c *Config) check() error {
	kinds := make(map[ContextKind]bool)
	for _, k := range c.Contexts {
		kinds[k] = true
	}
	switch {
	case c.Number > MaxLaneNumber, c.QuarterStreamID > MaxQuarterStreamID:
		return fmt.Errorf("lane %d, quarter stream %d: %w", c.Number, c.QuarterStreamID, ErrConfig)
	case c.MaxPacketBytes < MinMaxPacketBytes || c.MaxPacketBytes > MaxMaxPacketBytes:
		return fmt.Errorf("packets of %d bytes: %w", c.MaxPacketBytes, ErrConfig)
	case len(c.Suites) == 0 || len(c.Suites) > MaxSuites || !allSuites(c.Suites):
		return fmt.Errorf("suites %v: %w", c.Suites, ErrConfig)
	case len(c.Contexts) > MaxContexts || len(kinds) != len(c.Contexts):
		return fmt.Errorf("contexts %v: %w", c.Contexts, ErrConfig)
	case c.Issue == nil || c.Local == c.Peer:
		return fmt.Errorf("no source of connection IDs, or a lane to oneself: %w", ErrConfig)
	}
	return nil
}

func allSuites(list []aead.Suite) bool {
	for i, s := range list {
		if !s.Valid() || slices.Contains(list[:i], s) {
			return false
		}
	}
	return true
}

// contexts numbers the kinds that this side takes: even numbers for the lane's client, odd ones for its server.
func (c *Config) contexts(side keyschedule.Role) []Context {
	var list []Context
	id := uint8(2)
	if side == keyschedule.Server {
		id = 1
	}
	for _, k := range c.Contexts {
		list = append(list, Context{ID: id, Kind: k})
		id += 2
	}
	return list
}

// Params is what both sides have agreed on, for the lane's life.
type Params struct {
	Lane ID
	// Number is the lane's.
	Number uint8
	// Side is this side's role in the lane: that of the session that made it.
	Side                   keyschedule.Role
	Suite                  aead.Suite
	HeaderOpen, HeaderSeal *aead.HeaderKey
	QuarterStreamID        uint8
	// SendBytes and TakeBytes are the longest UDP payloads that the peer takes, and that this side takes.
	SendBytes, TakeBytes int
	// PacketLimit is how many packets one key seals at most.
	PacketLimit uint64
	// Send are the contexts that the peer takes, unknown kinds among them; Take are this side's.
	Send, Take []Context
	// PeerIDs are the peer's connection IDs: the first to begin with, the others one for each new path.
	PeerIDs [ConnectionIDs]IssuedID
}

type stage uint8

const (
	stageNew stage = iota
	stageOffered
	stageLive
	stageClosed
)

// Negotiation is the state of one lane at one side, from the offer to the end. It does no I/O and reads no clock: time
// is an argument of each call, in nanoseconds of a monotonic clock, and what is to be done comes back as [Output].
// It is not safe for concurrent use. All its memory is bounded, whatever the peer sends.
type Negotiation struct {
	config   Config
	side     keyschedule.Role
	stage    stage
	nowNanos int64
	out      Output

	session  *Session // that the lane is bound to; nil after an abrupt loss
	offer    []byte   // exact bytes, until the lane lives
	accept   []byte   // exact bytes, at the server until the client has shown that it has them
	offerID  OfferID
	offerKey *kem.PrivateKey
	deadline int64 // of an offer or of a request to adopt; 0 is none
	id       ID
	suite    aead.Suite
	limit    uint64 // packets per key

	epochs  epochs
	ratchet ratchetState
	adopt   adoptState
	ids     idState
}

// NewClient returns the offering side of a lane. It sends nothing before [Negotiation.Start].
func NewClient(c Config) (*Negotiation, error) { return newNegotiation(c, keyschedule.Client) }

// NewServer returns the accepting side of a lane, which waits for an offer.
func NewServer(c Config) (*Negotiation, error) { return newNegotiation(c, keyschedule.Server) }

func newNegotiation(c Config, side keyschedule.Role) (*Negotiation, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.Suites, c.Contexts = slices.Clone(c.Suites), slices.Clone(c.Contexts)
	return &Negotiation{config: c, side: side}, nil
}

// Format prints nothing of what is inside.
func (*Negotiation) Format(state fmt.State, _ rune) { _, _ = io.WriteString(state, redacted) }

// ID returns the lane's name, and whether it has one yet.
func (n *Negotiation) ID() (ID, bool) { return n.id, n.id != ID{} }

// Number returns the lane's number.
func (n *Negotiation) Number() uint8 { return n.config.Number }

// Bound returns the session that the lane is bound to, or nil.
func (n *Negotiation) Bound() *Session { return n.session }

// Live reports whether the lane exists: offer and accept are through, and it is not closed.
func (n *Negotiation) Live() bool { return n.stage == stageLive }

// Closed reports whether the lane is over.
func (n *Negotiation) Closed() bool { return n.stage == stageClosed }

// Offered returns the name of the offer that this lane comes from, and whether there is one.
func (n *Negotiation) Offered() (OfferID, bool) { return n.offerID, n.offerID != OfferID{} }

// Step takes a message that came over a session, after doing what time requires. It must not be called for a session
// whose other end is not [Config.Peer]. The error wraps [ErrMalformed], [ErrUnknownKind], [ErrIgnored], [ErrViolation]
// or [ErrInternal]; the Output counts in any case.
func (n *Negotiation) Step(from *Session, payload []byte, now int64) (Output, error) {
	n.advance(now)
	if from == nil {
		return n.take(), ErrIgnored
	}
	m, err := Parse(payload)
	if errors.Is(err, ErrMalformed) && from == n.session && n.stage == stageLive {
		n.close(ReasonProtocol, true)
	}
	if err == nil {
		err = n.step(from, m, payload)
	}
	return n.take(), err
}

func (n *Negotiation) step(from *Session, m Message, payload []byte) error {
	switch m := m.(type) {
	case *Offer:
		return n.onOffer(from, m, payload)
	case *Accept:
		return n.onAccept(from, m, payload)
	case *Refusal:
		if n.stage != stageOffered || from != n.session || m.Offer != n.offerID {
			return ErrIgnored
		}
		n.close(m.Reason, false)
		return nil
	case *AdoptRequest:
		return n.onAdoptRequest(from, m)
	}
	// The others belong to the session that the lane is bound to: a late one of an earlier session moves nothing.
	if n.stage != stageLive || from != n.session {
		return ErrIgnored
	}
	h, err := Peek(payload)
	if err != nil {
		return err
	}
	if ID(h.ID) != n.id {
		return ErrIgnored
	}
	switch m := m.(type) {
	case *RatchetRequest:
		return n.onRatchetRequest(m, payload)
	case *RatchetAnswer:
		return n.onRatchetAnswer(m, payload)
	case *AdoptAnswer:
		return n.onAdoptAnswer(m)
	case *Close:
		n.close(m.Reason, false)
	}
	return nil
}

// Refuse answers a message for which there is no Negotiation: an offer is refused with reason, and a lane to adopt is
// unknown. All other messages are [ErrIgnored].
func Refuse(payload []byte, reason Reason) ([]byte, error) {
	m, err := Parse(payload)
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *Offer:
		return (&Refusal{Number: m.Number, Offer: OfferIDOf(payload), Reason: reason}).Append(nil), nil
	case *AdoptRequest:
		return (&AdoptAnswer{Number: m.Number, Lane: m.Lane, Status: AdoptUnknown}).Append(nil), nil
	}
	return nil, ErrIgnored
}

// transcript hashes what both sides have said and who they are: for both roles the role (1 byte) and the node ID,
// client first, then offer and accept, each after its length in 4 bytes.
func (n *Negotiation) transcript(offer, accept []byte) [sha256.Size]byte {
	client, server := n.config.Local, n.config.Peer
	if n.side == keyschedule.Server {
		client, server = server, client
	}
	t := append([]byte{byte(keyschedule.Client)}, client[:]...)
	t = append(append(t, byte(keyschedule.Server)), server[:]...)
	for _, m := range [][]byte{offer, accept} {
		t = append(binary.BigEndian.AppendUint32(t, uint32(len(m))), m...)
	}
	return sha256.Sum256(t)
}

// exporter returns the session's exporter value for a context.
func (s *Session) exporter(context [sha256.Size]byte) (*keyschedule.Exporter, error) {
	value, err := s.Export(keyschedule.ExporterLabel, context[:], keyschedule.SecretBytes)
	if err != nil {
		return nil, fmt.Errorf("exporter value: %w: %w", ErrInternal, err)
	}
	defer clear(value)
	if len(value) != keyschedule.SecretBytes {
		return nil, fmt.Errorf("exporter value of %d bytes: %w", len(value), ErrInternal)
	}
	x := keyschedule.Exporter(value)
	return &x, nil
}
