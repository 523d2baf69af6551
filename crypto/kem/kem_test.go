package kem

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cloudflare/circl/dh/x25519"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
)

func generate(t *testing.T) *PrivateKey {
	t.Helper()
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testSeed() *[seedBytes]byte {
	seed := new([seedBytes]byte)
	for i := range seed {
		seed[i] = byte(3*i + 1)
	}
	return seed
}

func TestExchange(t *testing.T) {
	k := generate(t)
	ciphertext, ours, err := Encapsulate(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Public()) != 1216 || len(ciphertext) != 1120 || len(ours.Append(nil)) != 64 {
		t.Fatalf("sizes %d, %d, %d", len(k.Public()), len(ciphertext), len(ours.Append(nil)))
	}
	theirs, err := k.Decapsulate(ciphertext)
	if err != nil || !bytes.Equal(ours.Append(nil), theirs.Append(nil)) {
		t.Fatalf("two secrets: %v", err)
	}
	again, second, err := Encapsulate(k.Public())
	if err != nil || bytes.Equal(again, ciphertext) || bytes.Equal(second.Append(nil), ours.Append(nil)) {
		t.Errorf("a second exchange gave the same: %v", err)
	}
	if bytes.Equal(generate(t).Public(), k.Public()) {
		t.Error("two key pairs are the same")
	}
}

// TestAgainstAnotherImplementation plays each end with circl's ML-KEM-768 and X25519.
func TestAgainstAnotherImplementation(t *testing.T) {
	seed := testSeed()
	public, private := mlkem768.NewKeyFromSeed(seed[:mlkem.SeedSize])
	scalar := x25519.Key(seed[mlkem.SeedSize:])
	var point x25519.Key
	x25519.KeyGen(&point, &scalar)
	wantPublic, err := public.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	k, err := fromSeed(testSeed())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.Public(), append(wantPublic, point[:]...)) {
		t.Fatal("public keys differ")
	}

	// We encapsulate, they decapsulate.
	ciphertext, shared, err := Encapsulate(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	var want [SharedBytes]byte
	private.DecapsulateTo(want[:32], ciphertext[:mlkem768.CiphertextSize])
	peer := x25519.Key(ciphertext[mlkem768.CiphertextSize:])
	var agreed x25519.Key
	if !x25519.Shared(&agreed, &scalar, &peer) {
		t.Fatal("their X25519 refused ours")
	}
	copy(want[32:], agreed[:])
	if !bytes.Equal(shared.Append(nil), want[:]) {
		t.Error("what we encapsulated they do not read")
	}

	// They encapsulate, we decapsulate.
	ct := make([]byte, CiphertextBytes)
	random := bytes.Repeat([]byte{5}, 32)
	public.EncapsulateTo(ct[:mlkem768.CiphertextSize], want[:32], random)
	peerScalar := x25519.Key(random)
	x25519.KeyGen(&peer, &peerScalar)
	copy(ct[mlkem768.CiphertextSize:], peer[:])
	if !x25519.Shared(&agreed, &peerScalar, &point) {
		t.Fatal("their X25519 refused ours")
	}
	copy(want[32:], agreed[:])
	got, err := k.Decapsulate(ct)
	if err != nil || !bytes.Equal(got.Append(nil), want[:]) {
		t.Errorf("what they encapsulated we do not read: %v", err)
	}

	// And the standard library's own known-answer way says the same as theirs.
	ek, err := mlkem.NewEncapsulationKey768(wantPublic)
	if err != nil {
		t.Fatal(err)
	}
	ss, ctStd, err := mlkemtest.Encapsulate768(ek, random)
	if err != nil || !bytes.Equal(ss, want[:32]) || !bytes.Equal(ctStd, ct[:mlkem768.CiphertextSize]) {
		t.Errorf("two implementations of ML-KEM-768 differ: %v", err)
	}
}

// lowOrder are encodings of points on Curve25519 and its twist whose order divides the cofactor: they make every
// shared secret zero.
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
}

func TestLowOrderIsRefused(t *testing.T) {
	k := generate(t)
	ciphertext, _, err := Encapsulate(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range lowOrder {
		point, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		ct, shared, err := Encapsulate(append(k.Public()[:mlkem.EncapsulationKeySize768], point...))
		if !errors.Is(err, ErrLowOrder) || ct != nil || !shared.IsZero() {
			t.Errorf("encapsulate to %s: %v", text, err)
		}
		shared, err = k.Decapsulate(append(bytes.Clone(ciphertext[:mlkem.CiphertextSize768]), point...))
		if !errors.Is(err, ErrLowOrder) || !shared.IsZero() {
			t.Errorf("decapsulate %s: %v", text, err)
		}
	}
}

func TestBadInput(t *testing.T) {
	k := generate(t)
	ciphertext, shared, err := Encapsulate(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 32, 1184, PublicBytes - 1, PublicBytes + 1} {
		if _, _, err := Encapsulate(make([]byte, n)); !errors.Is(err, ErrPublic) {
			t.Errorf("public key of %d bytes: %v", n, err)
		}
	}
	outOfRange := k.Public()
	copy(outOfRange, []byte{0xff, 0xff, 0xff}) // two coefficients of 4095, above the modulus
	if _, _, err := Encapsulate(outOfRange); !errors.Is(err, ErrPublic) {
		t.Errorf("coefficients out of range: %v", err)
	}
	for _, n := range []int{0, 32, 1088, CiphertextBytes - 1, CiphertextBytes + 1} {
		if _, err := k.Decapsulate(make([]byte, n)); !errors.Is(err, ErrCiphertext) {
			t.Errorf("ciphertext of %d bytes: %v", n, err)
		}
	}
	for _, at := range []int{0, mlkem.CiphertextSize768 - 1, mlkem.CiphertextSize768, CiphertextBytes - 2} {
		flipped := bytes.Clone(ciphertext)
		flipped[at] ^= 1
		got, err := k.Decapsulate(flipped)
		if err == nil && bytes.Equal(got.Append(nil), shared.Append(nil)) {
			t.Errorf("byte %d does not matter", at)
		}
	}
}

func TestWipe(t *testing.T) {
	k := generate(t)
	ciphertext, shared, err := Encapsulate(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	seed, public, secret, copied := k.seed.raw, k.Public(), shared.box.raw, shared
	k.Wipe()
	k.Wipe()
	if *seed != [seedBytes]byte{} {
		t.Error("the seed is still in memory")
	}
	if _, err := k.Decapsulate(ciphertext); !errors.Is(err, ErrWiped) {
		t.Errorf("a wiped key decapsulates: %v", err)
	}
	if !bytes.Equal(k.Public(), public) {
		t.Error("Wipe changed the public key")
	}
	shared.Wipe()
	if *secret != [SharedBytes]byte{} || !copied.IsZero() {
		t.Error("the shared secret is still in memory")
	}
	defer func() {
		if recover() == nil {
			t.Error("a wiped secret could be used")
		}
	}()
	copied.Append(nil)
}

func TestNothingPrintsSecrets(t *testing.T) {
	seed := new([seedBytes]byte)
	copy(seed[:], bytes.Repeat([]byte{0xab}, seedBytes))
	k, err := fromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	s := newShared(bytes.Repeat([]byte{0xab}, 32), bytes.Repeat([]byte{0xab}, 32))
	nested := struct {
		k *PrivateKey
		s Shared
		K *PrivateKey
		S Shared
	}{k, s, k, s}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("keys", "key", k, "shared", s, "both", nested)
	out := []string{log.String(), k.String(), k.GoString(), s.String(), s.GoString()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		out = append(out, fmt.Sprintf(verb+verb+verb, k, s, nested))
	}
	for _, text := range out {
		for _, secret := range []string{"ababab", "ABABAB", "171 171 171", "0xab, 0xab", `\xab\xab`, "\xab\xab"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q in %s", secret, text)
			}
		}
	}
	for _, v := range []any{k, s} {
		if text, err := json.Marshal(v); err == nil {
			t.Errorf("JSON of %T: %s", v, text)
		}
	}
}

func FuzzEncapsulate(f *testing.F) {
	k, err := fromSeed(testSeed())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.Public())
	f.Add(make([]byte, PublicBytes))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, public []byte) {
		ciphertext, shared, err := Encapsulate(public)
		if (err == nil) != (len(ciphertext) == CiphertextBytes && !shared.IsZero()) {
			t.Fatalf("%d bytes of ciphertext, %v", len(ciphertext), err)
		}
	})
}

func FuzzDecapsulate(f *testing.F) {
	k, err := fromSeed(testSeed())
	if err != nil {
		f.Fatal(err)
	}
	ciphertext, _, err := Encapsulate(k.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ciphertext)
	f.Add(make([]byte, CiphertextBytes))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, ciphertext []byte) {
		shared, err := k.Decapsulate(ciphertext)
		if (err == nil) == shared.IsZero() || err == nil && len(ciphertext) != CiphertextBytes {
			t.Fatalf("%d bytes, %v", len(ciphertext), err)
		}
	})
}

func BenchmarkExchange(b *testing.B) {
	for b.Loop() {
		k, err := Generate()
		if err != nil {
			b.Fatal(err)
		}
		ciphertext, _, err := Encapsulate(k.Public())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.Decapsulate(ciphertext); err != nil {
			b.Fatal(err)
		}
	}
}
