package lane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/kem"
)

func testIDs() [ConnectionIDs]IssuedID {
	var ids [ConnectionIDs]IssuedID
	for i := range ids {
		ids[i] = IssuedID{Sequence: uint32(i), ID: ConnectionID{byte(i), 7}, Token: ResetToken{byte(i), 9}}
	}
	return ids
}

func testOffer() *Offer {
	return &Offer{
		Number: 3, QuarterStreamID: 5, MaxPacketBytes: 1500, Suites: []aead.Suite{aead.AES256GCM, 200},
		Contexts:  []Context{{2, ContextPartialChecksum}, {62, ContextKind(99)}},
		IssuedIDs: testIDs(), PublicKey: [kem.PublicBytes]byte{1, 2, 3},
	}
}

func testRenewal() Renewal {
	ids := testIDs()
	return Renewal{Retired: []uint32{0, 4000000000}, Issued: ids[1:]}
}

// testMessages has one of each kind.
func testMessages() []Message {
	return []Message{
		testOffer(),
		&Accept{
			Number: 3, Offer: OfferID{1}, Suite: aead.AES128GCM, MaxPacketBytes: 65507,
			Contexts: []Context{{1, ContextPiece}}, IssuedIDs: testIDs(), Ciphertext: [kem.CiphertextBytes]byte{4},
		},
		&Refusal{Number: 1, Offer: OfferID{2}, Reason: ReasonSuite},
		&RatchetRequest{Number: 15, Lane: ID{3}, Epoch: 1, Renewal: testRenewal(), PublicKey: [kem.PublicBytes]byte{5}},
		&RatchetAnswer{Lane: ID{3}, Epoch: 1 << 31, Renewal: testRenewal(), Ciphertext: [kem.CiphertextBytes]byte{6}},
		&AdoptRequest{Lane: ID{4}, Attempt: 1, Proofs: []Proof{{Epoch: 0, MAC: [32]byte{7}}, {Epoch: 9}}},
		&AdoptAnswer{Lane: ID{4}, Status: AdoptDone, Attempt: 1, Proofs: []Proof{{Epoch: 8}}},
		&AdoptAnswer{Lane: ID{4}, Status: AdoptUnknown},
		&Close{Lane: ID{5}, Reason: ReasonDown},
	}
}

func TestMessagesSurviveTheirCodec(t *testing.T) {
	for _, m := range testMessages() {
		payload := m.Append([]byte("x"))[1:]
		got, err := Parse(payload)
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if again := got.Append(nil); !bytes.Equal(again, payload) {
			t.Errorf("%T: %x became %x", m, payload, again)
		}
		if h, err := Peek(payload); err != nil || h.Kind != Kind(payload[0]) || h.Number != payload[1] {
			t.Errorf("%T: header %+v, %v", m, h, err)
		}
	}
}

// TestTruncatedMessages cuts every message at every place, and adds a byte to it.
func TestTruncatedMessages(t *testing.T) {
	for _, m := range testMessages() {
		payload := m.Append(nil)
		for n := range payload {
			if _, err := Parse(payload[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T cut to %d of %d bytes: %v", m, n, len(payload), err)
			}
		}
		if _, err := Parse(append(payload, 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%T with a byte more: %v", m, err)
		}
	}
}

func TestMalformedMessages(t *testing.T) {
	change := func(edit func(o *Offer)) Message {
		o := testOffer()
		edit(o)
		return o
	}
	ratchet := func(r Renewal, epoch uint32) Message {
		return &RatchetRequest{Epoch: epoch, Renewal: r}
	}
	ids := testIDs()
	twice := []IssuedID{ids[0], {Sequence: 1, ID: ids[0].ID}}
	for name, m := range map[string]Message{
		"lane number":              change(func(o *Offer) { o.Number = 16 }),
		"quarter stream ID":        change(func(o *Offer) { o.QuarterStreamID = 64 }),
		"packets too short":        change(func(o *Offer) { o.MaxPacketBytes = 1199 }),
		"packets too long":         change(func(o *Offer) { o.MaxPacketBytes = 65508 }),
		"no suite":                 change(func(o *Offer) { o.Suites = nil }),
		"suite twice":              change(func(o *Offer) { o.Suites = []aead.Suite{1, 1} }),
		"suite 0":                  change(func(o *Offer) { o.Suites = []aead.Suite{0} }),
		"nine suites":              change(func(o *Offer) { o.Suites = []aead.Suite{1, 2, 3, 4, 5, 6, 7, 8, 9} }),
		"context of the other end": change(func(o *Offer) { o.Contexts = []Context{{1, 1}} }),
		"context 0":                change(func(o *Offer) { o.Contexts = []Context{{0, 1}} }),
		"context of two bytes":     change(func(o *Offer) { o.Contexts = []Context{{64, 1}} }),
		"contexts descending":      change(func(o *Offer) { o.Contexts = []Context{{4, 1}, {2, 2}} }),
		"context twice":            change(func(o *Offer) { o.Contexts = []Context{{2, 1}, {2, 2}} }),
		"kind of context twice":    change(func(o *Offer) { o.Contexts = []Context{{2, 1}, {4, 1}} }),
		"32 contexts":              change(func(o *Offer) { o.Contexts = make([]Context, 32) }),
		"connection ID twice":      change(func(o *Offer) { o.IssuedIDs[3].ID = o.IssuedIDs[0].ID }),
		"even context of a server": &Accept{Suite: 1, MaxPacketBytes: 1500, IssuedIDs: ids, Contexts: []Context{{2, 1}}},
		"unknown suite accepted":   &Accept{Suite: 4, MaxPacketBytes: 1500, IssuedIDs: ids},
		"no suite accepted":        &Accept{MaxPacketBytes: 1500, IssuedIDs: ids},
		"accept: packets short":    &Accept{Suite: 1, MaxPacketBytes: 1, IssuedIDs: ids},
		"accept: lane number":      &Accept{Number: 200, Suite: 1, MaxPacketBytes: 1500, IssuedIDs: ids},
		"ratchet to epoch 0":       ratchet(testRenewal(), 0),
		"answer for epoch 0":       &RatchetAnswer{Renewal: testRenewal()},
		"nothing issued":           ratchet(Renewal{}, 1),
		"five issued":              ratchet(Renewal{Issued: append(ids[:], IssuedID{Sequence: 9, ID: ConnectionID{9}})}, 1),
		"issued descending":        ratchet(Renewal{Issued: []IssuedID{ids[1], ids[0]}}, 1),
		"issued twice":             ratchet(Renewal{Issued: []IssuedID{ids[1], ids[1]}}, 1),
		"one ID, two numbers":      ratchet(Renewal{Issued: twice}, 1),
		"retired descending":       ratchet(Renewal{Issued: ids[:], Retired: []uint32{2, 1}}, 1),
		"retired twice":            ratchet(Renewal{Issued: ids[:], Retired: []uint32{2, 2}}, 1),
		"five retired":             ratchet(Renewal{Issued: ids[:], Retired: []uint32{1, 2, 3, 4, 5}}, 1),
		"no proof":                 &AdoptRequest{Attempt: 1},
		"attempt 0":                &AdoptRequest{Proofs: []Proof{{Epoch: 1}}},
		"three proofs":             &AdoptRequest{Attempt: 1, Proofs: []Proof{{Epoch: 1}, {Epoch: 2}, {Epoch: 3}}},
		"proofs descending":        &AdoptRequest{Attempt: 1, Proofs: []Proof{{Epoch: 2}, {Epoch: 1}}},
		"proof twice":              &AdoptRequest{Attempt: 1, Proofs: []Proof{{Epoch: 1}, {Epoch: 1}}},
		"status":                   &AdoptAnswer{Status: 4, Attempt: 1},
		"done without proof":       &AdoptAnswer{Status: AdoptDone, Attempt: 1},
		"failed with proof":        &AdoptAnswer{Status: AdoptFailed, Attempt: 1, Proofs: []Proof{{Epoch: 1}}},
		"unknown with an attempt":  &AdoptAnswer{Status: AdoptUnknown, Attempt: 1},
		"stale without an attempt": &AdoptAnswer{Status: AdoptStale},
		"close: lane number":       &Close{Number: 16},
	} {
		if _, err := Parse(m.Append(nil)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnknownKindsAreNotMalformed(t *testing.T) {
	for _, kind := range []byte{0, 9, 255} {
		payload := append([]byte{kind, 99}, make([]byte, 40)...)
		if _, err := Parse(payload); !errors.Is(err, ErrUnknownKind) || errors.Is(err, ErrMalformed) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
	if _, err := Parse(make([]byte, MaxMessageBytes+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too long: %v", err)
	}
}

func TestLongestMessage(t *testing.T) {
	o := testOffer()
	o.Suites = []aead.Suite{1, 2, 3, 4, 5, 6, 7, 8}
	o.Contexts = nil
	for i := range uint8(MaxContexts) {
		o.Contexts = append(o.Contexts, Context{ID: 2 + 2*i, Kind: ContextKind(i + 1)})
	}
	payload := o.Append(nil)
	if _, err := Parse(payload); err != nil {
		t.Fatal(err)
	}
	r := RatchetRequest{Epoch: 1, Renewal: Renewal{Retired: []uint32{1, 2, 3, 4}}}
	ids := testIDs()
	r.Renewal.Issued = ids[:]
	longest := max(len(payload), len(r.Append(nil)))
	if longest != longestMessageBytes || longest > MaxMessageBytes {
		t.Errorf("the longest message has %d bytes, not %d", longest, longestMessageBytes)
	}
}

// longestMessageBytes is what PROTOCOL.md says.
const longestMessageBytes = 1389

func TestRefuse(t *testing.T) {
	offer := testOffer().Append(nil)
	answer, err := Refuse(offer, ReasonPolicy)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte{byte(KindRefusal), 3}, offerIDBytes(offer)...)
	if want = binary.BigEndian.AppendUint16(want, uint16(ReasonPolicy)); !bytes.Equal(answer, want) {
		t.Errorf("refusal %x, want %x", answer, want)
	}
	adopt := &AdoptRequest{Number: 2, Lane: ID{8}, Attempt: 4, Proofs: []Proof{{}}}
	if answer, err = Refuse(adopt.Append(nil), ReasonPolicy); err != nil {
		t.Fatal(err)
	}
	if m, err := Parse(answer); err != nil || m.(*AdoptAnswer).Status != AdoptUnknown || m.(*AdoptAnswer).Lane != adopt.Lane {
		t.Errorf("answer %+v, %v", m, err)
	}
	for _, m := range testMessages() {
		if k := Kind(m.Append(nil)[0]); k == KindOffer || k == KindAdoptRequest {
			continue
		}
		if _, err := Refuse(m.Append(nil), ReasonPolicy); !errors.Is(err, ErrIgnored) {
			t.Errorf("%T: %v", m, err)
		}
	}
}

func offerIDBytes(offer []byte) []byte {
	id := OfferIDOf(offer)
	return id[:]
}

func FuzzParse(f *testing.F) {
	for _, m := range testMessages() {
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		m, err := Parse(payload)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknownKind) {
				t.Fatal(err)
			}
			return
		}
		if again := m.Append(nil); !bytes.Equal(again, payload) {
			t.Fatalf("%x became %x", payload, again)
		}
		if h, err := Peek(payload); err != nil || !slices.Contains([]Kind{1, 2, 3, 4, 5, 6, 7, 8}, h.Kind) {
			t.Fatalf("header %+v, %v", h, err)
		}
	})
}
