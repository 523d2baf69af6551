package lane

import (
	"fmt"
	"slices"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/kem"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// Start offers the lane over a session whose client this side is. It can be called once.
func (n *Negotiation) Start(session *Session, now int64) (Output, error) {
	n.advance(now)
	if n.stage != stageNew || n.side != keyschedule.Client || session == nil || session.Role != keyschedule.Client {
		return n.take(), ErrIgnored
	}
	key, err := kem.Generate()
	if err != nil {
		n.close(ReasonInternal, false)
		return n.take(), fmt.Errorf("offer a lane: %w: %w", ErrInternal, err)
	}
	n.stage, n.session, n.offerKey = stageOffered, session, key
	n.deadline = n.nowNanos + int64(AnswerWithin)
	n.ratchet.sentNanos = n.nowNanos
	offer := Offer{
		Number: n.config.Number, QuarterStreamID: n.config.QuarterStreamID,
		MaxPacketBytes: uint16(n.config.MaxPacketBytes), Suites: n.config.Suites,
		Contexts: n.config.contexts(n.side), IssuedIDs: n.firstIDs(),
	}
	copy(offer.PublicKey[:], key.Public())
	n.offer = n.send(session, &offer)
	n.offerID = OfferIDOf(n.offer)
	return n.take(), nil
}

// onOffer makes the lane at its server.
func (n *Negotiation) onOffer(from *Session, m *Offer, payload []byte) error {
	id := OfferIDOf(payload)
	if n.stage == stageLive && from == n.session && n.accept != nil && id == n.offerID {
		n.resend(from, n.accept)
		return nil
	}
	if n.stage != stageNew || n.side != keyschedule.Server || from.Role != keyschedule.Server ||
		m.Number != n.config.Number {
		return ErrIgnored
	}
	n.offerID = id
	suite, ok := aead.Choose(m.Suites, n.config.Suites)
	if !ok {
		return n.refuse(from, ReasonSuite, nil)
	}
	ciphertext, shared, err := kem.Encapsulate(m.PublicKey[:])
	if err != nil {
		return n.refuse(from, ReasonProtocol, fmt.Errorf("public key of an offer: %w: %w", ErrViolation, err))
	}
	defer shared.Wipe()
	n.stage, n.session = stageLive, from
	accept := Accept{
		Number: m.Number, Offer: id, Suite: suite, MaxPacketBytes: uint16(n.config.MaxPacketBytes),
		Contexts: n.config.contexts(n.side), IssuedIDs: n.firstIDs(),
	}
	copy(accept.Ciphertext[:], ciphertext)
	n.accept = n.send(from, &accept)
	n.ratchet.sentNanos = n.nowNanos
	err = n.settleOffer(m, &accept, shared, payload, n.accept)
	if err != nil {
		n.out.Messages = nil // the accept must not leave
		return n.refuse(from, ReasonInternal, err)
	}
	return nil
}

func (n *Negotiation) refuse(to *Session, reason Reason, err error) error {
	n.close(reason, false)
	n.send(to, &Refusal{Number: n.config.Number, Offer: n.offerID, Reason: reason})
	return err
}

// onAccept makes the lane at its client.
func (n *Negotiation) onAccept(from *Session, m *Accept, payload []byte) error {
	if n.stage != stageOffered || from != n.session || m.Offer != n.offerID {
		return ErrIgnored
	}
	offered, err := Parse(n.offer)
	if err != nil {
		return err
	}
	offer, ok := offered.(*Offer)
	if !ok || m.Number != n.config.Number || !slices.Contains(n.config.Suites, m.Suite) {
		n.close(ReasonProtocol, false)
		return fmt.Errorf("accept of lane %d with %v: %w", m.Number, m.Suite, ErrViolation)
	}
	shared, err := n.offerKey.Decapsulate(m.Ciphertext[:])
	n.offerKey.Wipe()
	if err != nil {
		n.close(ReasonProtocol, false)
		return fmt.Errorf("ciphertext of an accept: %w: %w", ErrViolation, err)
	}
	defer shared.Wipe()
	n.stage, n.deadline = stageLive, 0
	err = n.settleOffer(offer, m, shared, n.offer, payload)
	if err != nil {
		n.close(ReasonInternal, true)
		return err
	}
	n.offer, n.offerKey = nil, nil
	n.seal()
	n.startPing()
	return nil
}

// settleOffer derives epoch 0 and says what was agreed. The server does not seal with it yet.
func (n *Negotiation) settleOffer(o *Offer, a *Accept, shared kem.Shared, offer, accept []byte) error {
	hash := n.transcript(offer, accept)
	n.id, n.suite = ID(hash[:IDBytes]), a.Suite
	n.ratchet.tokens, n.ratchet.refilledNanos = ratchetBurst, n.nowNanos
	n.limit = aead.PacketLimit(int(max(o.MaxPacketBytes, a.MaxPacketBytes)))
	x, err := n.session.exporter(hash)
	if err != nil {
		return err
	}
	defer clear(x[:])
	chain, err := keyschedule.New(x, shared)
	if err != nil {
		return fmt.Errorf("first epoch: %w: %w", ErrInternal, err)
	}
	e := n.newEpoch(chain)
	if n.side == keyschedule.Client {
		n.epochs.current = e
	} else {
		n.epochs.next = e
	}
	open, err := chain.HeaderKey(n.config.Number, n.side.Peer(), n.suite)
	if err != nil {
		return fmt.Errorf("header key: %w: %w", ErrInternal, err)
	}
	seal, err := chain.HeaderKey(n.config.Number, n.side, n.suite)
	if err != nil {
		return fmt.Errorf("header key: %w: %w", ErrInternal, err)
	}
	p := &Params{
		Lane: n.id, Number: n.config.Number, Side: n.side, Suite: n.suite, HeaderOpen: open, HeaderSeal: seal,
		QuarterStreamID: o.QuarterStreamID, TakeBytes: n.config.MaxPacketBytes, PacketLimit: n.limit,
		Take: n.config.contexts(n.side),
	}
	peerIDs := &o.IssuedIDs
	p.SendBytes, p.Send = int(o.MaxPacketBytes), o.Contexts
	if n.side == keyschedule.Client {
		peerIDs, p.SendBytes, p.Send = &a.IssuedIDs, int(a.MaxPacketBytes), a.Contexts
	}
	n.ids.begin(peerIDs)
	p.PeerIDs = *peerIDs
	n.emit(Event{Kind: EventReady, Params: p})
	return n.install(e)
}
