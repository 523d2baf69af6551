package keyschedule

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
	"github.com/aethertunnel/aethertunnel/crypto/kem"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

// vectors is testdata/vectors.json: computed from the text of the package comment by a program that shares no code or
// language with this one.
type vectors struct {
	Exporter, Request, Answer, Adopting hexBytes
	LaneID                              hexBytes `json:"lane_id"`
	Shared, Chains                      []hexBytes
	Keys                                []struct {
		Epoch                uint32
		Lane                 uint8
		Direction            Role
		Suite                aead.Suite
		Traffic, Key, IV, HP hexBytes
	}
	Adopt []struct {
		Epoch    uint32
		Role     Role
		Key, MAC hexBytes
	}
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Chains) != 3 || len(v.Keys) != 15 || len(v.Adopt) != 6 {
		t.Fatalf("vectors are incomplete: %d chains, %d keys, %d MACs", len(v.Chains), len(v.Keys), len(v.Adopt))
	}
	return v
}

// What follows up to the first test is a second implementation of the package comment, from HMAC calls alone.

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// label is HKDF-Expand-Label for at most 32 bytes, which is one round of HMAC.
func label(secret []byte, name string, context []byte, length byte) []byte {
	name = "tls13 " + name
	return mac(secret, []byte{0, length, byte(len(name))}, []byte(name), []byte{byte(len(context))}, context, []byte{1})[:length]
}

func refTraffic(chain []byte, epoch byte, lane, direction, suite byte) []byte {
	return label(chain, "lane", []byte{0, 0, 0, epoch, lane, direction, suite}, 32)
}

func refAdoptKey(chain []byte, role, epoch byte) []byte {
	return label(chain, "adopt", []byte{role, 0, 0, 0, epoch}, 32)
}

func refRatchet(chain, shared, request, answer, adopting []byte) []byte {
	h := sha256.Sum256(append(bytes.Clone(request), answer...))
	return mac(chain, shared, h[:], adopting)
}

// sameKey reports whether k seals as an AEAD over key does, under iv.
func sameKey(t *testing.T, k *aead.PacketKey, suite aead.Suite, key, iv []byte) bool {
	t.Helper()
	a, err := suite.New(key)
	if err != nil {
		t.Fatal(err)
	}
	got := k.IV()
	nonce := make([]byte, aead.NonceBytes)
	return k.Suite() == suite && bytes.Equal(got[:], iv) &&
		bytes.Equal(k.AEAD().Seal(nil, nonce, []byte("text"), nil), a.Seal(nil, nonce, []byte("text"), nil))
}

func sameHeaderKey(t *testing.T, k *aead.HeaderKey, suite aead.Suite, key []byte) bool {
	t.Helper()
	want, err := suite.NewHeaderKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var a, b [aead.MaskBytes]byte
	sample := [aead.SampleBytes]byte{1, 2, 3}
	k.Mask(&a, &sample)
	want.Mask(&b, &sample)
	return a == b
}

func TestVectors(t *testing.T) {
	v := readVectors(t)
	chains := []*Chain{}
	c, err := extract(v.Exporter, bytes.Clone(v.Shared[0]), 0)
	if err != nil {
		t.Fatal(err)
	}
	chains = append(chains, c)
	x := Exporter(v.Adopting)
	for i, adopting := range []*Exporter{nil, &x} {
		c, err = c.next(bytes.Clone(v.Shared[i+1]), Step{Request: v.Request, Answer: v.Answer, Adopting: adopting})
		if err != nil {
			t.Fatal(err)
		}
		chains = append(chains, c)
	}
	second := [][]byte{mac(v.Exporter, v.Shared[0])}
	second = append(second, refRatchet(second[0], v.Shared[1], v.Request, v.Answer, nil))
	second = append(second, refRatchet(second[1], v.Shared[2], v.Request, v.Answer, v.Adopting))
	for e, want := range v.Chains {
		if !bytes.Equal(chains[e].secret[:], want) || !bytes.Equal(second[e], want) || chains[e].Epoch() != uint32(e) {
			t.Errorf("chain %d: %x, second implementation %x, vector %x", e, chains[e].secret[:], second[e], want)
		}
	}
	for _, k := range v.Keys {
		name := fmt.Sprintf("epoch %d, lane %d, %v, %v", k.Epoch, k.Lane, k.Direction, k.Suite)
		traffic := refTraffic(second[k.Epoch], byte(k.Epoch), k.Lane, byte(k.Direction), byte(k.Suite))
		n := byte(k.Suite.KeyBytes())
		if !bytes.Equal(traffic, k.Traffic) || !bytes.Equal(label(traffic, "quic key", nil, n), k.Key) ||
			!bytes.Equal(label(traffic, "quic iv", nil, 12), k.IV) {
			t.Errorf("%s: the second implementation and the vector differ", name)
		}
		got, err := chains[k.Epoch].PacketKey(k.Lane, k.Direction, k.Suite)
		if err != nil || !sameKey(t, got, k.Suite, k.Key, k.IV) {
			t.Errorf("%s: another packet key, %v", name, err)
		}
		hp, err := chains[k.Epoch].HeaderKey(k.Lane, k.Direction, k.Suite)
		switch {
		case k.Epoch > 0 && !errors.Is(err, ErrEpoch):
			t.Errorf("%s: header key outside epoch 0: %v", name, err)
		case k.Epoch == 0 && (err != nil || !bytes.Equal(label(traffic, "quic hp", nil, n), k.HP) ||
			!sameHeaderKey(t, hp, k.Suite, k.HP)):
			t.Errorf("%s: another header key, %v", name, err)
		}
	}
	for _, a := range v.Adopt {
		key := refAdoptKey(second[a.Epoch], byte(a.Role), byte(a.Epoch))
		got, err := chains[a.Epoch].AdoptMAC(a.Role, &x, v.LaneID)
		if err != nil || !bytes.Equal(key, a.Key) || !bytes.Equal(got[:], a.MAC) ||
			!bytes.Equal(mac(key, v.Adopting, v.LaneID), a.MAC) {
			t.Errorf("adoption MAC of epoch %d, %v: %x, %v", a.Epoch, a.Role, got, err)
		}
	}
}

// TestRFC9001 checks labels and suites against appendix A.1 and A.5 of RFC 9001.
func TestRFC9001(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	expand := func(secret []byte, name string, n int) string {
		out, err := expandLabel(secret, name, nil, n)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(out)
	}
	initial, err := extract(unhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), unhex("8394c8f03e515708"), 0)
	if err != nil {
		t.Fatal(err)
	}
	client := unhex("c00cf151ca5be075ed0ebfb5c80323c42d6b7db67881289af4008f1f6c357aea")
	server := unhex("3c199828fd139efd216c155ad844cc81fb82fa8d7446fa7d78be803acdda951b")
	chacha := unhex("9ac312a7f877468ebe69422748ad00a15443f18203a07d6060f688f30f21632b")
	for _, tt := range []struct {
		secret []byte
		label  string
		want   string
	}{
		{initial.secret[:], "client in", hex.EncodeToString(client)},
		{initial.secret[:], "server in", hex.EncodeToString(server)},
		{client, "quic key", "1f369613dd76d5467730efcbe3b1a22d"},
		{client, "quic iv", "fa044b2f42a3fd3b46fb255c"},
		{client, "quic hp", "9f50449e04a0e810283a1e9933adedd2"},
		{server, "quic key", "cf3a5331653c364c88f0f379b6067e37"},
		{server, "quic iv", "0ac1493ca1905853b0bba03e"},
		{server, "quic hp", "c206b8d9b9f0f37644430b490eeaa314"},
		{chacha, "quic key", "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8"},
		{chacha, "quic iv", "e0459b3474bdd0e44a41c144"},
		{chacha, "quic hp", "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4"},
		{chacha, "quic ku", "1223504755036d556342ee9361d253421a826c9ecdf3c7148684b36b714881f9"},
	} {
		if got := expand(tt.secret, tt.label, len(tt.want)/2); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.label, got, tt.want)
		}
	}
}

func shared(t *testing.T) kem.Shared {
	t.Helper()
	k, err := kem.Generate()
	if err != nil {
		t.Fatal(err)
	}
	_, s, err := kem.Encapsulate(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBothEnds goes through the exported way, with real secrets, and checks against the second implementation.
func TestBothEnds(t *testing.T) {
	x, first := Exporter{1, 2, 3}, shared(t)
	chain, err := New(&x, first)
	if err != nil {
		t.Fatal(err)
	}
	ref := mac(x[:], first.Append(nil))
	if !bytes.Equal(chain.secret[:], ref) {
		t.Fatal("chain_0 differs")
	}
	for i := range 4 {
		step := Step{Shared: shared(t), Request: []byte("re"), Answer: []byte("quest")}
		var adopting []byte
		if i == 2 {
			step.Adopting, adopting = &Exporter{7}, append([]byte{7}, make([]byte, 31)...)
		}
		next, err := chain.Next(step)
		if err != nil {
			t.Fatal(err)
		}
		ref = refRatchet(ref, step.Shared.Append(nil), step.Request, step.Answer, adopting)
		if !bytes.Equal(next.secret[:], ref) || next.Epoch() != chain.Epoch()+1 {
			t.Fatalf("chain %d differs", next.Epoch())
		}
		chain = next
	}
	if first.IsZero() {
		t.Error("New wiped its argument")
	}
}

func TestAdoptMAC(t *testing.T) {
	x, other, id := Exporter{1}, Exporter{2}, []byte("lane")
	chain, err := New(&x, shared(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := chain.AdoptMAC(Client, &x, id)
	if err != nil {
		t.Fatal(err)
	}
	next, err := chain.Next(Step{Shared: shared(t)})
	if err != nil {
		t.Fatal(err)
	}
	if !chain.CheckAdoptMAC(Client, &x, id, got[:]) {
		t.Error("the right MAC was refused")
	}
	wrong := got
	wrong[31] ^= 1
	for name, ok := range map[string]bool{
		"reflected":     chain.CheckAdoptMAC(Server, &x, id, got[:]),
		"other session": chain.CheckAdoptMAC(Client, &other, id, got[:]),
		"other lane":    chain.CheckAdoptMAC(Client, &x, []byte("lame"), got[:]),
		"other epoch":   next.CheckAdoptMAC(Client, &x, id, got[:]),
		"one bit off":   chain.CheckAdoptMAC(Client, &x, id, wrong[:]),
		"cut":           chain.CheckAdoptMAC(Client, &x, id, got[:31]),
		"empty":         chain.CheckAdoptMAC(Client, &x, id, nil),
	} {
		if ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWipeAndErrors(t *testing.T) {
	x, s := Exporter{1}, shared(t)
	if _, err := New(&x, kem.Shared{}); !errors.Is(err, ErrWiped) {
		t.Errorf("chain from nothing: %v", err)
	}
	chain, err := New(&x, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.PacketKey(0, Client, 0); !errors.Is(err, aead.ErrSuite) {
		t.Errorf("suite 0: %v", err)
	}
	if _, err := chain.HeaderKey(0, Client, 4); !errors.Is(err, aead.ErrSuite) {
		t.Errorf("suite 4: %v", err)
	}
	if _, err := chain.Next(Step{}); !errors.Is(err, ErrWiped) {
		t.Errorf("ratchet with nothing: %v", err)
	}
	last := &Chain{secret: chain.secret, epoch: math.MaxUint32}
	if _, err := last.Next(Step{Shared: s}); !errors.Is(err, ErrEpoch) {
		t.Errorf("ratchet past the last epoch: %v", err)
	}
	memory := chain.secret
	chain.Wipe()
	chain.Wipe()
	if *memory != [SecretBytes]byte{} {
		t.Error("the secret is still in memory")
	}
	_, errKey := chain.PacketKey(0, Client, aead.AES256GCM)
	_, errHeader := chain.HeaderKey(0, Client, aead.AES256GCM)
	_, errNext := chain.Next(Step{Shared: s})
	_, errMAC := chain.AdoptMAC(Client, &x, nil)
	for _, err := range []error{errKey, errHeader, errNext, errMAC} {
		if !errors.Is(err, ErrWiped) {
			t.Errorf("use of a wiped chain: %v", err)
		}
	}
	zero := mac(label(make([]byte, 32), "adopt", make([]byte, 5), 32), x[:])
	if chain.CheckAdoptMAC(Client, &x, nil, zero) {
		t.Error("a wiped chain accepts the MAC of a chain of zeros")
	}
}

func TestNothingPrintsSecrets(t *testing.T) {
	x := Exporter(bytes.Repeat([]byte{0xab}, SecretBytes))
	chain, err := New(&x, shared(t))
	if err != nil {
		t.Fatal(err)
	}
	nested := struct {
		c *Chain
		C *Chain
		X Exporter
	}{chain, chain, x}
	secrets := []string{
		hex.EncodeToString(chain.secret[:4]), fmt.Sprint(chain.secret[:4]), "abab", "171 171", "ABAB", "0xab, 0xab",
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("keys", "chain", chain, "exporter", x, "nested", nested)
	out := []string{log.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%T"} {
		out = append(out, fmt.Sprintf(verb+verb+verb, chain, x, nested))
	}
	for _, text := range out {
		for _, secret := range secrets {
			if strings.Contains(strings.Trim(text, "[]"), strings.Trim(secret, "[]")) {
				t.Errorf("%q in %s", secret, text)
			}
		}
	}
	for _, v := range []any{chain, x} {
		if text, err := json.Marshal(v); err == nil {
			t.Errorf("JSON of %T: %s", v, text)
		}
	}
}
