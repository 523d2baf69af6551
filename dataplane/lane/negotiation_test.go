package lane

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/keyschedule"
)

// issuer hands out connection IDs of one node.
type issuer struct {
	node byte
	next uint32
}

func keyed(node byte) *issuer { return &issuer{node: node} }

func (i *issuer) issue() (ConnectionID, ResetToken) {
	i.next++
	var id ConnectionID
	id[1] = i.node
	binary.BigEndian.PutUint32(id[4:], i.next)
	return id, ResetToken(append(id[:], id[:]...))
}

// testConfig is that of node 1 or 2, each the other's peer.
func testConfig(i *issuer) Config {
	return Config{
		Local: NodeID{i.node}, Peer: NodeID{3 - i.node}, MaxPacketBytes: 1500,
		Suites: []aead.Suite{aead.AES256GCM, aead.ChaCha20Poly1305}, Contexts: []ContextKind{ContextPartialChecksum},
		Issue: i.issue,
	}
}

func exchange(t *testing.T, n *Negotiation, from *Session, payload []byte, now int64) Output {
	t.Helper()
	out, err := n.Step(from, payload, now)
	if err != nil {
		t.Fatalf("step %v: %v", Kind(payload[0]), err)
	}
	return out
}

func message(t *testing.T, out Output, kind Kind) []byte {
	t.Helper()
	for _, m := range out.Messages {
		if Kind(m.Payload[0]) == kind {
			return m.Payload
		}
	}
	t.Fatalf("no %v in %d messages", kind, len(out.Messages))
	return nil
}

func kinds(out Output) []EventKind {
	var list []EventKind
	for _, e := range out.Events {
		list = append(list, e.Kind)
	}
	return list
}

func event(t *testing.T, out Output, kind EventKind) Event {
	t.Helper()
	for _, e := range out.Events {
		if e.Kind == kind {
			return e
		}
	}
	t.Fatalf("no %v among %v", kind, kinds(out))
	return Event{}
}

func wantEvents(t *testing.T, out Output, want ...EventKind) {
	t.Helper()
	if got := kinds(out); !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
}

// ends is two machines with a session between them. Node 1 is the lane's client.
type ends struct {
	t              *testing.T
	client, server *Negotiation
	cs, ss         *Session
	now            int64
}

func sessionPair(name string, client keyschedule.Role) (atClient, atServer *Session) {
	return &Session{Role: client, Export: refExport(name)}, &Session{Role: client.Peer(), Export: refExport(name)}
}

// newEnds makes a lane that both seal on.
func newEnds(t *testing.T) *ends {
	t.Helper()
	p := &ends{t: t, client: must(NewClient(testConfig(keyed(1)))), server: must(NewServer(testConfig(keyed(2)))), now: second}
	p.cs, p.ss = sessionPair("one", keyschedule.Client)
	out, err := p.client.Start(p.cs, p.now)
	if err != nil {
		t.Fatal(err)
	}
	wantEvents(t, out, EventIssue, EventIssue, EventIssue, EventIssue)
	out = exchange(t, p.server, p.ss, message(t, out, KindOffer), p.now)
	wantEvents(t, out, EventIssue, EventIssue, EventIssue, EventIssue, EventReady, EventInstall)
	out = exchange(t, p.client, p.cs, message(t, out, KindAccept), p.now)
	wantEvents(t, out, EventReady, EventInstall, EventSeal, EventPing)
	wantEvents(t, p.server.Opened(0, p.now), EventSeal)
	wantEvents(t, p.client.Opened(0, p.now))
	return p
}

// request lets the client begin a ratchet at 120 s.
func (p *ends) request() []byte {
	p.t.Helper()
	p.now += int64(RatchetAfter)
	return message(p.t, p.client.Tick(p.now), KindRatchetRequest)
}

func TestEndsOfSessions(t *testing.T) {
	p := newEnds(t)
	other, _ := sessionPair("other", keyschedule.Client)
	wantEvents(t, p.client.SessionEnded(other, true, p.now))
	if e := event(t, p.client.SessionEnded(p.cs, true, p.now), EventClosed); e.Reason != ReasonSessionEnded {
		t.Errorf("closed for %v", e.Reason)
	}
	if out, err := p.client.Step(p.cs, (&Close{Lane: p.client.id}).Append(nil), p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("%v, %v", out, err)
	}
	out := p.server.Close(ReasonRevoked, p.now)
	if m := must(Parse(message(t, out, KindClose))).(*Close); m.Reason != ReasonRevoked {
		t.Errorf("close for %v", m.Reason)
	}
	wantEvents(t, p.server.Close(ReasonDown, p.now))
}

func TestCloseFromThePeer(t *testing.T) {
	p := newEnds(t)
	id, _ := p.client.ID()
	if _, err := p.client.Step(p.cs, (&Close{Lane: ID{1}, Reason: ReasonDown}).Append(nil), p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("close of another lane: %v", err)
	}
	stale, _ := sessionPair("stale", keyschedule.Client)
	if _, err := p.client.Step(stale, (&Close{Lane: id, Reason: ReasonDown}).Append(nil), p.now); !errors.Is(err, ErrIgnored) {
		t.Errorf("close over another session: %v", err)
	}
	out := exchange(t, p.client, p.cs, (&Close{Lane: id, Reason: ReasonDown}).Append(nil), p.now)
	if event(t, out, EventClosed).Reason != ReasonDown || len(out.Messages) != 0 {
		t.Errorf("%+v", out)
	}
}

// TestViolations has one row for each message that a peer may not send in that state; each closes the lane.
func TestViolations(t *testing.T) {
	request := func(edit func(m *RatchetRequest)) func(p *ends) ([]byte, bool) {
		return func(p *ends) ([]byte, bool) {
			m := must(Parse(p.request())).(*RatchetRequest)
			edit(m)
			return m.Append(nil), true
		}
	}
	answer := func(edit func(m *RatchetAnswer)) func(p *ends) ([]byte, bool) {
		return func(p *ends) ([]byte, bool) {
			out := exchange(p.t, p.server, p.ss, p.request(), p.now)
			m := must(Parse(message(p.t, out, KindRatchetAnswer))).(*RatchetAnswer)
			edit(m)
			return m.Append(nil), false
		}
	}
	for name, craft := range map[string]func(p *ends) (payload []byte, toServer bool){
		"epoch left out":      request(func(m *RatchetRequest) { m.Epoch = 2 }),
		"bad public key":      request(func(m *RatchetRequest) { clearTo(m.PublicKey[:1184], 0xff) }),
		"low-order X25519":    request(func(m *RatchetRequest) { clearTo(m.PublicKey[1184:], 0) }),
		"retired unissued":    request(func(m *RatchetRequest) { m.Renewal.Retired = []uint32{4} }),
		"ID changed":          request(func(m *RatchetRequest) { m.Renewal.Issued[0].ID[5] ^= 1 }),
		"token changed":       request(func(m *RatchetRequest) { m.Renewal.Issued[0].Token[5] ^= 1 }),
		"ID withdrawn":        request(func(m *RatchetRequest) { m.Renewal.Issued = m.Renewal.Issued[1:] }),
		"ID under new number": request(func(m *RatchetRequest) { m.Renewal.Issued[3].Sequence = 4 }),
		"answer withdraws":    answer(func(m *RatchetAnswer) { m.Renewal.Issued = m.Renewal.Issued[1:] }),
		"answer low-order":    answer(func(m *RatchetAnswer) { clearTo(m.Ciphertext[1088:], 0) }),
		"answer retires":      answer(func(m *RatchetAnswer) { m.Renewal.Retired = []uint32{9} }),
		"request to client": func(p *ends) ([]byte, bool) {
			return (&RatchetRequest{Lane: p.client.id, Epoch: 1, Renewal: testRenewal()}).Append(nil), false
		},
		"malformed": func(p *ends) ([]byte, bool) { return append(p.request(), 0), true },
	} {
		t.Run(name, func(t *testing.T) {
			p := newEnds(t)
			payload, toServer := craft(&ends{t, p.client, p.server, p.cs, p.ss, p.now})
			n, s := p.client, p.cs
			if toServer {
				n, s = p.server, p.ss
			}
			out, err := n.Step(s, payload, p.now)
			if !errors.Is(err, ErrViolation) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("taken: %v", err)
			}
			if e := event(t, out, EventClosed); e.Reason != ReasonProtocol {
				t.Errorf("closed for %v", e.Reason)
			}
			message(t, out, KindClose)
		})
	}
}

func clearTo(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

func TestConnectionIDsMove(t *testing.T) {
	p := newEnds(t)
	first := p.client.ids.peer[0].IssuedID
	if !p.client.RetirePeerID(0) || p.client.RetirePeerID(0) || p.client.RetirePeerID(9) {
		t.Error("retired wrongly")
	}
	out := exchange(t, p.server, p.ss, p.request(), p.now)
	wantEvents(t, out, EventIssue, EventInstall)
	fresh := event(t, out, EventIssue).ID
	wantEvents(t, p.server.Tick(p.now+int64(KeepFor)-1))
	if e := event(t, p.server.Tick(p.now+int64(KeepFor)), EventRetire); e.ID != first.ID {
		t.Errorf("retired %v", e.ID)
	}
	out = exchange(t, p.client, p.cs, message(t, out, KindRatchetAnswer), p.now)
	if ids := event(t, out, EventPeerIDs).PeerIDs; len(ids) != 1 || ids[0].ID != fresh || ids[0].Sequence != ConnectionIDs {
		t.Errorf("refilled with %+v", ids)
	}
}

// FuzzStep throws messages at both ends of a lane and sees that nothing panics, grows or leaves the lane half closed.
func FuzzStep(f *testing.F) {
	for _, m := range testMessages() {
		f.Add(m.Append(nil), true)
		f.Add(m.Append(nil), false)
	}
	f.Fuzz(func(t *testing.T, payload []byte, toServer bool) {
		p := newEnds(t)
		n, s := p.client, p.cs
		if toServer {
			n, s = p.server, p.ss
		}
		if len(payload) > 18 && Kind(payload[0]) > KindRefusal {
			copy(payload[2:], n.id[:]) // or nearly all would be for another lane
		}
		for range 3 {
			_, err := n.Step(s, payload, p.now)
			if errors.Is(err, ErrViolation) && !n.Closed() {
				t.Fatal("a violation leaves the lane open")
			}
		}
		if len(n.ids.own) > ConnectionIDs || len(n.ids.peer) > ConnectionIDs || len(n.ids.leaving) > maxLeaving {
			t.Fatal("memory grows")
		}
	})
}

// TestNextTick follows the machine's own times and sees that each call at one of them moves it on.
func TestNextTick(t *testing.T) {
	for _, side := range []func(p *ends) *Negotiation{
		func(p *ends) *Negotiation { return p.client }, func(p *ends) *Negotiation { return p.server },
	} {
		n := side(newEnds(t))
		last := int64(0)
		for ticks := 0; !n.Closed(); ticks++ {
			next := n.NextTick()
			if next <= last || ticks > 10 {
				t.Fatalf("tick %d at %d after %d", ticks, next, last)
			}
			n.Tick(next)
			last = next
		}
	}
}
