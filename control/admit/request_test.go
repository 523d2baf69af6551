package admit

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

func anyProof(t testing.TB) Proof {
	t.Helper()
	secret, err := token.NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Proof{Secret: secret, Binding: make([]byte, MinBinding)}
}

func TestJoinRequestCodec(t *testing.T) {
	t.Parallel()
	key, proof := newKey(t), anyProof(t)
	var many []string
	for i := range MaxRoutes {
		many = append(many, fmt.Sprintf("fd00:%x::/32", i))
	}
	for _, r := range []JoinRequest{
		request(t, key, "", proof),
		request(t, key, "laptop\x00\xff", proof, "0.0.0.0/0", "192.168.1.0/24", "fd00::/64", "::/0", "10.1.2.3/32"),
		request(t, key, strings.Repeat("x", maxRawName), proof, many...),
	} {
		wire, err := r.MarshalBinary()
		if err != nil || len(wire) > MaxRequest {
			t.Fatalf("%d bytes, %v", len(wire), err)
		}
		back, err := ParseJoinRequest(wire)
		if err != nil || !back.Public.Equal(r.Public) {
			t.Fatal(err)
		}
		if err := back.verify(proof); err != nil {
			t.Error(err)
		}
		back.Public, r.Public = identity.Public{}, identity.Public{}
		if !reflect.DeepEqual(back, r) {
			t.Errorf("%+v\n%+v", back, r)
		}
	}
	for name, r := range map[string]JoinRequest{
		"no keys":         {},
		"long name":       {Public: key.Public(), Name: strings.Repeat("x", maxRawName+1)},
		"many routes":     {Public: key.Public(), Routes: make([]netip.Prefix, MaxRoutes+1)},
		"zero route":      {Public: key.Public(), Routes: make([]netip.Prefix, 1)},
		"unmasked route":  {Public: key.Public(), Routes: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}},
		"mapped route":    {Public: key.Public(), Routes: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
		"short signature": {Public: key.Public(), Signature: make([]byte, 64)},
	} {
		if r.Signature == nil {
			r.Signature = make([]byte, identity.SignatureSize)
		}
		_, err := r.MarshalBinary()
		wantError(t, name, err, ErrRequest)
	}
	_, err := NewJoinRequest(key, strings.Repeat("x", maxRawName+1), nil, proof)
	wantError(t, "signing a long name", err, ErrRequest)
	_, err = NewJoinRequest(key, "", nil, Proof{Secret: proof.Secret})
	wantError(t, "signing without a binding", err, ErrRequest)
}

func TestJoinRequestTruncatedAndExtended(t *testing.T) {
	t.Parallel()
	wire, err := request(t, newKey(t), "laptop", anyProof(t), "192.168.1.0/24", "fd00::/64").MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for size := range wire {
		if _, err := ParseJoinRequest(wire[:size]); !errors.Is(err, ErrRequest) {
			t.Fatalf("%d of %d bytes: %v", size, len(wire), err)
		}
	}
	_, err = ParseJoinRequest(append(slices.Clone(wire), 0))
	wantError(t, "a byte more", err, ErrRequest)
	_, err = ParseJoinRequest(make([]byte, MaxRequest+1))
	wantError(t, "too long", err, ErrRequest)
	wire[0] = 2
	_, err = ParseJoinRequest(wire)
	wantError(t, "other version", err, ErrRequest)
}

func FuzzParseJoinRequest(f *testing.F) {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	routes := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00::/64")}
	r, err := NewJoinRequest(key, "laptop", routes, anyProof(f))
	if err != nil {
		f.Fatal(err)
	}
	wire, err := r.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Add(wire[:identity.PublicSize+2])
	f.Add([]byte{requestVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseJoinRequest(data)
		if err != nil {
			return
		}
		if back, err := r.MarshalBinary(); err != nil || !bytes.Equal(back, data) {
			t.Fatalf("another encoding came back: %v", err)
		}
	})
}

func FuzzParseAdmission(f *testing.F) {
	f.Add([]byte(`{"network":"aebagbafaydqqcikbmga2dqpca","name":"a",` +
		`"prefixes":["10.0.0.0/8"],"addresses":["10.0.0.2"],"chain":["AQ=="]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAdmission(data)
		if err != nil {
			return
		}
		if m, err := a.Membership(Joined{Now: time.Unix(0, 0)}); err == nil {
			t.Fatalf("an answer that no gateway gave: %+v", m)
		}
	})
}

// failing gives n good reads, then fails.
type failing struct{ left int }

var errEntropy = errors.New("no entropy")

func (f *failing) Read(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errEntropy
	}
	return io.ReadFull(rand.Reader, p)
}

// Whatever read of randomness fails, a network or a node comes about whole or not at all, also after a
// restart.
func TestFailureLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proof := w.invite(InviteOptions{Uses: 1, Routes: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}})
	r := request(t, newKey(t), "laptop", proof)
	done := false
	for n := 0; !done; n++ {
		broken, err := Open(w.store, Config{Random: &failing{n}, Now: w.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		_, err = broken.Redeem(r, proof)
		if done = err == nil; !done {
			wantError(t, fmt.Sprint("read ", n), err, errEntropy)
			w.restart()
		}
		nodes, e1 := w.Nodes()
		routes, e2 := w.Routes()
		invites, e3 := w.Invites()
		if err := errors.Join(e1, e2, e3); err != nil {
			t.Fatal(err)
		}
		joined := map[bool]int{true: 1}[done]
		if len(nodes) != 1+joined || len(routes) != joined || invites[0].UsesLeft != 1-joined {
			t.Errorf("read %d, done %t: %d nodes, %d routes, %d uses left", n, done, len(nodes), len(routes),
				invites[0].UsesLeft)
		}
	}
	empty := openStore(t, t.TempDir())
	done = false
	for n := 0; !done; n++ {
		config := Config{Random: &failing{n}, Now: w.clock.Now}
		_, err := CreateNetwork(empty, config, NetworkParams{Gateway: w.gateway.Public()})
		if done = err == nil; !done {
			wantError(t, fmt.Sprint("read ", n), err, errEntropy)
			_, err = Open(empty, config)
			wantError(t, "half a network", err, ErrNoNetwork)
		}
	}
	err := empty.View(func(tx *store.Tx) error {
		_, err := tx.Network()
		return err
	})
	if err := errors.Join(err, empty.Close()); err != nil {
		t.Error(err)
	}
}
